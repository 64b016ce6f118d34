"""The weights of an export: which checkpoints of a run, and the mean of several.

The run may go on training meanwhile, and delete a checkpoint that is being read: then the choice is made again.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from pretrain.checkpoint import find_fault, read_state, step_of
from pretrain.checkpoint_choice import choose_checkpoint, good_checkpoints, newest_first
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files

TRIES = 10
"""Choices made before a run that deletes faster than this reads is given up."""


class Checkpoint(NamedTuple):
    folder: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]
    sha256: str
    """Of its manifest.json."""


class Source(NamedTuple):
    """What is exported."""

    weights: dict[str, Tensor]
    """By our names, fp32."""
    state: dict[str, Any]
    """Of the newest checkpoint."""
    checkpoints: dict[str, str]
    """Name of the folder -> SHA-256 of its manifest.json, newest first; several if their mean was taken."""


class DeletedMeanwhile(Exception):
    """Training has deleted or set aside this folder."""


def read_source(checkpoints: Path, which: str, num: int, keep_last: int) -> Source:
    """Checkpoint `last`, `best` or a step, or the mean of it and the `num - 1` whole ones before it.

    keep_last: so many of the newest the run keeps; an older one is there because it was the best once, and is no neighbour.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or there are fewer than `num`.
    """
    for _ in range(TRIES):
        try:
            neighbours = list(islice(newest_first(checkpoints), keep_last))  # before the choice: what comes after it is none
            newest = choose_checkpoint(checkpoints, which, read_checkpoint)
            before = (folder for folder in neighbours if step_of(folder) < newest.state["step"])
            return mean_of(newest, good_checkpoints(before, read_checkpoint), num)
        except DeletedMeanwhile as deleted:
            gone = deleted
            if which not in ("last", "best"):
                raise UserError(f"{gone}: was deleted by the run while it was read. Give last or best.") from gone
    raise UserError(
        f"{gone}: was deleted by the run while it was read, as were the {TRIES - 1} chosen before it. Raise checkpoint.keep_last "
        "for the rest of the run, or export when it has ended."
    )


def mean_of(newest: Checkpoint, before: Iterator[Checkpoint], num: int) -> Source:
    """Summed in float64, one checkpoint after the other. before: newest first.

    Raises:
        UserError: there are fewer than `num`.
    """
    read = {newest.folder.name: newest.sha256}
    if num == 1:
        return Source(newest.weights, newest.state, read)
    sums = {name: tensor.double() for name, tensor in newest.weights.items()}
    while len(read) < num and (checkpoint := next(before, None)):
        read[checkpoint.folder.name] = checkpoint.sha256
        for name, total in sums.items():
            total += checkpoint.weights[name]
    if len(read) < num:
        raise UserError(
            f"--average {num}: up to {newest.folder} the run has {len(read)} whole checkpoint(s) ({', '.join(reversed(read))}). "
            f"Give at most {len(read)}, or raise checkpoint.keep_last and train on."
        )
    return Source({name: (total / num).float() for name, total in sums.items()}, newest.state, read)


def read_checkpoint(folder: Path) -> Checkpoint | str:
    """The checkpoint, or what is wrong with it.

    Raises:
        DeletedMeanwhile: it is not there any more.
        UserError: a file is there and cannot be read, or is of another format version.
    """
    try:
        fault = find_fault(folder)
        if fault is None:
            mapped = load_file(folder / "model.safetensors")
            weights = {name: tensor.clone() for name, tensor in mapped.items()}  # the run may delete the file
            return Checkpoint(folder, weights, read_state(folder), sha256_of_files(folder / "manifest.json"))
    except (UserError, OSError) as error:
        if folder.is_dir():
            raise
        raise DeletedMeanwhile(folder) from error
    if not folder.is_dir():
        raise DeletedMeanwhile(folder)
    return fault
