"""`albert inspect`: a data folder in, some of its instances and its numbers out, in the terminal and as a page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.hazards import warnings
from data_prep.inspect_options import InspectOptions
from data_prep.inspect_page import build_page
from data_prep.instances import Instance, Token, load_pieces, read_columns, sample_instances
from data_prep.schema import Manifest, read_manifest
from data_prep.statistics import MAX_ROWS, Statistics, figures, gather_statistics, most_frequent
from data_prep.summary import label_name, print_summary
from tokenizer.errors import UserError
from tokenizer.page import write_page
from tokenizer.printable import printable

STYLES = {"": "dim", "A": "cyan", "B": "magenta", "mask": "bold red", "random": "bold yellow", "kept": "bold green"}
"""Of segments and of what stands for a piece to predict."""


def inspect(options: InspectOptions) -> None:
    """Show random instances, the manifest's numbers, its warnings, and what the first rows hold; with `html`, as a page, too.

    Of a private corpus neither instances nor pieces are shown.

    Raises:
        UserError: this is no data folder, or it is damaged; there is no such split; the page cannot be written.
    """
    options.check()
    manifest = read_manifest(options.folder)
    split = options.split or "train"
    check_counts(manifest, split, options.folder)
    pieces = load_pieces(options.folder, manifest)
    generator = np.random.default_rng(options.seed)
    num = 0 if manifest.private else options.num
    instances = sample_instances(options.folder, manifest, split, pieces, num, generator)
    batches = read_columns(options.folder, manifest, split, MAX_ROWS)
    statistics = gather_statistics(batches, pieces, manifest.max_seq_length, str(manifest.options.get("mask_unit")))
    sizes = {name: (options.folder / name).stat().st_size for counts in manifest.splits.values() for name in counts.shards}
    found = warnings(manifest)
    if manifest.private:
        print("The corpus is private: numbers alone, no instances and no pieces.")
    print_instances(instances, manifest)
    print_statistics(statistics, [] if manifest.private else pieces, split)
    print_summary(manifest, options.folder, found, shard_sizes=sizes)
    if options.html:
        write_page(options.html, build_page(options.folder, manifest, split, instances, statistics, pieces, found, sizes))


def check_counts(manifest: Manifest, split: str, folder: Path) -> None:
    """Raise a UserError if there is no such split, or the counts of its shards contradict each other."""
    if split not in manifest.splits:
        raise UserError(f"--split is {split!r}, but {folder} has {' and '.join(manifest.splits)}.")
    counts = manifest.splits[split]
    if len(counts.shards) != len(counts.shard_rows) or sum(counts.shard_rows) != counts.instances:
        raise UserError(
            f"{folder}: the manifest is damaged (rows of the {split} shards: {counts.shard_rows}, instances: "
            f"{counts.instances}). Prepare the data again."
        )


def print_instances(instances: Sequence[Instance], manifest: Manifest) -> None:
    """A heading and a paragraph for each. Marks are in the text, so that nothing is lost without colours."""
    console = Console(highlight=False)
    legend = [("segment A", "A"), ("segment B", "B")]
    legend += [("{piece→[MASK]} masked", "mask"), ("{piece→other} random piece", "random"), ("{piece→piece} kept", "kept")]
    if instances:
        console.print(Text("  ").join(Text(words, STYLES[key]) for words, key in legend), soft_wrap=not console.is_terminal)
    for instance in instances:
        num_targets = sum(bool(token.fate) for token in instance.tokens)
        label = label_name(instance.order_label, manifest.options.get("pair_objective"))
        heading = f"{instance.split} row {instance.row:,}: {label}, {len(instance.tokens):,} pieces, {num_targets:,} to predict"
        console.print(Text(f"\n{heading}", "bold"))
        console.print(Text.assemble(*map(marked, instance.tokens)), soft_wrap=not console.is_terminal)
    console.print()


def marked(token: Token) -> Text:
    """One piece in its colour, with a space before it where the text has one."""
    words = f"{{{token.text}→{token.shown}}}" if token.fate else token.text
    space = " " if token.after_space else ""
    return Text.assemble(space, (words, STYLES[token.fate or token.segment]))


def print_statistics(statistics: Statistics, pieces: Sequence[str], split: str) -> None:
    """The figures of the first rows, and the most frequent pieces unless `pieces` is empty."""
    console = Console(highlight=False)
    table = Table(title=Text(f"The first {statistics.num_rows:,} rows of {split}"), show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for figure in figures(statistics)[1:]:
        table.add_row(Text(figure.label), str(figure))
    console.print(table)
    if pieces:
        frequent = " ".join(printable(pieces[piece]) for piece, _ in most_frequent(statistics, 20))
        console.print(Text(f"Most frequent pieces: {frequent}\n"), soft_wrap=not console.is_terminal)
