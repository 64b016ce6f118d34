"""The figures of `albert evaluate` as tables of 80 columns: a column for the floor, for random weights and for each model."""

import math
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenizer.printable import printable

MODELS_IN_A_TABLE = 3
"""More go into further tables, each with the floor and random weights again."""
OBJECTIVES = {"sop": "order", "nsp": "next-sentence"}


def print_comparison(result: dict[str, Any]) -> None:
    """result: as `albert evaluate --output` writes it."""
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(Text(printable(line)), soft_wrap=not console.is_terminal)

    say(f"{result['instances']:,} of {result['instances_of_the_split']:,} {result['split']} instances of {result['data']}")
    floor, drawn, *models = result["columns"]
    say(f"unigram: no context; how often pieces and labels came in {result['train_rows_counted']:,} train instances")
    say(f"random: weights as training draws them, seed {drawn['seed']}, of the shape of model 1")
    for model in models:
        say(f"{model['name']}: {about(model)}")
    say("accuracies in %, ± the farther end of the 95 % interval, rounded up")
    for start in range(0, len(models), MODELS_IN_A_TABLE):
        columns = [floor, drawn, *models[start : start + MODELS_IN_A_TABLE]]
        for table in tables(columns, result):
            console.print()
            console.print(table)


def about(model: dict[str, Any]) -> str:
    step = "" if model["step"] is None else f", step {model['step']:,}"
    unsure = {True: "", False: ", trained on other data", None: ", not known what it was trained on"}[model["trained_on_this_data"]]
    head = "" if model["sentence_order_head"] else ", no sentence-order head"
    return f"{model['path']}{step}, {model['parameters']:,} parameters{unsure}{head}"


def tables(columns: list[dict[str, Any]], result: dict[str, Any]) -> list[Table]:
    """All of them, for a floor, random weights and up to three models."""
    objective = OBJECTIVES.get(str(result["pair_objective"]), "order")
    overall = new_table("", columns)
    whole = [column["masked_lm"] for column in columns]
    for label, cell in (("masked-LM loss", loss), ("perplexity", perplexity), ("masked-LM accuracy", accuracy)):
        overall.add_row(label, f"{whole[0]['pieces']:,}", *map(cell, whole))
    orders = [column["sentence_order"] for column in columns]
    if orders[0]:
        for label, cell in ((f"{objective} loss", loss), (f"{objective} accuracy", accuracy)):
            overall.add_row(label, f"{orders[0]['instances']:,}", *map(cell, orders))
    unit = "pieces" if result["mask_unit"] == "piece" else "words"
    by_run = banded(f"by {unit} in the run to predict", "masked_lm_by_run_length", columns, (accuracy, loss, perplexity))
    by_rank = banded("by rank of the piece in training", "masked_lm_by_piece_rank", columns, (accuracy, loss, perplexity))
    found = [overall, by_run, by_rank]
    if orders[0]:
        title = f"{objective}, by pieces in the instance"
        found.append(banded(title, "sentence_order_by_length", columns, (accuracy,)))
    else:
        overall.caption = "The data has no sentence-order labels."
    return found


def banded(title: str, key: str, columns: list[dict[str, Any]], cells: tuple[Callable[[Any], str], ...]) -> Table:
    """A block of rows for each kind of cell, a row for each band."""
    table = new_table(title, columns)
    rows = [band["band"] for band in columns[0][key]]
    for cell in cells:
        table.add_section()
        table.add_row(Text(cell.__name__, "bold"))
        for number, name in enumerate(rows):
            bands = [column[key][number] if column[key] else None for column in columns]
            count = bands[0].get("pieces", bands[0].get("instances"))
            table.add_row(f" {name}", f"{count:,}", *map(cell, bands))
    return table


def new_table(title: str, columns: list[dict[str, Any]]) -> Table:
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    table.add_column("", min_width=18, no_wrap=True)
    table.add_column("number", justify="right", min_width=9, no_wrap=True)
    for column in columns:
        table.add_column(column["name"], justify="right", min_width=9, no_wrap=True)
    return table


def loss(figures: dict[str, Any] | None) -> str:
    return f"{figures['loss']:.3f}" if figures else "-"


def perplexity(figures: dict[str, Any] | None) -> str:
    if not figures:
        return "-"
    value = figures["perplexity"]
    return f"{value:,.1f}" if value < 1e5 else f"{value:.2e}"


def accuracy(figures: dict[str, Any] | None) -> str:
    """In per cent, with how far off the farther end of the interval is; from 10 on without a decimal, to keep to 9 columns."""
    if not figures:
        return "-"
    share, interval = figures["accuracy"], figures["accuracy_interval"]
    if interval is None:
        return f"{100 * share:.1f}"
    tenths = math.ceil(1000 * max(share - interval[0], interval[1] - share))
    return f"{100 * share:.1f}±" + (f"{tenths / 10:.1f}" if tenths < 100 else f"{math.ceil(tenths / 10)}")
