"""`--checkpoint last`, `best` or a step: one checkpoint of a run, read as the verb at hand needs it.

The run may go on training meanwhile, so what is chosen is read at once, by a reader of the verb's own.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pretrain.checkpoint import find_fault, list_checkpoints, read_state, step_of
from tokenizer.errors import UserError


class Read(Protocol):
    """What a reader makes of a checkpoint."""

    @property
    def folder(self) -> Path: ...

    @property
    def state(self) -> dict[str, Any]:
        """state.json."""


Checkpoint = TypeVar("Checkpoint", bound=Read)
Reader = Callable[[Path], Checkpoint | str]
"""Gives the checkpoint in a folder, or what is wrong with it."""


class Found(NamedTuple):
    """A whole checkpoint, its weights not yet read."""

    folder: Path
    state: dict[str, Any]


def find(folder: Path) -> Found | str:
    """The `Reader` of those who read weights later."""
    try:
        return find_fault(folder) or Found(folder, read_state(folder))
    except FileNotFoundError:
        return "was deleted meanwhile by the run"


def choose_checkpoint(checkpoints: Path, which: str, read: Reader[Checkpoint]) -> Checkpoint:
    """Damaged checkpoints newer than `last` are passed over, which is printed.

    Raises:
        UserError: there is none of that name, or it is damaged.
    """
    folders = list(newest_first(checkpoints))
    if which in ("last", "best"):
        if not folders:
            raise UserError(f"{checkpoints}: there is no checkpoint yet. Start the run with `albert launch`.")
        newest = next(good_checkpoints(folders, read), None)
        if newest is None:
            raise UserError(f"{checkpoints}: no checkpoint is whole. Restore one from a backup, or train again.")
        best = newest.state["best"].get("step")
        if which == "last" or best == newest.state["step"]:
            return newest
        if best is None:
            raise UserError(f"--checkpoint best: no step saved in {checkpoints} was validated; give last or a step.")
        which = str(best)
    if checkpoints / f"step-{which}" not in folders and folders == list(newest_first(checkpoints)):
        there = ", ".join(str(step_of(folder)) for folder in reversed(folders)) or "none"
        raise UserError(f"--checkpoint {which}: no such checkpoint in {checkpoints}; give last, best or a step ({there}).")
    found = read(checkpoints / f"step-{which}")
    if isinstance(found, str):
        raise UserError(f"{checkpoints / f'step-{which}'}: {found}. Choose another --checkpoint.")
    return found


def good_checkpoints(folders: Iterable[Path], read: Reader[Checkpoint]) -> Iterator[Checkpoint]:
    """Those that are whole; of the others it is said what is wrong."""
    for folder in folders:
        found = read(folder)
        if isinstance(found, str):
            print(f"damaged checkpoint passed over: {folder}: {found}")
        else:
            yield found


def newest_first(checkpoints: Path) -> Iterator[Path]:
    return reversed(list_checkpoints(checkpoints))
