"""A manifest in, a table for the eye out."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_prep.schema import Manifest, SplitCounts


def print_summary(manifest: Manifest, folder: Path) -> None:
    """Print what the data folder holds, a column a split."""
    table = Table("", title=f"Data in {folder}")
    columns = [describe(counts, manifest.max_seq_length) for counts in manifest.splits.values()]
    for name in manifest.splits:
        table.add_column(name, justify="right")
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    Console().print(table)


def describe(counts: SplitCounts, max_seq_length: int) -> dict[str, str]:
    """Rows of the table, as text."""
    labelled = counts.in_order_instances + counts.swapped_instances
    return {
        "documents": f"{counts.documents:,}",
        "sentences": f"{counts.sentences:,}",
        "sentences cut": f"{counts.cut_sentences:,}",
        "text pieces, one copy": f"{counts.text_pieces:,}",
        "unigram entropy, nats": f"{counts.unigram_entropy:.3f}",
        "instances, all copies": f"{counts.instances:,}",
        "pieces, all copies": f"{counts.pieces:,}",
        f"fill of {max_seq_length} pieces": f"{counts.pieces / counts.instances / max_seq_length:.1%}",
        "masked pieces": f"{counts.masked_pieces / counts.pieces:.1%}",
        "instances with an order label": f"{labelled / counts.instances:.1%}",
        "of these swapped (label 1)": f"{counts.swapped_instances / labelled:.1%}" if labelled else "-",
    }
