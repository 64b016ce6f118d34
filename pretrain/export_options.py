"""Options of `albert export`. No heavy import: the command line is built from this dataclass."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `albert export`."""

    run: Path
    """Run folder that `albert launch` wrote."""
    output: Path
    """Folder to write; loads in every Albert class of transformers."""
    checkpoint: str = "last"
    """`last`, `best` (lowest validation loss), or a step."""
