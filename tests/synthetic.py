"""Data folders made for a test: real shards and a real manifest, with lengths, mask counts and labels as uneven as a test needs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.schema import FORMAT_VERSION, ROWS_PER_BATCH, Manifest, SplitCounts, shard_schema, write_manifest
from tokenizer.chain import SPECIAL_IDS
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID

VOCAB_SIZE = 60


def write_synthetic_data(folder: Path, *, num_instances: int = 40, max_seq_length: int = 32, seed: int = 0) -> Path:
    """A data folder whose sequences follow a simple rule (each piece repeats), so that a model can learn something in few steps.

    Instances alternate in runs of 4 between long, heavily masked ones with order labels and short ones with one mask and no label:
    contiguous parts of a batch differ more than 4 times in masked pieces.
    """
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer_files = [folder / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json")]
    tokenizer_files[0].write_text(json.dumps(tokenizer_content()))
    tokenizer_files[1].write_text("{}")
    generator = np.random.default_rng(seed)
    splits = {"train": num_instances, "validation": 8}
    counts = {name: write_split(folder, name, rows, max_seq_length, generator) for name, rows in splits.items()}
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            tokenizer_sha256=sha256_of_files(*tokenizer_files),
            vocab_size=VOCAB_SIZE,
            max_seq_length=max_seq_length,
            seed=seed,
            options={"pair_objective": "sop", "mask_unit": "ngram", "max_ngram": 3, "mask_ratio": 0.15},
            num_guarded_words=0,
            splits=counts,
        ),
    )
    return folder


def tokenizer_content() -> dict:
    """tokenizer.json as far as it is read: of the ordinary pieces every third one starts a word, the others go on with one."""
    pieces = list(SPECIAL_IDS)
    pieces += [("▁" if number % 3 == 0 else "") + "a" * (number + 1) for number in range(VOCAB_SIZE - len(pieces))]
    return {
        "model": {"type": "Unigram", "vocab": [[piece, -1.0] for piece in pieces]},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": ""},
    }


def write_split(folder: Path, name: str, num_rows: int, max_seq_length: int, generator: np.random.Generator) -> SplitCounts:
    rows = [make_row(number, max_seq_length, generator) for number in range(num_rows)]
    schema = shard_schema(VOCAB_SIZE)
    with pa.OSFile(str(folder / f"{name}-00000.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema), max_chunksize=ROWS_PER_BATCH)
    pieces = sum(len(row["input_ids"]) for row in rows)
    return SplitCounts(
        documents=num_rows,
        sentences=2 * num_rows,
        cut_sentences=0,
        text_pieces=pieces,
        unigram_entropy=4.0,
        instances=num_rows,
        pieces=pieces,
        masked_pieces=sum(len(row["mlm_labels"]) for row in rows),
        one_sentence_instances=sum(row["segment_b_start"] == 0 for row in rows),
        in_order_instances=sum(row["sentence_order_label"] == 0 for row in rows),
        swapped_instances=sum(row["sentence_order_label"] == 1 for row in rows),
        shards=[f"{name}-00000.arrow"],
        shard_rows=[num_rows],
        shard_sha256=[sha256_of_files(folder / f"{name}-00000.arrow")],
    )


def make_row(number: int, max_seq_length: int, generator: np.random.Generator) -> dict:
    heavy = number % 8 < 4
    length = max_seq_length - 3 if heavy else max_seq_length // 4
    text = np.repeat(generator.integers(FIRST_ORDINARY_ID, VOCAB_SIZE, size=length), 3)[:length]
    border = length // 2
    ids = [CLS_ID, *text[:border], SEP_ID, *text[border:], SEP_ID] if heavy else [CLS_ID, *text, SEP_ID]
    candidates = [place for place, piece in enumerate(ids) if piece >= FIRST_ORDINARY_ID]
    masked = sorted(generator.choice(candidates, size=8 if heavy else 1, replace=False).tolist())
    labels = [int(ids[place]) for place in masked]
    for place in masked:
        ids[place] = MASK_ID
    return {
        "input_ids": [int(piece) for piece in ids],
        "segment_b_start": border + 2 if heavy else 0,
        "mlm_positions": masked,
        "mlm_labels": labels,
        "sentence_order_label": int(generator.integers(2)) if heavy else -100,
    }
