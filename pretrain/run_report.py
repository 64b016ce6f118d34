"""A run folder in, what happened in it out: figures by step, marks, sessions. Of a run at work, what there is so far."""

import math
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.schema import Manifest, read_manifest
from pretrain.config import RunConfig
from pretrain.config_file import load_config
from pretrain.metrics_file import is_step, read_records
from pretrain.report import read_report
from tokenizer.errors import UserError
from tokenizer.provenance import Record, read_record

FIGURES = ("loss", "mlm_loss", "sop_loss", "mlm_accuracy", "sop_accuracy", "unigram_entropy", "lr", "grad_norm")
FIGURES += ("trust_ratio_min", "trust_ratio_median", "trust_ratio_max", "tokens_per_second", "mfu", "data_wait")
FIGURES += ("peak_memory", "estimated_memory", "epoch", "time")
"""Of the records `train` and `validation` of metrics.jsonl."""

MARKS = ("rollback", "restart", "skipped", "warning")
"""Events that a curve should be read with, the gravest first."""


class Mark(NamedTuple):
    step: int
    kind: str
    """One of MARKS; a start by the user is a restart, too."""
    message: str


class Series(NamedTuple):
    """Records of one kind in the order of their steps."""

    steps: np.ndarray
    """int64 [records]."""
    figures: dict[str, np.ndarray]
    """float64 [records] by name: NaN where a record has none, infinite where it is no finite number."""

    def last(self, name: str) -> float | None:
        """The newest figure that is there; None without one."""
        known = self.figures[name][~np.isnan(self.figures[name])]
        return float(known[-1]) if len(known) else None


class RunReport(NamedTuple):
    folder: Path
    config: RunConfig
    manifest: Manifest | None
    """Of the data; None if it is not to be had."""
    data_fault: str
    """Why it is not."""
    train: Series
    validation: Series
    marks: list[Mark]
    sessions: list[Record]
    """From provenance.json."""
    faults: list[str]
    """What could not be read, in words."""
    state: str
    """How the run stands, in words."""

    @property
    def unigram_entropy(self) -> float | None:
        """Of the held-out text, or of the training text where none is held out."""
        logged = self.validation.last("unigram_entropy")
        return self.manifest.splits["train"].unigram_entropy if logged is None and self.manifest else logged

    @property
    def step(self) -> int:
        """The newest that a record is of."""
        return int(max([0, *self.train.steps[-1:], *self.validation.steps[-1:]]))


def read_run(folder: Path) -> RunReport:
    """All that a run folder tells but for its weights. What is damaged or missing beside the config is named and left out.

    Raises:
        UserError: there is no run config, or it cannot be used; metrics.jsonl cannot be read.
    """
    config = load_config(folder / "config.yaml")
    faults, sessions, manifest, data_fault = [], [], None, ""
    try:
        manifest = read_manifest(config.data.path)
    except UserError as error:
        data_fault = str(error)
    try:
        sessions = (read_record(folder) or {"sessions": []})["sessions"]
        if num_odd := sum(not isinstance(session, dict) for session in sessions):
            faults.append(f"{folder / 'provenance.json'}: {num_odd:,} session(s) are no records and are left out.")
            sessions = [session for session in sessions if isinstance(session, dict)]
    except (UserError, OSError) as error:
        faults.append(str(error))
    train, validation, marks, num_unreadable = gather(read_records(folder / "metrics.jsonl"))
    if num_unreadable:
        faults.append(f"{folder / 'metrics.jsonl'}: {num_unreadable:,} line(s) cannot be read and are left out.")
    marks += [started_again(session, config.schedule.start_step) for session in sessions[1:]]
    marks.sort(key=lambda mark: mark.step)
    return RunReport(folder, config, manifest, data_fault, train, validation, marks, sessions, faults, standing(folder))


def gather(records: Iterable[dict[str, Any] | None]) -> tuple[Series, Series, list[Mark], int]:
    """Training, validation, marks, and the number of lines that are no records.

    Where the run went back, what it had logged beyond does not count: a run rewrites its log then, but may be killed before.
    """
    tables = {"train": _Table(), "validation": _Table()}
    marks, num_unreadable = [], 0
    for record in records:
        if record is None:
            num_unreadable += 1
            continue
        event, step = record["event"], record["step"]
        if event in ("rollback", "restart"):
            for table in tables.values():
                table.keep_up_to(step)
        if event in tables:
            tables[event].keep_up_to(step - 1)
            tables[event].add(record)
        elif event in MARKS:
            marks.append(Mark(step, event, str(record.get("message", ""))))
    return tables["train"].series(), tables["validation"].series(), marks, num_unreadable


class _Table:
    """Figures of records with rising steps; compact, because a long run has hundreds of thousands."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")

    def keep_up_to(self, step: int) -> None:
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
        del self.values[len(self.steps) * len(FIGURES) :]

    def add(self, record: dict[str, Any]) -> None:
        self.steps.append(record["step"])
        self.values.extend(as_number(record.get(name)) for name in FIGURES)

    def series(self) -> Series:
        values = np.array(self.values, dtype=np.float64).reshape(-1, len(FIGURES))
        return Series(np.array(self.steps, dtype=np.int64), {name: values[:, i].copy() for i, name in enumerate(FIGURES)})


def as_number(value: object) -> float:
    """NaN where there is no figure, infinite where it is no finite number, which JSON has no form for and Python writes as NaN."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.inf
    except OverflowError:
        return math.inf


def started_again(session: Record, first_step: int) -> Mark:
    step = session.get("from_step")
    return Mark(step if is_step(step) else first_step, "restart", f"started again, {session.get('started')}")


def standing(folder: Path) -> str:
    """What state.json and DONE say."""
    if (folder / "DONE").exists():
        return "done"
    report = read_report(folder)
    status, message = str(report.get("status", "not started")), str(report.get("message") or "")
    return f"{status}: {message}" if message and "status" in report else status
