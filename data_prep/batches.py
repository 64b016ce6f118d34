"""A batch of documents in, its rows and counts out: the work of one task, in whichever process it runs.

Batches are cut by the size of the text alone and hold documents of one split, so neither the number of workers nor the
hold-out can leak into what a batch gives.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.held_out import lot
from data_prep.masks import mask, ngram_weights, prediction_counts
from data_prep.options import PrepareOptions
from data_prep.pairs import LABEL, NUM_UNITS, OBJECTIVES, cut_units, pair, text_budget
from data_prep.schema import shard_schema
from data_prep.sentences import split
from data_prep.shards import to_table
from data_prep.words import piece_classes, word_starts
from tokenizer.corpus import Document
from tokenizer.encoder import Encoder
from tokenizer.special_tokens import FIRST_ORDINARY_ID

BATCH_CHARS = 1_000_000
"""A batch ends with the document that reaches this many characters."""


class DocumentBatch(NamedTuple):
    split: str
    documents: list[Document]


class PreparedBatch(NamedTuple):
    split: str
    table: pa.Table
    counts: dict[str, int]
    """Fields of schema.SplitCounts that add up over batches, and num_guarded_words."""
    piece_counts: np.ndarray
    """int64 [vocabulary], pieces of the text before copies."""


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
    """Holds what every batch needs: the tokenizer, the table of piece classes, the number of targets by length."""

    def __init__(self, options: PrepareOptions):
        self.options = options
        self.encoder = Encoder(options.tokenizer)
        self.schema = shard_schema(self.encoder.vocab_size)
        self.classes = piece_classes(self.encoder.pieces, FIRST_ORDINARY_ID)
        self.budget = text_budget(options.max_seq_length, options.pair_objective)
        self.counts = prediction_counts(options.max_seq_length, options.mask_ratio, options.num_predictions)
        self.weights = ngram_weights(options.max_ngram if options.mask_unit == "ngram" else 1)

    def prepare(self, batch: DocumentBatch) -> PreparedBatch:
        """Split, encode, pair and mask. Text is split and encoded once for all copies."""
        options, seed = self.options, self.options.seed
        guarded_before = self.encoder.num_guarded_words
        pieces, sentence_starts, document_starts = self._encode(batch.documents)
        identities = np.array([(d.input_index, d.offset) for d in batch.documents], np.int64).reshape(-1, 2)
        starts = word_starts(pieces, sentence_starts[:-1], self.classes)
        units, first_units = cut_units(sentence_starts, document_starts, starts, self.budget)
        num_copies = options.dupe_factor if batch.split == "train" else 1
        objective = OBJECTIVES[options.pair_objective]
        table = pair(units, first_units, identities, seed, num_copies, self.budget, options.short_seq_prob, objective)
        mask_starts = np.ones_like(starts) if options.mask_unit == "piece" else starts
        rows = mask(pieces, mask_starts, table, identities, seed, self.counts, self.weights, self.encoder.vocab_size)
        counts = {
            "documents": len(batch.documents),
            "sentences": len(sentence_starts) - 1,
            "cut_sentences": int(np.sum(np.diff(sentence_starts) > self.budget)),
            "text_pieces": len(pieces),
            "instances": len(table),
            "pieces": len(rows.input_ids),
            "masked_pieces": len(rows.labels),
            "one_sentence_instances": int(np.sum(table[:, NUM_UNITS] == 1)),
            "in_order_instances": int(np.sum(table[:, LABEL] == 0)),
            "swapped_instances": int(np.sum(table[:, LABEL] == 1)),
            "num_guarded_words": self.encoder.num_guarded_words - guarded_before,
        }
        piece_counts = np.bincount(pieces, minlength=self.encoder.vocab_size)
        return PreparedBatch(batch.split, to_table(rows, table[:, LABEL], self.schema), counts, piece_counts)

    def _encode(self, documents: list[Document]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pieces end to end (int32), starts of sentences in them, starts of documents in the sentences (int64, with ends)."""
        sentences: list[np.ndarray] = []
        document_starts = [0]
        for document in documents:
            texts = split(document.text, language=self.options.language, presegmented=self.options.presegmented)
            # Normalisation can leave nothing of a sentence, such as one of control characters.
            sentences += [ids for ids in self.encoder.encode(texts) if len(ids)]
            document_starts.append(len(sentences))
        lengths = np.array([len(ids) for ids in sentences], np.int64)
        pieces = np.concatenate([np.empty(0, np.int32), *sentences]).astype(np.int32)
        return pieces, np.concatenate([[0], np.cumsum(lengths)]), np.array(document_starts, np.int64)
