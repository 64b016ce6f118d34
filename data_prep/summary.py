"""A manifest in; a table for the eye, or the same numbers as JSON, out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.schema import NO_LABEL, Manifest, SplitCounts
from tokenizer.files import write_json
from tokenizer.printable import printable


class Figure(NamedTuple):
    name: str
    """Key in the JSON; in the table with spaces for the underscores."""
    value: float | None
    """None: not known, because the manifest is older than the count, or there is nothing to divide by."""
    format: str

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    def __str__(self) -> str:
        return "-" if self.value is None else format(self.value, self.format)


def split_figures(manifest: Manifest, counts: SplitCounts, shard_sizes: Mapping[str, int]) -> list[Figure]:
    """What one split holds. shard_sizes: bytes on disk by shard; may be empty."""
    labelled = counts.in_order_instances + counts.swapped_instances
    counted = manifest.format_version >= 2  # counts that version 1 lacks
    disk_bytes = sum(shard_sizes[name] for name in counts.shards) if shard_sizes else None
    return [
        Figure("documents", counts.documents, ",d"),
        Figure("sentences", counts.sentences, ",d"),
        Figure("sentences_cut", counts.cut_sentences, ",d"),
        Figure("text_pieces_of_one_copy", counts.text_pieces, ",d"),
        Figure("unknown_share_of_text_pieces", ratio(counts.unknown_pieces if counted else None, counts.text_pieces), ".2%"),
        Figure("unigram_entropy_in_nats", counts.unigram_entropy, ".3f"),
        Figure("instances_of_all_copies", counts.instances, ",d"),
        Figure("pieces_of_all_copies", counts.pieces, ",d"),
        Figure("mean_fill_of_an_instance", ratio(counts.pieces, counts.instances * manifest.max_seq_length), ".1%"),
        Figure("nearly_empty_instances", ratio(counts.nearly_empty_instances if counted else None, counts.instances), ".1%"),
        Figure("pieces_to_predict", ratio(counts.masked_pieces, counts.pieces), ".1%"),
        Figure("instances_with_an_order_label", ratio(labelled, counts.instances), ".1%"),
        Figure("of_these_swapped", ratio(counts.swapped_instances, labelled), ".1%"),
        Figure("shards", len(counts.shards), ",d"),
        Figure("bytes_on_disk", disk_bytes, ",d"),
        Figure("bytes_per_piece", ratio(disk_bytes, counts.pieces), ".2f"),
    ]


def folder_figures(manifest: Manifest, seconds: float | None = None) -> list[Figure]:
    """What belongs to no split. seconds: how long the preparation took, if it just did."""
    counted = manifest.format_version >= 2
    text_pieces = sum(counts.text_pieces for counts in manifest.splits.values())
    return [
        Figure("longest_instance_in_pieces", manifest.max_seq_length, ",d"),
        Figure("vocabulary", manifest.vocab_size, ",d"),
        Figure("duplicate_documents", manifest.duplicate_documents if counted else None, ",d"),
        *(Figure(f"documents_dropped_by_{step}", number, ",d") for step, number in manifest.dropped.items()),
        *(Figure(f"documents_changed_by_{step}", number, ",d") for step, number in manifest.changed.items()),
        Figure("letters_lost_in_normalisation", ratio(manifest.num_vanished if counted else None, manifest.num_letters), ".3%"),
        Figure("words_like_special_tokens", manifest.num_guarded_words, ",d"),
        Figure("faults_left_out", manifest.num_faults if counted else None, ",d"),
        Figure("seconds", seconds, ",.1f"),
        Figure("text_pieces_a_second", ratio(text_pieces, seconds), ",.0f"),
    ]


def label_name(label: int, objective: object) -> str:
    """What an order label says under a pair objective."""
    if label == NO_LABEL:
        return "no order label"
    return {"nsp": ("B follows A", "B from another document")}.get(str(objective), ("in order", "swapped"))[label]


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if whole and part is not None else None


def print_summary(
    manifest: Manifest,
    folder: object,
    warnings: Sequence[str] = (),
    seconds: float | None = None,
    shard_sizes: Mapping[str, int] | None = None,
) -> None:
    """Print what the data folder holds, a column a split, then the warnings.

    folder: path or URL, for the title. shard_sizes: bytes on disk by shard name, as `Folder.size` gives them.
    """
    console = Console(highlight=False)
    table = Table(title=Text(f"Data in {printable(folder)}"), header_style="bold")
    table.add_column("")
    for name in manifest.splits:
        table.add_column(Text(printable(name)), justify="right")
    columns = [split_figures(manifest, counts, shard_sizes or {}) for counts in manifest.splits.values()]
    for row in zip(*columns, strict=True):
        if any(figure.value is not None for figure in row):
            table.add_row(row[0].label, *map(str, row))
    table.add_section()
    for figure in folder_figures(manifest, seconds):
        if figure.value is not None:
            table.add_row(Text(printable(figure.label)), str(figure))
    if len(manifest.sources) > 1:
        table.add_section()
        for label, source in manifest.sources.items():
            row = f"{source.documents:,} documents" + (f" x {source.repeats:.3g}" if source.repeats != 1 else "")
            table.add_row(Text(f"from {printable(label) or 'inputs without a name'}"), row)
    console.print(table)
    for warning in warnings:
        console.print(Text(f"warning: {printable(warning)}", style="yellow"), soft_wrap=not console.is_terminal)


def write_summary(
    path: Path,
    manifest: Manifest,
    warnings: Sequence[str] = (),
    seconds: float | None = None,
    shard_sizes: Mapping[str, int] | None = None,
) -> None:
    """Write the numbers of `print_summary` as JSON, shares from 0 to 1, what is not known as null; whole or not at all."""
    splits = {
        name: {figure.name: figure.value for figure in split_figures(manifest, counts, shard_sizes or {})}
        for name, counts in manifest.splits.items()
    }
    content = {
        "splits": splits,
        **{figure.name: figure.value for figure in folder_figures(manifest, seconds)},
        "sources": {printable(label): dataclasses.asdict(source) for label, source in manifest.sources.items()},
        "warnings": list(map(printable, warnings)),
    }
    write_json(path, content)
