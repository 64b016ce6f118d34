"""Labelled sentences made for a test, and options that learn from them in seconds."""

import random

SUBJECTS = ("The budget", "This Congress", "Our economy", "The treaty", "My administration", "The nation")
VERBS = {"pos": ("is strong", "has grown", "works well"), "neg": ("is weak", "has failed", "costs too much")}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Text and label."""
    draw = random.Random(seed)
    labels = [draw.choice(("neg", "pos")) for _ in range(count)]
    return [(f"{draw.choice(SUBJECTS)} {draw.choice(VERBS[label])}, and {draw.choice(SUBJECTS)} too.", label) for label in labels]


def write_tsv(path, rows, header=("text", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(map(str, row)) for row in ([header] if header else []) + rows) + "\n", encoding="utf-8")
    return str(path)


QUICK = {"learning_rate": 3e-3, "epochs": 4, "batch_size": 16, "device": "cpu"}
