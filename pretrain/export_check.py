"""Whether an exported folder says what its checkpoint says: loaded by `transformers`, compared with our model on text of the data.

Shape suffixes as in pretrain/model.py.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_prep.schema import TOKENIZER_FOLDER, Manifest
from pretrain.data import Instance, collate, open_split
from pretrain.model import Albert, MicroBatch
from tokenizer.chain import build_chain, load_chain
from tokenizer.errors import UserError
from tokenizer.special_tokens import CLS_ID, FORBIDDEN_TEXT_IDS, SEP_ID

TOLERANCE = 1e-5
"""Of logits in fp32: of the largest one, where that is above 1, because the rounding of a sum grows with its terms."""
CHECKED_PIECES = 4096
"""Of the data, about; some 600 of them are masked."""
PROBES = ("ÅNGSTRÖM „naïve“ ﬁne ½ ＴＥＳＴ", "हिन्दी বাংলা 中文 йод", "``A''  B\t7,5 £3 {x}")
"""What normalization changes: the text of the data has been through it."""


class Library(NamedTuple):
    """What is taken from `transformers`."""

    model: Any
    tokenizer: Any
    version: str


class Sample(NamedTuple):
    """Instances of the data, and what our model says to them."""

    split: str
    instances: list[Instance]
    batches: list[MicroBatch]
    """Of one instance each."""
    mlm_logits_MV: Tensor
    sop_logits_B2: Tensor


def load_transformers() -> Library:
    """Raises a UserError where it is not installed: what cannot be checked is not exported."""
    try:
        import transformers
        from transformers import AlbertForPreTraining, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(
            f"an export is loaded in transformers before it gets its name, and that cannot be imported ({error}). "
            "Install it: pip install 'albert-pretraining[transformers]'."
        ) from error
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return Library(AlbertForPreTraining, AutoTokenizer, transformers.__version__)


@torch.no_grad()
def take_sample(model: Albert, data: Path, manifest: Manifest) -> Sample:
    """About CHECKED_PIECES of held-out text, or of training text where none was kept, with the logits of `model` in fp32."""
    counts = manifest.splits.get("validation")
    name = "validation" if counts and counts.instances else "train"
    split = open_split(data, manifest, name)
    num = min(len(split), max(8, CHECKED_PIECES // manifest.max_seq_length))
    instances = split.read(np.unique(np.linspace(0, len(split) - 1, num).astype(np.int64)))
    batches = [collate([instance]) for instance in instances]
    mlm_logits, sop_logits = zip(*map(model.logits, batches), strict=True)
    return Sample(name, instances, batches, torch.cat(mlm_logits), torch.cat(sop_logits))


def check_export(folder: Path, sample: Sample, data: Path, library: Library) -> float:
    """Load `folder` as anyone would; the `difference` of the logits.

    Raises:
        UserError: keys are missing or unexpected, or logits or ids are others.
    """
    faults, largest = compare_logits(folder, sample, library)
    faults += compare_ids(folder, sample, data / TOKENIZER_FOLDER, library)
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(
            f"the export does not say what the checkpoint says, so it is not kept (transformers {library.version}):\n{listed}\n"
            "Try the transformers of requirements.lock; if it is so there, too, this is a fault of albert-pretraining."
        )
    return largest


@torch.no_grad()
def compare_logits(folder: Path, sample: Sample, library: Library) -> tuple[list[str], float]:
    """Faults, and the largest `difference`."""
    model, info = library.model.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    if faults := [f"{what.replace('_', ' ')}: {', '.join(map(str, sorted(keys)[:3]))}" for what, keys in info.items() if keys]:
        return faults, float("inf")
    model.eval()
    mlm_logits, sop_logits = [], []
    for batch in sample.batches:
        output = model(batch.input_ids_N[None], token_type_ids=batch.segment_ids_N[None])
        mlm_logits.append(output.prediction_logits[0, batch.read_index_R[batch.mlm_index_M]])
        sop_logits.append(output.sop_logits)
    differences = difference(torch.cat(mlm_logits), sample.mlm_logits_MV), difference(torch.cat(sop_logits), sample.sop_logits_B2)
    largest = float(np.max(differences))  # NaN if one is
    return [] if largest <= TOLERANCE else [f"logits differ by {largest:.1e} on {sample.split} text"], largest


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest one, as a share of the largest expected number where that is above 1."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1.0)).item()


def compare_ids(folder: Path, sample: Sample, tokenizer: Path, library: Library) -> list[str]:
    """Faults of AutoTokenizer beside the chain of the data, special pieces and segments included."""
    chain, theirs = build_chain(load_chain(tokenizer)), library.tokenizer.from_pretrained(folder)
    texts = [tuple(filter(None, map(chain.decode, segments(instance)))) for instance in sample.instances]
    texts += [tuple(part.upper() for part in parts) for parts in texts] + [(probe,) for probe in PROBES]
    texts = [parts for parts in texts if parts and not any(spells_special(chain, part) for part in parts)]
    different = 0
    for parts in texts:
        ours, found = chain.encode(*parts), theirs(*parts, return_token_type_ids=True)
        different += (ours.ids, ours.type_ids) != (found["input_ids"], found["token_type_ids"])
    return [f"AutoTokenizer gives other ids than the tokenizer of the data for {different} of {len(texts)} texts"] * (different > 0)


def segments(instance: Instance) -> list[list[int]]:
    """Ids of A and, where there is one, of B, as they were before they were masked."""
    ids = instance.input_ids.astype(np.int64)
    ids[instance.mlm_positions] = instance.mlm_labels
    border = instance.segment_b_start
    parts = [ids[:border], ids[border:]] if border else [ids]
    return [[piece for piece in part.tolist() if piece not in (CLS_ID, SEP_ID)] for part in parts]


def spells_special(chain: Any, text: str) -> bool:
    """Whether the ids hold a special one: there the data was encoded otherwise (tokenizer/encoder.py)."""
    return not set(FORBIDDEN_TEXT_IDS).isdisjoint(chain.encode(text, add_special_tokens=False).ids)
