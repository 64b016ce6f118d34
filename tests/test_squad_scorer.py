"""Figures of answers beside those of another's scorer, which transformers 4 has and 5 has no more."""

import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from downstream.squad_scores import answer_scores, best_threshold

WORDS = ["the", "a", "New", "york", "York,", "state-of-the-union", "1,000", "1000", "“strong”", "nation.", "...", "中国", "An"]
COUNT = 400


@pytest.mark.skipif("TRANSFORMERS_4" not in os.environ, reason="`make test-transformers4` names a Python that has transformers 4")
def test_figures_are_those_of_the_scorer_in_transformers_4():
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))

    names = [str(number) for number in range(COUNT)]
    golds = {name: [text() for _ in range(draw.randint(0, 3))] for name in names}
    # An answer of articles alone to a question without one is right in its figures, but not where it looks for the threshold.
    answers = {name: draw.choice(["", f"{text()} union", *golds[name]]) for name in names}
    na_prob = {name: draw.random() for name in names} | {"7": 1.0}  # no equals, between which that scorer cuts
    command = [os.environ["TRANSFORMERS_4"], str(Path(__file__).with_name("squad_in_transformers_4.py"))]
    told = json.dumps({"golds": golds, "answers": answers, "na_prob": na_prob})
    finished = subprocess.run(command, input=told, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    published = json.loads(finished.stdout.splitlines()[-1])

    found = answer_scores([*answers.values()], [*golds.values()], unanswerable=True)
    assert 100 * found["exact_match"].mean() == pytest.approx(published["exact"])
    assert 100 * found["f1"].mean() == pytest.approx(published["f1"])
    probability, of_none = np.array([*na_prob.values()]), np.array([float(not gold) for gold in golds.values()])
    threshold = best_threshold(probability, found["f1"], of_none)
    assert 100 * np.where(probability > threshold, of_none, found["f1"]).mean() == pytest.approx(published["best_f1"])
    assert 10 < published["exact"] < published["f1"] < published["best_f1"] < 90
