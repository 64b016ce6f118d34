"""Tags that mark entities, in whichever scheme a file has them, as IOB2.

IOB1 and IOB2 (Tjong Kim Sang & Veenstra, arXiv cs/9907006, section 2), BIOES, BILOU, BMES. `transformers.pipeline` groups words by
B- and I- alone, so models learn IOB2; the entities are the same.
"""

import re
from collections import Counter
from collections.abc import Sequence

from seqeval.metrics.sequence_labeling import get_entities

from downstream.tagged import Tagged
from tokenizer.errors import UserError

OUTSIDE = "O"
PREFIXES = str.maketrans("LUM", "ESI")
"""BILOU's and BMES' letters in those of BIOES."""


def unify_schemes(parts: dict[str, Tagged]) -> tuple[bool, dict[str, Tagged]]:
    """Whether the tags of `train` mark entities; if so, those of all parts in IOB2.

    Raises:
        UserError: those of another part do not.
    """
    if not is_entity_scheme({tag for sentence in parts["train"].sentences for tag in sentence.tags}):
        return False, parts
    for part in parts.values():
        tags = {tag for sentence in part.sentences for tag in sentence.tags or ()}
        if not is_entity_scheme(tags):
            quoted = part.reading.quote(sorted(tag for tag in tags if not is_entity_scheme({tag})))
            raise UserError(
                f"{part.source}: has tags that mark no entities ({quoted}), unlike --train. Give --label, or a file without tags."
            )
    return True, {
        split: part._replace(sentences=[each._replace(tags=each.tags and to_iob2(each.tags)) for each in part.sentences])
        for split, part in parts.items()
    }


def is_entity_scheme(tags: set[str]) -> bool:
    """IOB1, IOB2, BIOES, BILOU or BMES, with or without types."""
    return all(re.fullmatch(r"O|[BIESLUM](-.+)?", tag) for tag in tags)


def to_iob2(tags: Sequence[str]) -> list[str]:
    """The same entities, as seqeval reads them."""
    unified = [OUTSIDE] * len(tags)
    for kind, first, last in get_entities([tag[:1].translate(PREFIXES) + tag[1:] for tag in tags]):
        unified[first : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - first)]
    return unified


def classes_of(counts: Counter[str], *, entities: bool) -> list[str]:
    """Tags of the training data; of a type of entities B- and I-, also where it has single words alone."""
    if not entities:
        return sorted(counts)
    kinds = sorted({tag[2:] for tag in counts if tag != OUTSIDE})
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]
