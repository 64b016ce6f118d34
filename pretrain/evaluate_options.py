"""Options of `albert evaluate`. No heavy import: the command line is built from this dataclass."""

from dataclasses import dataclass
from pathlib import Path

from tokenizer.errors import check_all


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Models in, their figures on the same held-out instances out."""

    model: list[str]
    """Models to compare: run folders of `albert launch`, single checkpoints (RUN/checkpoints/step-N), exports, or folders of any
    Hugging Face ALBERT with its tokenizer.json. Nothing is downloaded."""
    data: Path | None = None
    """Data folder of `albert prepare`, made with the tokenizer of all models; left out, that of the first run among them."""
    split: str = "validation"
    """validation or train."""
    max_instances: int = 20_000
    """Instances to evaluate on at most, evenly spaced over the split, as a validation in training takes them."""
    checkpoint: str = "last"
    """Of runs that are given as a whole: `last`, `best` (lowest validation loss), or a step."""
    micro_batch_size: int = 32
    """Instances in one forward pass; bounds memory, and leaves the figures as they are."""
    device: str = "auto"
    """auto, cpu or cuda; `auto` takes a GPU if there is one. Arithmetic is in fp32."""
    output: Path | None = None
    """JSON file to write all figures to, new or from an earlier evaluation."""
    seed: int = 0
    """Seed of the random weights that stand beside the models; `training.seed` is 0, too, unless set."""

    def check(self) -> None:
        """Raise one UserError that lists every option that cannot be used."""
        output = self.output
        wanted = {
            "model": (len(set(self.model)) == len(self.model) > 0, "one or more folders, each once"),
            "split": (self.split in ("validation", "train"), "validation or train"),
            "max_instances": (self.max_instances > 0, "above 0"),
            "micro_batch_size": (self.micro_batch_size > 0, "above 0"),
            "device": (self.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
            "output": (output is None or (output.parent.is_dir() and not output.is_dir()), "a file in a folder that exists"),
            "seed": (0 <= self.seed < 1 << 63, "at least 0"),
        }
        check_all(self, wanted)
