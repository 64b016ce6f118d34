"""A work folder, in which a command given again goes on, holds what one set of settings makes."""

import json
from pathlib import Path
from typing import Any

from tokenizer.errors import UserError
from tokenizer.files import write_json


def bind(record: Path, settings: dict[str, Any]) -> None:
    """Write down what the folder of the file `record` is made with; the folder is made if it is not there.

    Raises:
        UserError: it was made with something else.
    """
    if record.exists():
        former = json.loads(record.read_text(encoding="utf-8"))
        if changed := [name for name in settings | former if settings.get(name) != former.get(name)]:
            told = "; ".join(f"{name}: {former.get(name)} -> {settings.get(name)}" for name in changed)
            raise UserError(
                f"{record.parent} was made with other settings ({told}). Choose another --work, or, if nothing there is of use "
                f"yet, delete {record}."
            )
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, settings)
