"""`albert inspect` of a run: its figures in the terminal, and, where asked for, the page."""

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.inspect_options import InspectOptions
from pretrain.checkpoint_choice import choose_checkpoint, find
from pretrain.predictions import Predictions, predict
from pretrain.run_page import about, build_run_page
from pretrain.run_report import MARKS, RunReport, Series, read_run
from tokenizer.errors import UserError
from tokenizer.page import write_page
from tokenizer.printable import printable

NUM_ROWS = 12
COLUMNS = {
    "loss": ("loss", ".4f"),
    "mlm_loss": ("MLM loss", ".4f"),
    "mlm_accuracy": ("MLM acc", ".1%"),
    "sop_accuracy": ("order acc", ".1%"),
    "lr": ("LR", ".2e"),
    "tokens_per_second": ("pieces/s", ",.0f"),
    "mfu": ("MFU", ".1%"),
}
"""Figure: heading and format."""


def inspect_run(options: InspectOptions) -> None:
    """Show how a run has gone and stands; with `html`, its curves, predictions, config and environment as a page.

    Raises:
        UserError: an option cannot be used; there is no run; the checkpoint or split that was asked for is not there; the page
            cannot be written.
    """
    options.check()
    report = read_run(options.folder)
    print_report(report)
    if options.html:
        predictions, why_none = try_to_predict(report, options)
        write_page(options.html, build_run_page(report, predictions, why_none))


def try_to_predict(report: RunReport, options: InspectOptions) -> tuple[Predictions | None, str]:
    """Predictions, or why there are none.

    Raises:
        UserError: what was asked for by name is not there.
    """
    manifest = report.manifest
    if manifest is None:
        return None, report.data_fault
    if manifest.private:
        return None, "The corpus is private: numbers alone, no instances and no predictions."
    splits = [name for name, counts in manifest.splits.items() if counts.instances]
    split = options.split or ("validation" if "validation" in splits else "train")
    if split not in splits:
        raise UserError(f"--split is {split!r}, but {report.config.data.path} has {' and '.join(splits)}.")
    if options.num == 0:
        return None, "None were asked for (--num 0)."
    try:
        checkpoint = choose_checkpoint(report.folder / "checkpoints", options.checkpoint, find).folder
    except UserError as error:
        if options.checkpoint != "last":
            raise
        return None, str(error)
    try:
        generator = np.random.default_rng(options.seed)
        return predict(checkpoint, report.config.model, report.config.data.path, manifest, split, options.num, generator), ""
    except UserError as error:
        return None, str(error)
    except OSError as error:  # a run at work may have deleted it meanwhile
        return None, f"{error.filename or checkpoint}: cannot be read ({error.strerror or error}). Inspect again."


def print_report(report: RunReport) -> None:
    """A dozen of the logged steps, what happened, and the last validation."""
    console = Console(highlight=False)
    wrap = {"soft_wrap": not console.is_terminal}
    console.print(Text(f"Run in {printable(report.folder)}", "bold"), Text(printable(about(report))), sep="\n", **wrap)
    for fault in report.faults:
        console.print(Text(f"warning: {printable(fault)}", "yellow"), **wrap)
    if len(report.train.steps):
        console.print(figure_table(report.train))
    else:
        console.print("No step has been logged yet.")
    if len(report.validation.steps):
        names = {key: COLUMNS[key] for key in ("loss", "mlm_loss", "mlm_accuracy", "sop_accuracy")}
        names["unigram_entropy"] = ("unigram entropy", ".4f")
        figures = ", ".join(f"{name} {cell(report.validation, key, -1, form)}" for key, (name, form) in names.items())
        console.print(Text(f"last validation, step {report.validation.steps[-1]:,}: {figures}"), **wrap)
    counts = {kind: sum(mark.kind == kind for mark in report.marks) for kind in MARKS}
    names = {"rollback": "rollback(s)", "restart": "restart(s)", "skipped": "skipped step(s)", "warning": "warning(s)"}
    console.print(Text(", ".join(f"{number:,} {names[kind]}" for kind, number in counts.items())), **wrap)


def figure_table(series: Series) -> Table:
    table = Table()
    for name in ("step", *(name for name, _ in COLUMNS.values())):
        table.add_column(name, justify="right")
    for place in np.unique(np.linspace(0, len(series.steps) - 1, NUM_ROWS).round().astype(int)):
        table.add_row(f"{series.steps[place]:,}", *(cell(series, key, place, form) for key, (_, form) in COLUMNS.items()))
    return table


def cell(series: Series, key: str, place: int, form: str) -> str:
    value = series.figures[key][place]
    return "-" if np.isnan(value) else "not finite" if np.isinf(value) else format(value, form)
