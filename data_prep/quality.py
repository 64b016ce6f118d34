"""Documents in, those worth training on out, in their order. Each step is optional, and counts what it did.

The steps are datatrove's where they come alone. Its repetition filter also counts n-grams of words, for which it wants spaCy; its
language filter refuses every build of fastText but one, which Python 3.13 lacks. Of these two the measure is taken, not the step.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from data_prep.options import PrepareOptions
from tokenizer.corpus import Document
from tokenizer.errors import UserError


def filter_documents(
    documents: Iterator[Document], options: PrepareOptions, dropped: Counter[str], changed: Counter[str] | None = None
) -> Iterator[Document]:
    """The documents that pass every step that is switched on.

    dropped, changed: documents that a step left out, or changed, are added under the name of its option.

    Raises:
        UserError: a package is not installed, or the language model cannot be used.
    """
    mend, wanted = open_steps(options)
    for document in documents:
        if mend and (text := mend(document.text)) != document.text:
            document = document._replace(text=text)
            if changed is not None:
                changed["fix_unicode"] += 1
        failed = next((name for name, passes in wanted.items() if not passes(document)), None)
        if failed:
            dropped[failed] += 1
        else:
            yield document


def open_steps(options: PrepareOptions) -> tuple[Callable[[str], str] | None, dict[str, Callable[[Document], bool]]]:
    """What mends a text, if anything; by option, what a document must pass, the cheapest first.

    Raises:
        UserError: a package is not installed, or the language model cannot be used.
    """
    # Mending takes control characters away, which may be all there is. Later sections belong to a document that is long.
    wanted = {"min_chars": lambda item: len(item.text.strip()) >= (1 if item.section else max(1, options.min_chars))}
    if options.max_repeated_lines < 1:
        wanted["max_repeated_lines"] = lambda document: share_of_repeated_lines(document.text) <= options.max_repeated_lines
    if options.languages:
        from data_prep.language_model import open_language_model

        model = open_language_model(options.language_model, options.languages)
        wanted["languages"] = lambda document: max(model.predict(document)[1].values()) > options.language_threshold
    return (_unicode_mender() if options.fix_unicode else None), wanted


def share_of_repeated_lines(text: str) -> float:
    """Lines that repeat an earlier one, among all lines that are not blank ("duplicate line fraction" of Gopher, table A1)."""
    from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

    lines = [line for line in map(str.strip, text.split("\n")) if line]
    num_repeated, _ = find_duplicates(lines)
    return num_repeated / max(1, len(lines))


def _unicode_mender() -> Callable[[str], str]:
    from datatrove.pipeline.formatters.ftfy import FTFYFormatter

    try:
        return FTFYFormatter(normalization="NFC").format  # its default leaves text decomposed
    except ImportError as error:
        raise UserError("--fix_unicode: ftfy is not installed. pip install 'albert-pretraining[quality]'.") from error
