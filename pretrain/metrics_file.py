"""metrics.jsonl: its records read, whatever else stands in it, and those dropped that a run went back from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizer.errors import UserError
from tokenizer.files import write_text


def read_records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The records of metrics.jsonl, None for a line that is none; the half-written last line of a run at work does not count.

    Raises:
        UserError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    yield record if is_record(record) else None
                except (ValueError, RecursionError):
                    if line.endswith(b"\n"):
                        yield None
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def is_record(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("event"), str):
        return False
    return is_step(content.get("step"))


def is_step(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def truncate_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop records after `step`, which a run that was killed wrote beyond its last checkpoint, and lines that are no records, which
    is told but for a half-written last one; the others."""
    records = list(read_records(path))
    if num_odd := records.count(None):
        print(f"{path}: {num_odd:,} damaged line(s) dropped")
    kept = [record for record in records if record is not None and record["step"] <= step]
    if path.exists():
        write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept))
    return kept
