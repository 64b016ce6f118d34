"""RUN/state.json: how a run stands or ended, in words and as an exit code. Workers write it, `albert launch` reads it."""

import json
from pathlib import Path
from typing import Any

from tokenizer.files import write_json

FORMAT_VERSION = 1


class Preempted(Exception):
    """The run was asked to stop; its checkpoint is written."""


class Diagnosis(Exception):
    """The run cannot go on usefully; the message says what was seen and what helps."""


def write_report(run_folder: Path, status: str, code: int | None, message: str) -> None:
    """RUN/state.json: `exit_code` is None while the run goes on."""
    write_json(
        run_folder / "state.json", {"format_version": FORMAT_VERSION, "status": status, "exit_code": code, "message": message}
    )


def read_report(run_folder: Path) -> dict[str, Any]:
    """RUN/state.json; says "the workers did not start" where there is none."""
    try:
        return json.loads((run_folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"exit_code": None, "message": "the workers did not start"}
