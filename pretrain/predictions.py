"""A checkpoint and rows of the data in, what the model makes of them out: pieces for each mask, and the order of the sentences.

On the CPU and in fp32, so that a run at work on a GPU keeps its memory.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data_prep.instances import Instance, load_pieces, sample_instances
from data_prep.schema import NO_LABEL, Manifest, manifest_sha256
from data_prep.words import SPACE
from pretrain.checkpoint import load_weights, read_state, step_of
from pretrain.config import ModelConfig
from pretrain.data import collate, open_split
from pretrain.data_faults import tokenizer_faults
from pretrain.model import Albert
from pretrain.products import bound_cache
from tokenizer.errors import UserError
from tokenizer.printable import printable

NUM_GUESSES = 5


class Guess(NamedTuple):
    text: str
    """The piece, made printable; `▁` is a space."""
    probability: float
    is_right: bool


class Prediction(NamedTuple):
    instance: Instance
    guesses: list[list[Guess]]
    """For each piece to predict, in their order: the likeliest ones, the likeliest first."""
    right: list[Guess]
    """For each piece to predict: itself."""
    swapped: float | None
    """Probability that the order label is 1; None where there is no label."""


class Predictions(NamedTuple):
    step: int
    """Of the checkpoint."""
    split: str
    listed: list[Prediction]


def predict(
    checkpoint: Path, model: ModelConfig, data: Path, manifest: Manifest, split: str, num: int, generator: np.random.Generator
) -> Predictions:
    """`num` random instances of a split as the checkpoint sees them, at least half with an order label where there are such.

    Raises:
        UserError: data, tokenizer and checkpoint do not belong together, or cannot be read.
    """
    bound_cache()
    state = read_state(checkpoint)
    if state.get("data_sha256") != manifest_sha256(data):
        raise UserError(f"{data}: is not the data that {checkpoint} was trained on (the manifest differs).")
    if faults := tokenizer_faults(data, manifest):
        raise UserError("\n".join(faults))
    pieces = load_pieces(data, manifest)
    instances = choose(sample_instances(data, manifest, split, pieces, 4 * num, generator), num, generator)
    albert = Albert(model, manifest.vocab_size).eval()
    load_weights(checkpoint, albert)
    rows = open_split(data, manifest, split).read(np.array([instance.row for instance in instances], dtype=np.int64))
    listed = []
    for instance, row in zip(instances, rows, strict=True):
        with torch.no_grad():
            mlm_logits_MV, sop_logits_12 = albert.logits(collate([row]))
        probabilities_MV = mlm_logits_MV.softmax(-1)
        swapped = None if instance.order_label == NO_LABEL else sop_logits_12.softmax(-1)[0, 1].item()
        labels = row.mlm_labels.tolist()
        listed.append(
            Prediction(instance, guesses(probabilities_MV, labels, pieces), right(probabilities_MV, labels, pieces), swapped)
        )
    return Predictions(step_of(checkpoint), split, listed)


def choose(drawn: list[Instance], num: int, generator: np.random.Generator) -> list[Instance]:
    """`num` of them in the order of their rows; a draw of five alone may well hold no order to tell."""
    shuffled = [drawn[place] for place in generator.permutation(len(drawn))]
    labelled = [instance for instance in shuffled if instance.order_label != NO_LABEL][: -(-num // 2)]
    taken = {instance.row for instance in labelled}
    others = [instance for instance in shuffled if instance.row not in taken][: num - len(labelled)]
    return sorted(labelled + others, key=lambda instance: instance.row)


def guesses(probabilities_MV: torch.Tensor, labels: list[int], pieces: list[str]) -> list[list[Guess]]:
    best = probabilities_MV.topk(min(NUM_GUESSES, len(pieces)))
    rows = zip(best.indices.tolist(), best.values.tolist(), labels, strict=True)
    return [
        [Guess(shown(pieces[piece]), value, piece == label) for piece, value in zip(indices, values, strict=True)]
        for indices, values, label in rows
    ]


def right(probabilities_MV: torch.Tensor, labels: list[int], pieces: list[str]) -> list[Guess]:
    of_label = probabilities_MV[torch.arange(len(labels)), labels].tolist()
    return [Guess(shown(pieces[label]), value, True) for label, value in zip(labels, of_label, strict=True)]


def shown(piece: str) -> str:
    """The space stays: with it a piece begins a word, and is another one without."""
    return printable(piece) or SPACE
