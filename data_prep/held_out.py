"""Which documents are held out for validation: those whose lot, a hash of (seed, identity), is below a cutoff."""

import math
from collections.abc import Iterable

from data_prep.random_streams import VALIDATION, start, uniform
from tokenizer.corpus import Document
from tokenizer.errors import UserError


def find_cutoff(documents: Iterable[Document], seed: int, fraction: float) -> float:
    """The document is held out if its lot is below the cutoff: `fraction`, or just above the smallest lot of all.

    So at least one document is held out, unless fraction is 0. Reads all documents, hence finds bad input early.

    Raises:
        UserError: no document would be left to train on.
    """
    num_documents = num_below = 0
    smallest = 1.0
    for document in documents:
        document_lot = lot(seed, document.input_index, document.offset)
        num_documents += 1
        num_below += document_lot < fraction
        smallest = min(smallest, document_lot)
    if fraction == 0:
        return 0.0
    if max(1, num_below) >= num_documents:
        raise UserError(
            f"--validation_fraction is {fraction:g}, but the corpus has {num_documents} document(s): none is left to train on. "
            "Give more documents (in .txt a blank line ends one), or --validation_fraction 0 to hold out none."
        )
    return fraction if num_below else math.nextafter(smallest, 1.0)


def lot(seed: int, input_index: int, offset: int) -> float:
    """Uniform in [0, 1)."""
    return uniform(start(seed, VALIDATION, 0, input_index, offset))
