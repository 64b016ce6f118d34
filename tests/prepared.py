"""Data folders of the bundled corpus for tests: how they are made and read."""

import hashlib
from pathlib import Path

import pyarrow as pa

from data_prep.options import PrepareOptions
from data_prep.schema import read_manifest

BUNDLED = Path(__file__).parent.parent / "data_prep" / "bundled" / "sotu_1961_2026.txt.gz"
GOLDEN = Path(__file__).parent / "golden"


def options(corpus, tokenizer, output, **changes):
    defaults = {"max_seq_length": 64, "dupe_factor": 3}
    return PrepareOptions(input=[str(corpus)], tokenizer=tokenizer, output=str(output), **defaults | changes)


def read(folder, name="train"):
    """All rows of a split, as a table."""
    return pa.concat_tables(pa.ipc.open_stream(folder / shard).read_all() for shard in read_manifest(folder).splits[name].shards)


def restored(table):
    """The rows with their original pieces, as lists."""
    rows = []
    columns = [table[name].to_pylist() for name in ("input_ids", "mlm_positions", "mlm_labels")]
    for ids, positions, labels in zip(*columns, strict=True):
        for position, label in zip(positions, labels, strict=True):
            ids[position] = label
        rows.append(ids)
    return rows


def hashes(folder):
    """Of all that the bytes promise holds for: plan.json says where the corpus lies, summary.json how long it took, provenance.json
    who made it."""
    left_out = ("plan.json", "summary.json", "provenance.json")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in left_out]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
