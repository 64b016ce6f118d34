"""Held-out instances in; what each masked piece and each pair is, and figures of any scores of them by band, out.

A model, the unigram floor and random weights are all the same here: a loss and a hit or miss for each masked piece and each pair.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from data_prep.schema import NO_LABEL, Manifest
from data_prep.statistics import words_of_runs
from data_prep.words import piece_classes, word_starts
from pretrain.data import Split
from tokenizer.errors import UserError
from tokenizer.special_tokens import FIRST_ORDINARY_ID

ROWS_AT_A_TIME = 1024
RANK_EDGES = (100, 1_000, 10_000)
"""Last ranks of the bands of frequency."""
NORMAL_95 = 1.96
ROUNDING = 1e-12
"""A standard error below it is 0, but for the rounding of a mean such as a third."""
LENGTH_BANDS = 4
"""Of equal width, up to max_seq_length."""


class HeldOut(NamedTuple):
    """B instances, and the M pieces to predict in them, in the order in which they are evaluated."""

    rows: np.ndarray
    """int64 (B), in the split."""
    lengths: np.ndarray
    """int64 (B), pieces, [CLS] and [SEP] included."""
    order_labels: np.ndarray
    """int64 (B): 0, 1 or NO_LABEL."""
    instance_of: np.ndarray
    """int64 (M), the instance that each masked piece is in."""
    labels: np.ndarray
    """int64 (M), the original piece."""
    run_lengths: np.ndarray
    """int64 (M), words in the run of neighbouring masked pieces that it is in; part of a word counts as one."""


class Scores(NamedTuple):
    """How something did on `HeldOut`."""

    losses: np.ndarray
    """float64 (M), nats."""
    correct: np.ndarray
    """bool (M)."""
    order_losses: np.ndarray | None
    """float64 (B), of no meaning where there is no label; None without a sentence-order head."""
    order_correct: np.ndarray | None
    """bool (B), likewise."""


class Bands(NamedTuple):
    """Disjoint classes of masked pieces or of instances."""

    names: list[str]
    band: np.ndarray
    """int64 (M) or (B), index into names."""


def read_held_out(split: Split, rows: np.ndarray, pieces: list[str], manifest: Manifest) -> HeldOut:
    """The instances in these rows (int64), those of like length together as far as they lie together. pieces: id -> piece.

    Raises:
        UserError: a shard cannot be read or holds what no preparation writes.
    """
    classes = piece_classes(pieces, FIRST_ORDINARY_ID)
    by_words = manifest.options.get("mask_unit") != "piece"
    windows = [rows[start : start + ROWS_AT_A_TIME] for start in range(0, len(rows), ROWS_AT_A_TIME)]
    windows = [window[np.argsort(split.lengths(window), kind="stable")] for window in windows]
    parts = [read_window(split, window, classes, manifest, by_words=by_words) for window in windows]
    firsts = np.cumsum([0, *map(len, windows)])
    parts = [part._replace(instance_of=part.instance_of + first) for part, first in zip(parts, firsts, strict=False)]
    return HeldOut(*map(np.concatenate, zip(*parts, strict=True)))


def read_window(split: Split, rows: np.ndarray, classes: np.ndarray, manifest: Manifest, *, by_words: bool) -> HeldOut:
    """A few rows."""
    ids, _, order_labels, positions, labels = zip(*split.read(rows), strict=True)
    lengths, counts = (np.fromiter(map(len, arrays), np.int64) for arrays in (ids, positions))
    originals = np.concatenate(ids).astype(np.int32)  # the type that `albert inspect` has compiled word_starts for
    places, targets = (np.concatenate(arrays).astype(np.int64) for arrays in (positions, labels))
    instance_of = np.repeat(np.arange(len(rows)), counts)
    in_range = len(targets) == len(places) and (places < lengths[instance_of]).all()
    if counts.min() < 1 or not in_range or max(originals.max(), targets.max()) >= manifest.vocab_size:
        raise UserError(f"{split.folder}: a shard is damaged (positions or pieces out of range). Prepare the data again.")
    starts = lengths.cumsum() - lengths
    masked = places + starts[instance_of]
    originals[masked] = targets
    words = word_starts(originals, starts, classes) if by_words else np.ones(len(originals), np.bool_)
    run_of = np.cumsum(np.diff(masked, prepend=-2) != 1) - 1
    runs = words_of_runs(masked, words)[run_of]
    return HeldOut(rows, lengths, np.array(order_labels, np.int64), instance_of, targets, runs)


def unigram_scores(held_out: HeldOut, piece_counts: np.ndarray, manifest: Manifest) -> Scores:
    """The floor: guesses that look at no context, but know how often each piece and each order label came in training.

    piece_counts: int64 (V), of the train split's masked pieces. Each count, of pieces and of labels, is taken one higher, so that
    nothing is impossible. The best guess is the most frequent one, always.
    """
    probabilities = (piece_counts + 1) / (piece_counts.sum() + len(piece_counts))
    train = manifest.splits["train"]
    order_counts = np.array([train.in_order_instances, train.swapped_instances]) + 1
    order_labels = np.maximum(held_out.order_labels, 0)
    return Scores(
        losses=-np.log(probabilities[held_out.labels]),
        correct=held_out.labels == piece_counts.argmax(),
        order_losses=-np.log(order_counts / order_counts.sum())[order_labels],
        order_correct=order_labels == order_counts.argmax(),
    )


def run_bands(held_out: HeldOut, manifest: Manifest) -> Bands:
    """By the words (under --mask_unit piece: pieces) in the run of masked neighbours; n-grams that touch are one run, so there are
    longer ones than were drawn."""
    unit = "piece" if manifest.options.get("mask_unit") == "piece" else "word"
    longest = int(manifest.options.get("max_ngram", 3))
    names = [f"{n} {unit}{'s' if n > 1 else ''}" for n in range(1, longest + 1)]
    names.append(f"over {names[-1]}")
    return Bands(names, np.minimum(held_out.run_lengths, longest + 1) - 1)


def rank_bands(held_out: HeldOut, piece_counts: np.ndarray) -> Bands:
    """By the rank of the piece among the train split's masked pieces, the most frequent one first; ties by id."""
    ranks = np.empty(len(piece_counts), np.int64)
    ranks[np.argsort(-piece_counts, kind="stable")] = np.arange(1, len(piece_counts) + 1)
    firsts = [1, *(edge + 1 for edge in RANK_EDGES)]
    names = [f"{first:,} to {last:,}" for first, last in zip(firsts, RANK_EDGES, strict=False)]
    names += [f"over {RANK_EDGES[-1]:,}", "never seen"]
    band = np.searchsorted(RANK_EDGES, ranks[held_out.labels], side="left")
    return Bands(names, np.where(piece_counts[held_out.labels] > 0, band, len(names) - 1))


def length_bands(held_out: HeldOut, max_seq_length: int) -> Bands:
    """By the pieces of the instance, [CLS] and [SEP] included."""
    edges = sorted({math.ceil(max_seq_length * number / LENGTH_BANDS) for number in range(1, LENGTH_BANDS + 1)})
    names = [f"{first + 1:,} to {last:,}" for first, last in zip([0, *edges], edges, strict=False)]
    return Bands(names, np.searchsorted(edges, held_out.lengths, side="left"))


def masked_lm_figures(held_out: HeldOut, scores: Scores, bands: Bands | None = None) -> Any:
    """Figures of all masked pieces; with bands a list of them, each with the name of its band."""
    chosen = np.ones(len(held_out.labels), bool)
    return by_band(scores.losses, scores.correct, held_out.instance_of, chosen, bands, "pieces", perplexity=True)


def order_figures(held_out: HeldOut, scores: Scores, bands: Bands | None = None) -> Any:
    """The same of all pairs that have a label; None without a head or without labels."""
    labelled = held_out.order_labels != NO_LABEL
    if scores.order_losses is None or scores.order_correct is None or not labelled.any():
        return None
    everyone = np.arange(len(labelled))
    return by_band(scores.order_losses, scores.order_correct, everyone, labelled, bands, "instances", perplexity=False)


def by_band(
    losses: np.ndarray,
    correct: np.ndarray,
    instance_of: np.ndarray,
    chosen: np.ndarray,
    bands: Bands | None,
    counted: str,
    *,
    perplexity: bool,
) -> Any:
    """Figures of the chosen (bool): of all, or of each band that holds any."""

    def figures(there: np.ndarray) -> dict[str, Any]:
        loss, loss_error = mean_and_error(losses[there], instance_of[there])
        accuracy, accuracy_error = mean_and_error(correct[there].astype(np.float64), instance_of[there])
        return {
            counted: int(there.sum()),
            "loss": loss,
            "loss_standard_error": loss_error,
            **({"perplexity": math.exp(min(loss, 700.0))} if perplexity else {}),
            "accuracy": accuracy,
            "accuracy_standard_error": accuracy_error,
            "accuracy_interval": interval(accuracy, accuracy_error, len(np.unique(instance_of[there]))),
        }

    if bands is None:
        return figures(chosen)
    each: Iterable[tuple[str, np.ndarray]] = ((name, chosen & (bands.band == k)) for k, name in enumerate(bands.names))
    return [{"band": name} | figures(there) for name, there in each if there.any()]


def mean_and_error(values: np.ndarray, instance_of: np.ndarray) -> tuple[float, float | None]:
    """Mean of the values (float64), and its standard error from how the instances differ; None where one instance holds them all.

    Pieces of one instance are hit and missed together, so they do not count as independent: the mean is a ratio of sums over
    instances (Cochran, Sampling Techniques, chapter on ratio estimators, for a population without end).
    """
    mean = float(values.mean())
    instances, place = np.unique(instance_of, return_inverse=True)
    if len(instances) < 2:
        return mean, None
    residuals = np.bincount(place, weights=values - mean)
    variance = len(instances) / (len(instances) - 1) * float(residuals @ residuals)
    error = math.sqrt(variance) / len(values)
    return mean, error if error > ROUNDING else 0.0


def interval(share: float, error: float | None, num_instances: int) -> list[float] | None:
    """95 % interval of a share (Wilson 1927), for as many independent trials as would have this standard error; where it is 0, as
    with no hit at all, for a trial an instance. None without an error."""
    if error is None:
        return None
    trials = share * (1 - share) / error**2 if error > 0 else num_instances
    weight = NORMAL_95**2 / trials
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return [max(0.0, middle - half), min(1.0, middle + half)]
