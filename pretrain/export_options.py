"""Options of `albert export`. No heavy import: the command line is built from this dataclass."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizer.errors import check_all

LICENCE_ID = r"[a-z0-9][a-z0-9.+-]*"
"""How the Hugging Face Hub writes licences."""
LANGUAGE_CODE = r"[a-z]{2,3}"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `albert export`."""

    run: Path
    """Run folder that `albert launch` wrote; it may still be training."""
    output: Path
    """Folder to write; loads in every Albert class of transformers."""
    checkpoint: str = "last"
    """`last`, `best` (lowest validation loss), or a step."""
    average: int = 1
    """Export the mean of the weights of so many checkpoints: this one and those before it that the run still has
    (at most checkpoint.keep_last)."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Numbers of model.safetensors; bf16 takes half the space and rounds each weight by up to 0.4 %, also for --onnx."""
    onnx: bool = False
    """Write onnx/model.onnx, and onnx/model_quantized.onnx in int8, for devices without PyTorch; needs the extra `onnx`."""
    license: str | None = None
    """Licence of the weights for the model card, as the Hugging Face Hub writes it, such as apache-2.0 or cc-by-4.0; `other` with
    --license_name and --license_link."""
    license_name: str | None = None
    """With --license other: its name."""
    license_link: str | None = None
    """With --license other: where it can be read."""
    data_license: str | None = None
    """Licence of the corpus for the model card, in any words."""
    language: list[str] = field(default_factory=list)
    """Languages of the corpus for the model card, as ISO 639 codes, such as en bn."""

    def check(self) -> None:
        """Raise one UserError that lists every option that cannot be used."""
        other = self.license == "other"
        wanted = {
            "average": (self.average >= 1, "1 or more"),
            "license": (
                self.license is None or bool(re.fullmatch(LICENCE_ID, self.license)),
                "an identifier of the Hugging Face Hub such as apache-2.0, or other",
            ),
            "language": (all(re.fullmatch(LANGUAGE_CODE, code) for code in self.language), "ISO 639 codes such as en bn"),
        }
        for name in ("license_name", "license_link"):
            wanted[name] = (bool(getattr(self, name)) == other, "given with --license other, and with it alone")
        check_all(self, wanted)
