"""A tenth of what there is to train on, held out where there is no --validation."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from tokenizer.errors import UserError

HELD_OUT = 10
"""One of so many."""

Row = TypeVar("Row")


def draw_held_out(number: int, seed: int, source: str, what: str, labels: Sequence[str] | None = None) -> set[int]:
    """Those of `number` that are held out. labels: of each; no label's last one is drawn.

    Raises:
        UserError: none can be.
    """
    left, chosen = Counter(labels), set()
    for place in np.random.default_rng(seed).permutation(number).tolist():
        if len(chosen) < number // HELD_OUT and (labels is None or left[labels[place]] > 1):
            if labels is not None:
                left[labels[place]] -= 1
            chosen.add(place)
    if not chosen and number >= HELD_OUT:
        raise UserError(
            f"{source}: each of the {number:,} {what} has a label of its own, so none can be held out. "
            "Give --label, if it is in another column, or --validation."
        )
    if not chosen:
        raise UserError(f"{source}: {number} {what} are too few to hold a tenth out; give --validation.")
    return chosen


def separate(rows: Sequence[Row], held_out: Iterable[bool]) -> dict[str, list[Row]]:
    """`train` and `validation`, in the order of the rows."""
    parts: dict[str, list[Row]] = {"train": [], "validation": []}
    for row, is_out in zip(rows, held_out, strict=True):
        parts["validation" if is_out else "train"].append(row)
    return parts
