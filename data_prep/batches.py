"""A batch of documents in, its unmasked rows and counts out: split, encode, pair.

Batches are cut by the size of the text alone and hold documents of one split.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from data_prep.held_out import lot
from data_prep.options import PrepareOptions
from data_prep.pairs import LABEL, NUM_UNITS, OBJECTIVES, cut_units, lay_out, pair, row_keys, text_budget
from data_prep.random_streams import MIXING, start, uniform
from data_prep.rows import Rows
from data_prep.schema import piece_type
from data_prep.sentences import read_abbreviations, split
from data_prep.words import piece_classes, word_starts
from tokenizer.corpus import Document
from tokenizer.encoder import Encoder
from tokenizer.special_tokens import FIRST_ORDINARY_ID, UNK_ID

BATCH_CHARS = 1_000_000
"""A batch ends with the document that reaches this many characters."""

COPIES_AT_ONCE = 10
"""Rows of so many copies of a batch are in memory together: about 6 MB each."""


class DocumentBatch(NamedTuple):
    split: str
    documents: list[Document]


class EncodedBatch(NamedTuple):
    """Sentences as pieces, packed into units; what `BatchPreparer.pair_up` needs."""

    pieces: np.ndarray
    """uint16 or uint32 [pieces], end to end."""
    units: np.ndarray
    first_units: np.ndarray
    """From `pairs.cut_units`."""
    identities: np.ndarray
    """int64 [documents, 3]: input index, offset, section."""
    copies: np.ndarray
    """int64 [documents]: times each is gone through."""
    counts: dict[str, int]
    """Fields of schema.SplitCounts that add up over batches, those of the text before copies."""
    piece_counts: np.ndarray
    """int64 [vocabulary]: pieces of the text before copies; a document that --weights repeats or leaves out counts accordingly."""


def cut_batches(documents: Iterable[Document], seed: int, cutoff: float) -> Iterator[DocumentBatch]:
    """Documents in order, train and validation apart. cutoff: from `held_out.find_cutoff`."""
    waiting: dict[str, list[Document]] = {"train": [], "validation": []}
    sizes = {"train": 0, "validation": 0}
    for document in documents:
        name = "validation" if lot(seed, document.input_index, document.offset) < cutoff else "train"
        waiting[name].append(document)
        sizes[name] += len(document.text)
        if sizes[name] >= BATCH_CHARS:
            yield DocumentBatch(name, waiting[name])
            waiting[name], sizes[name] = [], 0
    for name, rest in waiting.items():
        if rest:
            yield DocumentBatch(name, rest)


class BatchPreparer:
    """Holds what every batch needs: the tokenizer, the table of piece classes, the abbreviations."""

    def __init__(self, options: PrepareOptions):
        self.options = options
        self.encoder = Encoder(options.tokenizer)
        self.piece_type = piece_type(self.encoder.vocab_size).to_pandas_dtype()
        self.classes = piece_classes(self.encoder.pieces, FIRST_ORDINARY_ID)
        self.budget = text_budget(options.max_seq_length, options.pair_objective)
        self.abbreviations = frozenset(read_abbreviations(options.abbreviations) if options.abbreviations else ())

    def encode(self, batch: DocumentBatch, repeats: float = 1.0) -> EncodedBatch:
        """Split and encode, once for all copies. repeats: times a training document is taken, on average."""
        pieces, sentence_starts, document_starts = self._encode(batch.documents)
        identities = np.array([(d.input_index, d.offset, d.section) for d in batch.documents], np.int64).reshape(-1, 3)
        starts = word_starts(pieces, sentence_starts[:-1], self.classes)
        units, first_units = cut_units(sentence_starts, document_starts, starts, self.budget)
        taken = np.ones(len(batch.documents), np.int64)
        if batch.split == "train":
            taken[:] = [times(repeats, self.options.seed, *identity[:2]) for identity in identities]
        counts = {
            "documents": sum(document.section == 0 for document in batch.documents),
            "documents_taken": sum(
                int(number) for number, document in zip(taken, batch.documents, strict=True) if not document.section
            ),
            "sentences": len(sentence_starts) - 1,
            "cut_sentences": int(np.sum(np.diff(sentence_starts) > self.budget)),
            "text_pieces": len(pieces),
            "unknown_pieces": int(np.sum(pieces == UNK_ID)),
        }
        weights = np.repeat(taken, np.diff(sentence_starts[document_starts]))
        piece_counts = np.bincount(pieces, weights, self.encoder.vocab_size).astype(np.int64)
        copies = taken * (self.options.dupe_factor if batch.split == "train" else 1)
        return EncodedBatch(pieces.astype(self.piece_type), units, first_units, identities, copies, counts, piece_counts)

    def pair_up(self, batch: EncodedBatch) -> Iterator[tuple[Rows, dict[str, int]]]:
        """Rows of some copies at a time, with the fields of schema.SplitCounts that are sums over rows."""
        options, seed = self.options, self.options.seed
        for first in range(0, int(batch.copies.max(initial=0)), COPIES_AT_ONCE):
            copies = np.stack([np.minimum(batch.copies, first), np.minimum(batch.copies, first + COPIES_AT_ONCE)], axis=1)
            arguments = (seed, copies, self.budget, options.short_seq_prob, OBJECTIVES[options.pair_objective])
            table = pair(batch.units, batch.first_units, batch.identities, *arguments)
            ids, row_starts, segment_b_starts = lay_out(batch.pieces, table)
            keys = row_keys(table, batch.identities, seed)
            counts = {
                "instances": len(table),
                "pieces": len(ids),
                "one_sentence_instances": int(np.sum(table[:, NUM_UNITS] == 1)),
                "nearly_empty_instances": int(np.sum(np.diff(row_starts) < options.max_seq_length / 16)),
                "in_order_instances": int(np.sum(table[:, LABEL] == 0)),
                "swapped_instances": int(np.sum(table[:, LABEL] == 1)),
            }
            yield Rows(keys, ids, row_starts, segment_b_starts, table[:, LABEL].astype(np.int8)), counts

    def _encode(self, documents: list[Document]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pieces end to end (int32), starts of sentences in them, starts of documents in the sentences (int64, with ends)."""
        options = self.options
        texts: list[str] = []
        num_texts = []
        for document in documents:
            sentences = split(
                document.text, language=options.language, presegmented=options.presegmented, abbreviations=self.abbreviations
            )
            texts += sentences
            num_texts.append(len(sentences))
        pieces, lengths = self.encoder.encode_flat(texts)
        some = lengths > 0  # normalisation can leave nothing of a sentence, such as one of control characters
        document_of = np.repeat(np.arange(len(documents)), num_texts)
        num_sentences = np.bincount(document_of[some], minlength=len(documents))
        return pieces, np.concatenate([[0], np.cumsum(lengths[some])]), np.concatenate([[0], np.cumsum(num_sentences)])


def times(repeats: float, seed: int, input_index: int, offset: int) -> int:
    """How often one document is taken: `repeats` rounded down, or up with the probability that makes it right on average."""
    whole = int(repeats)
    return whole + int(uniform(start(seed, MIXING, 0, input_index, offset, 0)) < repeats - whole)
