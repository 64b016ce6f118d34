"""Evaluations and metrics of the runs in, results.json and results.md out: a table per question, mean and spread over the seeds."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation_plan import Plan
from benchmarks.ablation_rows import Row, Table
from data_prep.schema import manifest_sha256
from pretrain.metrics_file import read_records
from tokenizer.files import write_json, write_text

FORMAT_VERSION = 1

Columns = dict[tuple[str, int], dict[str, Any]]
"""(data folder, seed) -> run folder, or `unigram` -> its figures."""


def write_report(plan: Plan, device_name: str) -> None:
    """Print the tables, and write them beside the runs."""
    columns = read_columns(plan)
    settings = {
        "budget": plan.budget,
        "seeds": plan.num_seeds,
        "runs_at_once": plan.crowds(),
        "device": device_name,
        "torch": torch.__version__,
        "overrides": dict(plan.overrides),
        "data_sha256": {name: manifest_sha256(plan.data(name)) for name in sorted(plan.data_names)},
        "unigram_loss": {name: figures["unigram"]["masked_lm"]["loss"] for (name, _), figures in columns.items()},
    }
    tables = {name: table_figures(plan, table, columns) for name, table in plan.tables.items()}
    write_json(plan.folder / "results.json", {"format_version": FORMAT_VERSION, "settings": settings, "tables": tables})
    text = "\n\n".join([heading(settings), *(markdown(plan.tables[name], tables[name], settings) for name in tables)])
    write_text(plan.folder / "results.md", text + "\n")
    print(f"\n{text}\n\nwrote {plan.folder / 'results.md'} and results.json", flush=True)


def read_columns(plan: Plan) -> Columns:
    """Of the evaluations that are there."""
    columns = {}
    for name, seed, runs in plan.evaluations():
        if runs and (path := plan.evaluation(name, seed)).exists():
            evaluation = json.loads(path.read_text(encoding="utf-8"))
            columns[name, seed] = {column.get("path", column["name"]): column for column in evaluation["columns"]}
    return columns


def table_figures(plan: Plan, table: Table, columns: Columns) -> list[dict[str, Any]]:
    """A row's figures over the seeds that finished, as mean and standard deviation."""
    rows = []
    for row in table.rows:
        runs = [figures for seed in range(plan.num_seeds) if (figures := run_figures(plan, table, row, seed, columns))]
        names = [name for name in runs[0] if name not in ("seed", "parameters")] if runs else []
        summary = {name: spread([run[name] for run in runs if run[name] is not None]) for name in names}
        parameters = runs[0]["parameters"] if runs else None
        rows.append(
            {"label": row.label, "config": row.config, "data": row.data, "parameters": parameters} | summary | {"runs": runs}
        )
    return rows


def run_figures(plan: Plan, table: Table, row: Row, seed: int, columns: Columns) -> dict[str, Any] | None:
    """None of a run that did not finish."""
    folder = plan.run_folder(row, seed)
    judged = {name: columns.get((name, seed), {}).get(str(folder)) for name in {*table.masked_lm_on, *table.order_on}}
    if None in judged.values():
        return None
    first = next(iter(judged.values()))
    figures = {"seed": seed, "parameters": first["parameters"], "steps": first["step"], "tokens_per_second": median_speed(folder)}
    for name in table.masked_lm_on:
        masked = judged[name]["masked_lm"]
        figures |= {f"mlm_loss_{name}": masked["loss"], f"mlm_accuracy_{name}": masked["accuracy"]}
    for name in table.order_on:
        order = judged[name]["sentence_order"]
        figures[f"order_accuracy_{name}"] = order and order["accuracy"]
    return figures


def median_speed(run_folder: Path) -> float | None:
    """Pieces a second, padding not counted, of the logged steps."""
    records = read_records(run_folder / "metrics.jsonl")
    speeds = [record["tokens_per_second"] for record in records if record is not None and record["event"] == "train"]
    return statistics.median(speeds) if speeds else None


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, sample standard deviation (null of one value), and number of values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values) if values else None, "std": deviation, "num_runs": len(values)}


def heading(settings: dict[str, Any]) -> str:
    kind, _, size = settings["budget"].partition("_")
    crowds = settings["runs_at_once"]
    crowd = f"{' or '.join(map(str, crowds)) or 'no'} run(s) at once"
    if crowds != [1]:
        crowd += ", so speeds are left out"
    losses = ", ".join(f"{loss:.3f} on `{name}`" for name, loss in settings["unigram_loss"].items())
    return (
        f"{size} {kind} a run, {settings['seeds']} seed(s), {crowd}; {settings['device']}, torch {settings['torch']}. Mean ± "
        f"standard deviation over the seeds; losses in nats. Loss of a guess by the frequencies of pieces alone: {losses or '-'}."
    )


def markdown(table: Table, rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """Steps are shown where hours were given, speeds where one run at a time had the device."""
    several, orders = len(table.masked_lm_on) > 1, len(table.order_on) > 1
    titles = {} if settings["budget"].startswith("steps") else {"steps": "steps"}
    for name in table.masked_lm_on:
        on = f" on `{name}`" * several
        titles |= {f"mlm_loss_{name}": f"MLM loss{on}", f"mlm_accuracy_{name}": f"MLM accuracy (%){on}"}
    titles |= {f"order_accuracy_{name}": "order accuracy (%)" + f" on `{name}`" * orders for name in table.order_on}
    if settings["runs_at_once"] == [1]:
        titles["tokens_per_second"] = "tokens/s"
    lines = [f"### {table.title}", "", f"| | parameters | {' | '.join(titles.values())} | runs |", "|---" * (len(titles) + 3) + "|"]
    for row in rows:
        parameters = f"{row['parameters']:,}" if row["parameters"] else "-"
        cells = [shown(name, row.get(name)) for name in titles]
        lines.append(f"| {row['label']} | {parameters} | {' | '.join(cells)} | {len(row['runs'])} |")
    return "\n".join(lines)


def shown(name: str, figure: dict[str, Any] | None) -> str:
    if figure is None or figure["mean"] is None:
        return "-"
    digits, scale = (3, 1) if "loss" in name else (1, 100) if "accuracy" in name else (0, 1)
    deviation = "" if figure["std"] is None or name == "steps" else f" ± {scale * figure['std']:,.{digits}f}"
    return f"{scale * figure['mean']:,.{digits}f}{deviation}"
