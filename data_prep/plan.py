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

from data_prep.folder import Folder
from data_prep.options import PrepareOptions
from data_prep.schema import piece_type
from tokenizer.corpus import Faults, Input, Range, resolve_inputs, split_inputs
from tokenizer.errors import UserError
from tokenizer.files import check_format_version, sha256_of_files
from tokenizer.storage import is_url, size_and_mark

PLAN_NAME = "plan.json"
FORMAT_VERSION = 1
"""Of plan.json. Another release's unfinished run is not gone on with."""

TASK_BYTES = (4_000_000, 1_000_000_000)
"""Smallest and largest task that is chosen by itself."""
NUM_TASKS = 512
"""Tasks are made larger above the smallest once there are this many: each leaves files that later stages open."""

BUCKET_BYTES = (32_000_000, 256_000_000)
"""Smallest and largest bucket: its rows are sorted in memory. Each task leaves a slice for each bucket."""
NUM_BUCKETS = 4096
"""Buckets are made larger above the smallest once there are this many."""

FILES = ("language_model", "abbreviations")
"""Options that name a file whose content shapes the bytes."""
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
    tasks: list[list[Range]]
    """By task: the parts of the corpus that it reads, all of inputs with one label."""
    shaping: dict[str, Any]
    """Every option that shapes the bytes; of files that are read, the SHA-256 of their content."""
    num_buckets: dict[str, int]
    """By split."""
    cutoff: float = 0.0
    """A document is held out if its lot is below this (held_out.py)."""
    num_faults: int = 0
    faults: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """Inputs that cannot be read (`--on_error skip`)."""

    def label(self, task: int) -> str:
        """Of the inputs that the task reads."""
        return self.inputs[self.tasks[task][0].input_index].label

    def task_bytes(self) -> list[int]:
        """Bytes of text of each task, as far as they are known beforehand."""
        return [sum(part.num_bytes for part in parts) for parts in self.tasks]


def make_plan(options: PrepareOptions, tokenizer_sha256: str, vocab_size: int) -> Plan:
    """The plan but for `cutoff`, which needs the documents.

    Raises:
        UserError: an input is missing or cannot be read.
    """
    faults = Faults(options.on_error, private=options.private)
    inputs = [item._replace(source=absolute(item.source)) for item in resolve_inputs(options.input, faults=faults)]
    task_size = options.task_size
    if task_size is None:
        smallest, largest = TASK_BYTES
        total = sum(part.num_bytes for part in split_inputs(inputs, largest, text_field=options.text_field))
        task_size = min(max(total // NUM_TASKS, smallest), largest)
    tasks = group(split_inputs(inputs, task_size, text_field=options.text_field), inputs, task_size)
    files = {name: getattr(options, name) for name in FILES}
    options = dataclasses.replace(
        options,
        task_size=task_size,
        tokenizer=Path(os.path.abspath(options.tokenizer)),
        **{name: path and Path(os.path.abspath(path)) for name, path in files.items()},
    )
    contents = {name: path and content_sha256(name, path) for name, path in files.items()}
    width = piece_type(vocab_size).bit_width // 16
    row_bytes = sum(part.num_bytes for parts in tasks for part in parts) * BYTES_PER_TEXT_BYTE * width
    sizes = {"train": row_bytes * options.dupe_factor, "validation": row_bytes * options.validation_fraction}
    smallest, largest = BUCKET_BYTES
    bucket_size = min(max(sizes["train"] / NUM_BUCKETS, smallest), largest)
    return Plan(
        options=options,
        tokenizer_sha256=tokenizer_sha256,
        vocab_size=vocab_size,
        inputs=inputs,
        stamps=[stamp(item) for item in inputs],
        tasks=tasks,
        shaping=options.shaping() | contents,
        num_buckets={split: 1 + int(size / bucket_size) for split, size in sizes.items()},
        num_faults=faults.num,
        faults=faults.listed,
    )


def group(ranges: list[Range], inputs: list[Input], task_size: int) -> list[list[Range]]:
    """Neighbouring ranges of one label as tasks of up to `task_size` bytes: many small files are few tasks."""
    labels = {label: number for number, label in enumerate(dict.fromkeys(item.label for item in inputs))}
    ranges = sorted(ranges, key=lambda part: labels[inputs[part.input_index].label])  # stable
    tasks: list[list[Range]] = []
    size = 0
    for part in ranges:
        is_same = tasks and inputs[tasks[-1][0].input_index].label == inputs[part.input_index].label
        if not is_same or size + part.num_bytes > task_size:
            tasks.append([])
            size = 0
        tasks[-1].append(part)
        size += part.num_bytes
    return tasks


def content_sha256(name: str, path: Path) -> str:
    """Raises UserError if the file cannot be read."""
    try:
        return sha256_of_files(path)
    except OSError as error:
        raise UserError(f"--{name} {path}: cannot be read ({error.strerror}). Give a file.") from error


def absolute(source: str) -> str:
    return source if is_url(source) or source.startswith("hf:") else os.path.abspath(source)


def stamp(item: Input) -> str:
    """What changes when the content of the input does.

    Raises:
        UserError: it is gone.
    """
    if item.kind == "hf":
        return ""
    try:
        if not is_url(item.source):
            status = os.stat(item.source)
            return f"{status.st_size} bytes, {status.st_mtime_ns}"
        size, mark = size_and_mark(item.source)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{item.source}: is gone, or cannot be read ({reason}). Put it back, then give the same command."
        ) from error
    return f"{size} bytes, {mark}"


def check_inputs(plan: Plan, task: int) -> None:
    """Raise a UserError if an input that the task reads was changed since the plan was made."""
    for number in {part.input_index for part in plan.tasks[task]}:
        item = plan.inputs[number]
        if plan.stamps[number] != stamp(item):
            raise UserError(
                f"{item.source}: was changed since the preparation began. Put it back, or begin anew in an empty folder."
            )


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
        for path in ("tokenizer", *FILES):
            options[path] = options[path] and Path(options[path])
        inputs = [Input(*item) for item in content.pop("inputs")]
        tasks = [[Range(*part) for part in parts] for parts in content.pop("tasks")]
        return Plan(options=PrepareOptions(**options), inputs=inputs, tasks=tasks, **content)
    except FileNotFoundError as error:
        raise UserError(f"{folder.path(PLAN_NAME)}: not found. `albert prepare --executor slurm` writes it.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.path(PLAN_NAME)}: expected the plan of a data folder, but it cannot be read ({error}). {again}"
        ) from error


def check_same(folder: Folder, old: Plan, new: Plan) -> None:
    """Refuse to go on with, or to write over, a folder that was begun with other options or another corpus.

    Raises:
        UserError: naming each option that differs, or the first input that does.
    """
    before, now = old.shaping, new.shaping
    differ = [f"--{name} is {now[name]!r}, there it is {before.get(name)!r}" for name in now if now[name] != before.get(name)]
    if old.tokenizer_sha256 != new.tokenizer_sha256:
        differ.append(f"--tokenizer {new.options.tokenizer} is another tokenizer than there")
    if new.options.private and not old.options.private:
        differ.append("--private is True, there it is False, and what is written there may quote the corpus")
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
    content.pop("options")  # `shaping` has what counts
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
