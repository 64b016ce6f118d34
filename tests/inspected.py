"""A data folder with hostile, Chinese and plain text, and a reader of pages: for the tests of `albert inspect`."""

import dataclasses
import gzip
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
from prepared import BUNDLED

from data_prep.schema import (
    FORMAT_VERSION,
    ROWS_PER_BATCH,
    Manifest,
    SourceCounts,
    SplitCounts,
    shard_schema,
    write_manifest,
)
from tokenizer.chain import Recipe, build_chain
from tokenizer.charsmap import charsmap
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import CLS_ID, CONTROL_SYMBOLS, MASK_ID, PAD_TOKEN, SEP_ID, UNK_ID, UNK_TOKEN

HOSTILE = ["▁<script>alert(1)</script>", "▁[red]", "▁\x1b[31m", "▁&amp;", '▁"onload="', "▁\u202eevil", "▁{", "▁}", "▁→"]
CHINESE = "我们今天谈谈语言模型的预训练数据"
MAX_SEQ_LENGTH = 96


def words_of(line: str) -> list[list[str]]:
    """A line as words, each a list of pieces of at most four letters; punctuation is a word of its own."""
    words = []
    for chunk in line.lower().split():
        parts = re.findall(r"[^\W\d_]+|\d+|[\W_]", chunk)
        for number, part in enumerate(parts):
            text = part if number else f"▁{part}"
            words.append([text[begin : begin + 4] for begin in range(0, len(text), 4)])
    return words


def real_sentences(num: int) -> list[list[list[str]]]:
    """Sentences of the bundled corpus, with a Chinese one (each piece a word) and a hostile one now and then."""
    with gzip.open(BUNDLED, "rt", encoding="utf-8") as file:
        lines = [words_of(line)[:12] for _, line in zip(range(num * 2), file, strict=False) if line.strip()]
    chinese = [[piece] for piece in [f"▁{CHINESE[0]}", *CHINESE[1:]]]
    for number in range(0, len(lines), 10):
        lines[number : number + 2] = [chinese, [[piece] for piece in HOSTILE]]
    return lines[:num]


def make_rows(sentences, ids, generator):
    """Rows of pairs of sentences, of one sentence where it is the last; beside each, the number of the word of each piece."""
    rows, words_of_rows = [], []
    for first, second in zip(sentences[::2], [*sentences[1::2], []], strict=False):
        label = int(generator.integers(2)) if second else -100
        segments = [second, first] if label == 1 else [first, second]
        originals, word_of, border = [CLS_ID], [-1], 0
        for segment in filter(None, segments):
            border = len(originals) if len(originals) > 1 else 0
            for word in segment:
                word_of += [max(word_of) + 1] * len(word)
                originals += [ids.get(piece, UNK_ID) for piece in word]
            originals.append(SEP_ID)
            word_of.append(-1)
        num_words = max(word_of) + 1
        chosen = set(generator.choice(num_words, max(1, num_words // 6), replace=False).tolist())
        positions = [position for position, word in enumerate(word_of) if word in chosen]
        there = list(originals)
        for position in positions:
            draw = generator.random()
            there[position] = MASK_ID if draw < 0.8 else int(generator.integers(5, len(ids))) if draw < 0.9 else originals[position]
        rows.append(
            {
                "input_ids": there,
                "segment_b_start": border,
                "mlm_positions": positions,
                "mlm_labels": [originals[position] for position in positions],
                "sentence_order_label": label,
            }
        )
        words_of_rows.append(word_of)
    return rows, words_of_rows


def write_shard(path: Path, rows: list[dict], vocab_size: int, rows_per_batch: int = ROWS_PER_BATCH) -> None:
    schema = shard_schema(vocab_size)
    with pa.ipc.new_stream(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema), max_chunksize=rows_per_batch)


def count(rows: list[dict], shards: list[str], shard_rows: list[int]) -> SplitCounts:
    return SplitCounts(
        documents=len(rows),
        sentences=2 * len(rows),
        cut_sentences=0,
        text_pieces=sum(len(row["input_ids"]) - 3 for row in rows),
        unigram_entropy=4.5,
        instances=len(rows),
        pieces=sum(len(row["input_ids"]) for row in rows),
        masked_pieces=sum(len(row["mlm_labels"]) for row in rows),
        one_sentence_instances=sum(row["segment_b_start"] == 0 for row in rows),
        in_order_instances=sum(row["sentence_order_label"] == 0 for row in rows),
        swapped_instances=sum(row["sentence_order_label"] == 1 for row in rows),
        shards=shards,
        shard_rows=shard_rows,
        shard_sha256=["0" * 64] * len(shards),
    )


@dataclasses.dataclass
class Made:
    folder: Path
    rows: list[dict]
    """Of train, in order."""
    words: list[list[int]]
    """Number of the word of each piece of each row, -1 for [CLS] and [SEP]."""
    pieces: list[str]


def write_hostile_data(folder: Path, rows_per_batch: int = 64) -> Made:
    """A data folder of 301 + 20 rows in three shards, with a tokenizer that lacks a few of its pieces."""
    sentences = real_sentences(640)
    counts = Counter(piece for sentence in sentences for word in sentence for piece in word)
    common = [piece for piece, number in sorted(counts.items()) if number > 1]
    pieces = [PAD_TOKEN, UNK_TOKEN, *CONTROL_SYMBOLS, "▁", *common]
    (folder / "tokenizer").mkdir(parents=True)
    chain = build_chain(Recipe([(piece, -float(i)) for i, piece in enumerate(pieces)], charsmap(), True, True))
    (folder / "tokenizer" / "tokenizer.json").write_text(chain.to_str(), encoding="utf-8")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "AlbertTokenizer"}')
    rows, words = make_rows(sentences[:601], {piece: i for i, piece in enumerate(pieces)}, np.random.default_rng(3))
    held_out, _ = make_rows(sentences[600:], {piece: i for i, piece in enumerate(pieces)}, np.random.default_rng(4))
    assert max(len(row["input_ids"]) for row in rows) <= MAX_SEQ_LENGTH
    shards = {"train-00000.arrow": rows[:200], "train-00001.arrow": rows[200:], "validation-00000.arrow": held_out}
    for name, content in shards.items():
        write_shard(folder / name, content, len(pieces), rows_per_batch=rows_per_batch)
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            tokenizer_sha256=sha256_of_files(*(folder / "tokenizer" / f"tokenizer{end}.json" for end in ("", "_config"))),
            vocab_size=len(pieces),
            max_seq_length=MAX_SEQ_LENGTH,
            seed=0,
            options={"pair_objective": "sop", "mask_unit": "ngram", "note": "<b>&\x1b[2J"},
            num_guarded_words=0,
            splits={
                "train": count(rows, ["train-00000.arrow", "train-00001.arrow"], [200, len(rows) - 200]),
                "validation": count(held_out, ["validation-00000.arrow"], [len(held_out)]),
            },
            sources={"<i>wiki": SourceCounts(documents=300, text_pieces=3000), "books": SourceCounts(documents=21, text_pieces=9)},
            dropped={"min_chars": 4},
            changed={"fix_unicode": 7},
            num_faults=1,
            faults=[{"location": "a\x1b<u>.txt:3", "reason": "not UTF-8"}],
        ),
    )
    return Made(folder, rows, words, pieces)


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails on tags that do not pair up."""

    VOID = ("meta", "br", "line", "rect")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.texts, self.titles = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.titles if self.open[-1:] == ["title"] else self.texts).append(data)
