"""Options in, plan.json out: what there is to read, cut into tasks, and everything else that tasks on other machines must know.

The plan is the first file of a data folder. It follows from the corpus and the options, never from the number of workers, so a
run that was killed makes the same plan again and goes on; a run with other options is refused.
"""

import dataclasses
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from data_prep.folder import Folder
from data_prep.options import PrepareOptions
from data_prep.schema import shard_schema
from tokenizer.corpus import Faults, Input, Range, resolve_inputs, split_inputs
from tokenizer.errors import UserError
from tokenizer.files import check_format_version

PLAN_NAME = "plan.json"
FORMAT_VERSION = 1
"""Of plan.json. Another release's unfinished run is not gone on with."""

TASK_BYTES = (4_000_000, 128_000_000)
"""Smallest and largest task that is chosen by itself."""
NUM_TASKS = 512
"""Tasks are made larger above the smallest once there are this many: each leaves files that later stages open."""

BUCKET_BYTES = 32_000_000
"""Rows are sorted in buckets of about this size, in memory."""
BYTES_PER_TEXT_BYTE = 0.6
"""Of unmasked uint16 rows: English has a piece for each 4 bytes of text, Chinese one for each 4 to 5."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What plan.json holds."""

    options: PrepareOptions
    """Paths in it are absolute."""
    tokenizer_sha256: str
    vocab_size: int
    inputs: list[Input]
    stamps: list[str]
    """By input: what changes when its content does (size and time, or the store's own mark)."""
    ranges: list[Range]
    """By task: the part of the corpus that it reads."""
    num_buckets: dict[str, int]
    """By split."""
    cutoff: float = 0.0
    """A document is held out if its lot is below this (held_out.py)."""
    num_faults: int = 0
    faults: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """Inputs that cannot be read (`--on_error skip`)."""


def make_plan(options: PrepareOptions, tokenizer_sha256: str, vocab_size: int) -> Plan:
    """The plan but for `cutoff`, which needs the documents.

    Raises:
        UserError: an input is missing or cannot be read.
    """
    faults = Faults(options.on_error)
    inputs = [item._replace(source=absolute(item.source)) for item in resolve_inputs(options.input, faults=faults)]
    task_size = options.task_size
    if task_size is None:
        smallest, largest = TASK_BYTES
        total = sum(part.num_bytes for part in split_inputs(inputs, largest, text_field=options.text_field))
        task_size = min(max(total // NUM_TASKS, smallest), largest)
    ranges = split_inputs(inputs, task_size, text_field=options.text_field)
    paths = {name: getattr(options, name) for name in ("tokenizer", "language_model", "abbreviations")}
    options = dataclasses.replace(
        options, task_size=task_size, **{name: path and Path(os.path.abspath(path)) for name, path in paths.items()}
    )
    width = shard_schema(vocab_size).field("input_ids").type.value_type.bit_width // 16
    row_bytes = int(sum(part.num_bytes for part in ranges) * BYTES_PER_TEXT_BYTE * width)
    train, held_out = row_bytes * options.dupe_factor, row_bytes * options.validation_fraction
    return Plan(
        options=options,
        tokenizer_sha256=tokenizer_sha256,
        vocab_size=vocab_size,
        inputs=inputs,
        stamps=[stamp(item) for item in inputs],
        ranges=ranges,
        num_buckets={"train": 1 + int(train) // BUCKET_BYTES, "validation": 1 + int(held_out) // BUCKET_BYTES},
        num_faults=faults.num,
        faults=faults.listed,
    )


def absolute(source: str) -> str:
    return source if "://" in source or source.startswith("hf:") else os.path.abspath(source)


def stamp(item: Input) -> str:
    if item.kind == "hf":
        return ""
    fs, path = fsspec.core.url_to_fs(item.source)
    info = fs.info(path)
    mark = next(
        (info[name] for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified") if info.get(name)), ""
    )
    return f"{info['size']} bytes, {mark}"


def write_plan(folder: Folder, plan: Plan) -> None:
    folder.write_json(PLAN_NAME, as_json(plan))


def as_json(plan: Plan) -> dict[str, Any]:
    content = dataclasses.asdict(plan) | {"format_version": FORMAT_VERSION}
    return json.loads(json.dumps(content, default=str))


@functools.lru_cache(maxsize=4)
def read_plan(url: str, key: str = "") -> Plan:
    """The plan of the data folder at this path or URL, read once in a process for each key (from `plan_key`).

    Raises:
        UserError: there is none, or it is damaged or of another release.
    """
    folder = Folder(url)
    again = "Start the preparation again with an empty --output."
    try:
        content = folder.read_json(PLAN_NAME)
        check_format_version(Path(folder.path(PLAN_NAME)), content.pop("format_version"), FORMAT_VERSION, again)
        options = content.pop("options")
        for path in ("tokenizer", "language_model", "abbreviations"):
            options[path] = options[path] and Path(options[path])
        inputs = [Input(*item) for item in content.pop("inputs")]
        ranges = [Range(*part) for part in content.pop("ranges")]
        return Plan(options=PrepareOptions(**options), inputs=inputs, ranges=ranges, **content)
    except FileNotFoundError as error:
        raise UserError(f"{folder.path(PLAN_NAME)}: not found. `albert prepare --executor slurm` writes it.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.path(PLAN_NAME)}: expected the plan of a data folder, but it cannot be read ({error}). {again}"
        ) from error


def check_same(folder: Folder, old: Plan, new: Plan) -> None:
    """Refuse to go on with, or to write over, a folder that was begun with other options or another corpus.

    Raises:
        UserError: naming each option that differs, or the first input that does.
    """
    before, now = old.options.shaping(), new.options.shaping()
    differ = [f"--{name} is {now[name]!r}, there it is {before.get(name)!r}" for name in now if now[name] != before.get(name)]
    if old.tokenizer_sha256 != new.tokenizer_sha256:
        differ.append(f"--tokenizer {new.options.tokenizer} is another tokenizer than there")
    names = [{(item.name, item.label): mark for item, mark in zip(plan.inputs, plan.stamps, strict=True)} for plan in (old, new)]
    changed = [name for (name, label), mark in names[1].items() if names[0].get((name, label)) != mark]
    missing = [name for (name, label) in names[0] if (name, label) not in names[1]]
    if changed:
        differ.append(f"--input: {changed[0]} is not there, or was changed since{and_more(changed)}")
    if missing:
        differ.append(f"--input: {missing[0]} is there, but not given now{and_more(missing)}")
    if differ:
        raise UserError(
            f"{folder}: was prepared, or begun, with other options:\n  " + "\n  ".join(differ) + "\n"
            "Choose another --output, give the same options to go on, or delete the folder to begin anew."
        )


def and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def plan_key(plan: Plan) -> str:
    """Stands for everything that shapes the tasks: in the name of the folder of completion markers, and for what processes keep."""
    content = as_json(plan)
    content["inputs"] = [item[1:] for item in content["inputs"]]  # a corpus that moved is the same corpus
    for name in ("input", "tokenizer", "output", "workers", "executor", "sbatch"):
        content["options"].pop(name)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
