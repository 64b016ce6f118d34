"""Which documents are held out for validation: those whose lot, a hash of (seed, identity), is below a cutoff."""

import math
from collections.abc import Iterable

from data_prep.random_streams import VALIDATION, start, uniform
from tokenizer.corpus import Document
from tokenizer.errors import UserError


def find_cutoff(documents: Iterable[Document], seed: int, fraction: float) -> float:
    """The document is held out if its lot is below the cutoff: `fraction`, or just above the smallest lot of all.

    So at least one document is held out, unless fraction is 0. Reads until there is a document for each split, which is all of the
    corpus only when it has few documents.

    Raises:
        UserError: no document would be left to train on.
    """
    if fraction == 0:
        return 0.0
    smallest, largest = 1.0, 0.0
    document = None
    for document in documents:
        document_lot = lot(seed, document.input_index, document.offset)
        smallest, largest = min(smallest, document_lot), max(largest, document_lot)
        if smallest < fraction <= largest:
            return fraction
    if document is None:
        raise UserError("--input: there is no document with text in it that the filters let pass. Check --input and the filters.")
    if smallest >= largest or largest < fraction:
        raise UserError(
            f"--validation_fraction is {fraction:g}, but the corpus has too few documents: none would be left to train on. "
            "Give more (in .txt a blank line ends one), or --validation_fraction 0 to hold out none."
        )
    return math.nextafter(smallest, 1.0)


def lot(seed: int, input_index: int, offset: int) -> float:
    """Uniform in [0, 1)."""
    return uniform(start(seed, VALIDATION, 0, input_index, offset, 0))
