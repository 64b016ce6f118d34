"""The rows of the ablations: which run config and which data each one trains on, after the tables of the ALBERT paper.

    python -m benchmarks.ablation_rows

writes configs/ablations/NAME.yaml anew from reference.yaml and the changes below; a test holds the two together. A row that differs
in its data alone has the reference's config.
"""

import re
from pathlib import Path
from typing import NamedTuple

CONFIGS = Path(__file__).parent.parent / "configs" / "ablations"
REFERENCE = "reference"


def width(hidden_size: int) -> dict[str, object]:
    """D with heads of 64 channels and F = 4 D, as all ALBERT sizes have (Lan et al. 2019, table 1)."""
    return {"hidden_size": hidden_size, "num_attention_heads": hidden_size // 64, "intermediate_size": 4 * hidden_size}


CHANGES: dict[str, dict[str, object]] = {
    **{f"embedding_{size}": {"embedding_size": size} for size in (32, 128, 256)},
    **{f"embedding_{size}_share_none": {"embedding_size": size, "share": "none"} for size in (32, 128, 256)},
    **{f"share_{share}": {"share": share} for share in ("attention", "ffn", "none")},
    **{f"embedding_256_share_{share}": {"embedding_size": 256, "share": share} for share in ("attention", "ffn")},
    **{f"layers_{number}": {"num_hidden_layers": number} for number in (1, 2, 3, 12)},
    **{f"layers_3_hidden_{size}": {"num_hidden_layers": 3} | width(size) for size in (128, 512, 768)},
}
"""Config -> fields of `model` that differ from the reference's."""

DATA: dict[str, list[str]] = {
    "sop": [],
    "nsp": ["--pair_objective", "nsp"],
    "none": ["--pair_objective", "none"],
    "word": ["--mask_unit", "word"],
    "piece": ["--mask_unit", "piece"],
}
"""Data folder -> options of `albert prepare`; those of masks alone are made with `--remask` of the first."""


class Row(NamedTuple):
    label: str
    config: str = REFERENCE
    data: str = "sop"

    @property
    def run(self) -> str:
        """Name of its runs; rows of several tables may share them."""
        return self.config if self.data == "sop" else f"{self.config}_{self.data}"


class Table(NamedTuple):
    title: str
    rows: list[Row]
    masked_lm_on: tuple[str, ...] = ("sop",)
    """Data folders on whose held-out instances the masked-LM figures of all its rows are taken."""
    order_on: tuple[str, ...] = ("sop",)
    """The same for the accuracy of the sentence-order head."""


TABLES: dict[str, Table] = {
    "embedding": Table(
        "Embedding size (paper: table 3)",
        [
            *(
                Row(f"E {size}, not shared", "share_none" if size == 64 else f"embedding_{size}_share_none")
                for size in (32, 64, 128, 256)
            ),
            *(Row(f"E {size}, all shared", REFERENCE if size == 64 else f"embedding_{size}") for size in (32, 64, 128, 256)),
        ],
    ),
    "sharing": Table(
        "Sharing of parameters over layers (paper: table 4)",
        [
            Row("E 256, all shared", "embedding_256"),
            *(
                Row(f"E 256, {name}", f"embedding_256_share_{share}")
                for name, share in (("attention shared", "attention"), ("FFN shared", "ffn"), ("not shared", "none"))
            ),
            Row("E 64, all shared"),
            *(
                Row(f"E 64, {name}", f"share_{share}")
                for name, share in (("attention shared", "attention"), ("FFN shared", "ffn"), ("not shared", "none"))
            ),
        ],
    ),
    "order": Table(
        "Sentence order (paper: table 5)",
        [Row("none", data="none"), Row("next sentence (NSP)", data="nsp"), Row("sentence order (SOP)")],
        order_on=("sop", "nsp"),
    ),
    "masks": Table(
        "Masks (paper: section 4.1)",
        [Row("pieces", data="piece"), Row("whole words", data="word"), Row("n-grams, up to 3 words")],
        masked_lm_on=("sop", "word", "piece"),
    ),
    "depth": Table(
        "Number of layers (paper: table 11)",
        [Row(f"L {number}", REFERENCE if number == 6 else f"layers_{number}") for number in (1, 2, 3, 6, 12)],
    ),
    "width": Table(
        "Hidden size, at 3 layers (paper: table 12)",
        [Row(f"D {size}", "layers_3" if size == 256 else f"layers_3_hidden_{size}") for size in (128, 256, 512, 768)],
    ),
    "baseline": Table(
        "ALBERT and a BERT-like model (paper: table 2; with --hours, table 6)",
        [
            Row("BERT-like: E = D = 256, 6 layers, not shared", "embedding_256_share_none"),
            Row("ALBERT: E 64, D 256, 6 layers, all shared"),
            Row("wide ALBERT: E 64, D 768, 3 layers, all shared", "layers_3_hidden_768"),
        ],
    ),
}


def config_text(name: str) -> str:
    """configs/ablations/NAME.yaml as the reference and the changes make it."""
    text = (CONFIGS / f"{REFERENCE}.yaml").read_text(encoding="utf-8")
    settings = text.partition("\n\n")[2]
    for field, value in CHANGES[name].items():
        settings, found = re.subn(rf"(?m)^(  {field}: ).*$", rf"\g<1>{value}", settings)
        if found != 1:
            raise ValueError(f"{REFERENCE}.yaml: expected one line for {field}, found {found}")
    fields = ", ".join(CHANGES[name])
    return f"# Differs from {REFERENCE}.yaml in {fields}. Written by `python -m benchmarks.ablation_rows`.\n\n{settings}"


def main() -> None:
    for name in CHANGES:
        (CONFIGS / f"{name}.yaml").write_text(config_text(name), encoding="utf-8")
    print(f"{CONFIGS}: {len(CHANGES)} configs written")


if __name__ == "__main__":
    main()
