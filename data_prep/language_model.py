"""A fastText file on this machine in, datatrove's language identifier out, without its download.

fastText reads a model without looking for its end: of a file cut short it makes one that guesses, or never returns. So the
file is measured first.
"""

import mmap
import struct
from functools import lru_cache
from pathlib import Path

from datatrove.utils.lid import FT176LID

from tokenizer.errors import UserError

MAGIC, VERSIONS = 793712314, (11, 12)
NUM_CENTROIDS = 256


def open_language_model(path: Path, languages: list[str]) -> FT176LID:
    """`.predict(document)[1]` of the answer holds the probability of each of `languages`. Read once in a process.

    Raises:
        UserError: fastText is not installed; the model is missing or damaged, or does not know one of the languages.
    """
    model = _load(path)
    labels = [label.removeprefix("__label__") for label in model.get_labels()]
    unknown = [language for language in languages if language not in labels]
    if unknown:
        known = ", ".join(sorted(labels)[:30]) + (f" and {len(labels) - 30} more" if len(labels) > 30 else "")
        raise UserError(f"--languages {' '.join(unknown)}: {path} does not tell it from others. It knows: {known}.")
    identifier = FT176LID(languages)
    identifier._model = model  # what it would download
    return identifier


@lru_cache(maxsize=1)
def _load(path: Path) -> object:
    try:
        from fasttext.FastText import load_model
    except ImportError as error:
        raise UserError("--languages: fastText is not installed. pip install 'albert-pretraining[quality]'.") from error
    expected = "expected a whole fastText classifier, such as lid.176.bin. Fetch it again."
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if (end := _end_of_model(content)) != len(content):
                raise UserError(f"--language_model {path}: {len(content):,} bytes instead of {end:,}; {expected}")
        model = load_model(str(path))
    except OSError as error:
        raise UserError(f"--language_model {path}: cannot be read ({error.strerror or error}). Name a fastText file.") from error
    except (struct.error, ValueError) as error:
        raise UserError(f"--language_model {path}: damaged ({error}); {expected}") from error
    if not all(label.startswith("__label__") for label in model.get_labels()):
        raise UserError(f"--language_model {path}: holds word vectors, but no languages; {expected}")
    return model


def _end_of_model(content: mmap.mmap) -> int:
    """Where a fastText file (.bin or .ftz) says that it ends. Cut in its tables, it is a ValueError or struct.error."""
    position = 0

    def read(form: str) -> tuple:
        nonlocal position
        values = struct.unpack_from(f"<{form}", content, position)
        position += struct.calcsize(f"<{form}")
        return values

    def skip_quantizer() -> None:
        nonlocal position
        dim, _, _, _ = read("4i")
        position += dim * NUM_CENTROIDS * 4

    def skip_matrix(quantized: bool) -> None:
        nonlocal position
        if not quantized:
            rows, columns = read("2q")
            position += rows * columns * 4
            return
        has_norms, rows, _, num_codes = read("?2qi")
        position += num_codes
        skip_quantizer()
        if has_norms:
            position += rows
            skip_quantizer()

    magic, version = read("2i")
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError("no fastText model of version 11 or 12")
    read("12id")  # how it was trained
    num_entries, _, _, _, num_pruned = read("3i2q")
    for _ in range(num_entries):
        position = content.find(b"\0", position) + 1
        if not position:
            raise ValueError("it ends within its words")
        read("qb")
    position += 8 * max(0, num_pruned)
    (is_quantized,) = read("?")
    skip_matrix(is_quantized)
    (output_is_quantized,) = read("?")
    skip_matrix(is_quantized and output_is_quantized)
    return position
