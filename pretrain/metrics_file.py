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


def truncate_after(path: Path, step: int) -> list[tuple[int, float]]:
    """Drop records after `step`, which a run that was killed wrote beyond its last checkpoint, and lines that are no records, which
    is told but for a half-written last one; step and MLM loss (nats) of the train records that stay."""
    kept, losses, num_odd = [], [], 0
    for record in read_records(path):
        if record is None:
            num_odd += 1
        elif record["step"] <= step:
            kept.append(f"{json.dumps(record)}\n")
            if record["event"] == "train" and isinstance(record.get("mlm_loss"), float):
                losses.append((record["step"], record["mlm_loss"]))
    if num_odd:
        print(f"{path}: {num_odd:,} damaged line(s) dropped")
    if path.exists():
        write_text(path, "".join(kept))
    return losses
