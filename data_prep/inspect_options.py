"""Options of `albert inspect`. Imports nothing heavy: the command line is built from this dataclass."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tokenizer.errors import UserError, check_all


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """A data folder in, a look at it out."""

    folder: Path = field(metadata={"positional": True})
    """Data folder that `albert prepare` wrote."""
    html: Path | None = None
    """Page to write: the same instances, histograms, options and faults, in one file that needs no network."""
    split: str = "train"
    """train or validation."""
    num: int = 5
    """Instances to show, drawn at random."""
    seed: int = 0
    """Seed of the draw."""

    def check(self) -> None:
        """Raise one UserError that lists every option that cannot be used, or says that the folder is not on this machine."""
        if (url := re.match(r"(\w[\w+.-]+):/(.*)", str(self.folder))) and not self.folder.exists():  # a Path has one slash of two
            raise UserError(f"{url[1]}://{url[2]}: inspect reads local folders: fetch it first.")
        html = self.html
        usable = html is None or (html.parent.is_dir() and (html.is_file() or not html.exists()))
        wanted = {
            "html": (usable, "a file, new or to be replaced, in a folder that exists"),
            "num": (0 <= self.num <= 1000, "from 0 to 1000 instances"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        check_all(self, wanted)
