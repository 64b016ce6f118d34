"""How far a run has come, and which samples it left out: all that a step depends on beside config, data, weights and optimizer.

The position in the data is one integer, the number of samples consumed; which samples those are follows from it and from the
ranges that rollbacks skipped. RUN/rollbacks.json records each rollback when it happens, so that an interruption does not undo it.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer.files import write_json


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A return to an earlier checkpoint after steps that went wrong."""

    to_step: int
    """Step of the checkpoint that was loaded; what follows holds from there on."""
    from_step: int
    """Step at which the run gave up."""
    skipped: tuple[int, int]
    """Sample numbers from the first of the bad steps to the end of the last: this visit to their rows is left out."""
    lr_factor: float
    """What the learning rate is multiplied by from `to_step` on."""
    reason: str


@dataclass(kw_only=True)
class Progress:
    """The part of a checkpoint's state.json that changes from step to step."""

    step: int = 0
    """Optimizer steps taken or skipped, over all phases."""
    samples_seen: int = 0
    """Position in the data: samples consumed since its start, left-out ranges not counted."""
    skipped_steps: int = 0
    """Steps without an update, because loss or gradient was no finite number."""
    training_seconds: float = 0.0
    """Time of the steps taken, on rank 0, in all sessions of this run; it goes back with the rest of a checkpoint."""
    steps_since_update: int = 0
    """Of them, those since the last update."""
    skipped_in_a_row: int = 0
    """Of steps_since_update, those that count: not the ones by which fp16 finds its scale."""
    best: dict[str, float] = field(default_factory=dict)
    """`step` and `mlm_loss` of the best checkpoint, once one was validated."""
    rollbacks: list[Rollback] = field(default_factory=list)
    """In the order they happened."""
    left_out: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of sample numbers that rollbacks of an earlier phase skipped on the same data."""

    def count_step(self, num_samples: int, *, applied: bool) -> None:
        """One step over the next samples."""
        self.step += 1
        self.samples_seen += num_samples
        self.skipped_steps += not applied
        self.steps_since_update = 0 if applied else self.steps_since_update + 1
        if applied:
            self.skipped_in_a_row = 0

    def skipped(self) -> list[tuple[int, int]]:
        """All ranges of sample numbers that are left out."""
        return [*self.left_out, *(rollback.skipped for rollback in self.rollbacks)]

    def lr_factor(self) -> float:
        """What all rollbacks together make of the learning rate at the present step."""
        return float(np.prod([rollback.lr_factor for rollback in self.rollbacks if rollback.to_step <= self.step]))

    def samples(self, count: int, position: int | None = None) -> np.ndarray:
        """Numbers (int64) of the next `count` samples, or of those from another position."""
        start = self.samples_seen if position is None else position
        return sample_numbers(start + np.arange(count), self.skipped())


def progress_from(state: dict[str, Any]) -> Progress:
    """The progress in a checkpoint's state; what format version 1 lacks has its start value."""
    known = {item.name: state[item.name] for item in dataclasses.fields(Progress) if item.name in state}
    left_out = [tuple(skipped) for skipped in known.get("left_out", [])]
    return Progress(**known | {"rollbacks": rollbacks_from(known.get("rollbacks", [])), "left_out": left_out})


def rollbacks_from(listed: list[dict[str, Any]]) -> list[Rollback]:
    return [Rollback(**entry | {"skipped": tuple(entry["skipped"])}) for entry in listed]


def sample_numbers(positions: np.ndarray, skipped: Sequence[tuple[int, int]]) -> np.ndarray:
    """The sample number (int64) at each position (int64), when ranges [begin, end) of sample numbers are left out."""
    numbers = positions.astype(np.int64)
    for begin, end in merged(skipped):
        numbers = np.where(numbers >= begin, numbers + end - begin, numbers)
    return numbers


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges in order, those that touch or overlap as one."""
    result: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((begin, end))
    return result


def read_rollbacks(run_folder: Path, data_sha256: str, known: Sequence[Rollback] = ()) -> list[Rollback]:
    """RUN/rollbacks.json, if it is there and of this data, and after them the `known` ones that it lacks."""
    try:
        file = json.loads((run_folder / "rollbacks.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [*known]
    filed = rollbacks_from(file["rollbacks"]) if file["data_sha256"] == data_sha256 else []
    return [*filed, *(rollback for rollback in known if rollback not in filed)]


def write_rollbacks(run_folder: Path, data_sha256: str, rollbacks: list[Rollback]) -> None:
    listed = [dataclasses.asdict(rollback) for rollback in rollbacks]
    write_json(run_folder / "rollbacks.json", {"data_sha256": data_sha256, "rollbacks": listed})
