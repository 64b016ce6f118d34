"""Options of `albert inspect`, of data, a run or an exported model. Imports nothing heavy: the command line is built from this."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tokenizer.errors import UserError, check_all


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """A data folder, a run or an exported model in, a look at it out."""

    folder: Path = field(metadata={"positional": True})
    """Data folder that `albert prepare` wrote, run folder that `albert launch` writes, or model that `albert export` wrote."""
    html: Path | None = None
    """Page to write, in one file that needs no network. Of data: the same instances, histograms, options and faults; of a run:
    curves, instances with the model's predictions, config and environment; of an exported model: the likeliest pieces for each
    [MASK] of --text, and maps of attention."""
    text: list[str] = field(default_factory=list)
    """Of an exported model: texts for it to read, e.g. "The state of the [MASK] is strong."."""
    split: str | None = None
    """train or validation. Default: train of data, validation of a run, on the page alone."""
    num: int = 5
    """Instances to show, drawn at random; of a run, on the page alone."""
    seed: int = 0
    """Seed of the draw; of a run, on the page alone."""
    checkpoint: str = "last"
    """Of a run, whose predictions the page has: `last`, `best` (lowest validation loss), or a step."""

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
