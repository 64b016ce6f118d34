"""Exact match and F1 of answers, as the published evaluations of SQuAD count them, as shares of 1.

Sources: evaluate-v1.1.py (Rajpurkar et al., arXiv 1606.05250, section 6.1), evaluate-v2.0.py (Rajpurkar et al., arXiv 1806.03822).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, white space collapsed."""
    text = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(WITHOUT_PUNCTUATION))
    return " ".join(text.split())


def f1(answer: str, gold: str, *, unanswerable: bool) -> float:
    """Over the words between white space, each as often as it comes. unanswerable: two answers without words agree, as in v2.0."""
    words, gold_words = normalize_answer(answer).split(), normalize_answer(gold).split()
    if unanswerable and not (words and gold_words):
        return float(words == gold_words)
    common = (Counter(words) & Counter(gold_words)).total()
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0


def answer_scores(answers: Sequence[str], golds: Sequence[Sequence[str]], *, unanswerable: bool) -> dict[str, np.ndarray]:
    """`exact_match` and `f1`, each (questions,), of the gold answer that fits best.

    golds: none for a question without an answer, whose right answer is "". unanswerable: count as v2.0, not v1.1.
    """
    exact, overlap = [], []
    for answer, gold in zip(answers, golds, strict=True):
        if unanswerable:
            gold = [text for text in gold if normalize_answer(text)] or [""]
        exact.append(float(any(normalize_answer(answer) == normalize_answer(text) for text in gold)))
        overlap.append(max(f1(answer, text, unanswerable=unanswerable) for text in gold))
    return {"exact_match": np.array(exact), "f1": np.array(overlap)}


def best_threshold(na_prob: np.ndarray, scores: np.ndarray, null_scores: np.ndarray) -> float:
    """The threshold with the highest sum, that of best_f1 in evaluate-v2.0.py: a question is answered where the probability that it
    has no answer is not above it. It lies midway between the last that is answered and the next, or 1.

    na_prob, scores of the answer, scores of none: each (questions,).
    """
    order = np.argsort(na_prob, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((scores - null_scores)[order])])  # by answering none, the first, the first two, ...
    known = np.concatenate([[0.0], na_prob[order], [np.inf]])  # the last even of those that are 1
    cuts = np.flatnonzero(np.diff(known) > 0)  # not between equals
    cut = cuts[gained[cuts].argmax()]
    return float(known[cut] + min(known[cut + 1], 1.0)) / 2
