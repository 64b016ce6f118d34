"""Labelled sentences of movie reviews from a public package: train.jsonl, dev.jsonl and test.jsonl for benchmarks.sentiment.

    python -m benchmarks.sentiment_rows --output DIR

Needs pip; nothing is installed. The sentences and their mean ratings by twenty people, from -4 to 4, are those of Hutto & Gilbert
(VADER, ICWSM 2014), as vaderSentiment 3.3.2 has them (PyPI, the source package; MIT). Ratings within 0.5 of 0 are left out.
"""

import argparse
import hashlib
import html
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corpora import PIP, check_hash

PACKAGE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
NEUTRAL = 0.5
SPLITS = {"dev": 0.1, "test": 0.1}
"""Shares; the rest is for training."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.sentiment_rows", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files and the package")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    if not (output / PACKAGE).exists():
        subprocess.run([*PIP, "--no-binary", ":all:", "vaderSentiment==3.3.2"], cwd=output, check=False)
    check_hash(output / PACKAGE, SHA256)
    rows = sorted(read_rows(output / PACKAGE), key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    begin = 0
    for name, share in SPLITS.items():
        write(output / f"{name}.jsonl", rows[begin : (begin := begin + round(share * len(rows)))])
    write(output / "train.jsonl", rows[begin:])


def read_rows(package: Path) -> Iterator[dict[str, str]]:
    """Each sentence once."""
    with tarfile.open(package) as outer, tarfile.open(fileobj=io.BytesIO(outer.extractfile(INNER).read())) as inner:
        lines = inner.extractfile(RATINGS).read().decode().splitlines()
    seen = set()
    for _, rating, text in (line.split("\t") for line in lines):
        text = html.unescape(" ".join(text.split()))
        if abs(float(rating)) >= NEUTRAL and text not in seen:
            seen.add(text)
            yield {"text": text, "label": "pos" if float(rating) > 0 else "neg"}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows):,} sentences, {sum(row['label'] == 'pos' for row in rows) / len(rows):.1%} of them positive")


if __name__ == "__main__":
    main()
