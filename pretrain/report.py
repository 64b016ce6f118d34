"""RUN/state.json: how a run stands or ended, in words and as an exit code. Workers write it, `albert launch` reads it."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tokenizer.files import write_json

FORMAT_VERSION = 1
RESTART_VARIABLE, START_VARIABLE = "ALBERT_RESTART", "ALBERT_START"


class Preempted(Exception):
    """The run was asked to stop; its checkpoint is written."""


class Diagnosis(Exception):
    """The run cannot go on usefully; the message says what was seen and what helps."""


def write_report(run_folder: Path, status: str, code: int | None, message: str, start: str | None = None) -> None:
    """RUN/state.json: `exit_code` is None while the run goes on. start: which one it is of; default: that of this worker."""
    report = {"format_version": FORMAT_VERSION, "status": status, "exit_code": code, "message": message}
    write_json(run_folder / "state.json", report | {"start": own_start() if start is None else start})


def own_start() -> str:
    """The start that this worker belongs to; empty without `albert launch`."""
    return os.environ.get(START_VARIABLE, "")


def is_overtaken(run_folder: Path) -> bool:
    """Whether `albert launch` has given this worker up, and another start is at work: what it has to say is of no interest."""
    start = read_report(run_folder).get("start", "")
    return bool(own_start()) and start != own_start()


class Restart(NamedTuple):
    """Why `albert launch` has started the workers again; they log it."""

    number: int
    """Of this launch, from 1; in a job, counted on from the times that Slurm has started it again."""
    reason: str

    def to_environment(self) -> dict[str, str]:
        """As letters and digits alone: DeepSpeed's launchers put other values between quotes that stay."""
        return {RESTART_VARIABLE: json.dumps(self._asdict()).encode().hex()}


def read_restart() -> Restart | None:
    """What `albert launch` said to this worker; None at a first start."""
    text = os.environ.get(RESTART_VARIABLE)
    return Restart(**json.loads(bytes.fromhex(text))) if text else None


def read_report(run_folder: Path) -> dict[str, Any]:
    """RUN/state.json; says "the workers did not start" where there is none."""
    try:
        return json.loads((run_folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"exit_code": None, "message": "the workers did not start"}


def newest_step(run_folder: Path) -> int:
    """Step of the newest checkpoint; -1 without one."""
    numbers = (path.name.removeprefix("step-") for path in (run_folder / "checkpoints").glob("step-*"))
    return max((int(number) for number in numbers if number.isdigit()), default=-1)
