"""How fast, how small and how bounded `albert prepare` is: one run on one text, as a Markdown table.

`make bench-prepare CORPUS=FILE`, where FILE is english_pd.jsonl from benchmarks/corpora.py. Whole commands and the peer
(`encode_batch_fast` of the exported tokenizer on whole lines) are alternated, the median of three is given. One core: everything
runs in one process, with TOKENIZERS_PARALLELISM off.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROUNDS = 3
LENGTH = 512
VOCAB_SIZE = 30_000
ALBERT = Path(sys.executable).with_name("albert")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="english_pd.jsonl, plain")
    parser.add_argument("--work", type=Path, help="folder for intermediate files (default: a temporary one)")
    options = parser.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for name, value in measure(options.corpus, work):
            print(f"| {name} | {value} |", flush=True)


def measure(corpus: Path, work: Path) -> Iterator[tuple[str, str]]:
    """Rows of the table."""
    texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]
    num_bytes = sum(len(text.encode()) for text in texts)
    mb = num_bytes / 1e6
    yield "what", "figure"
    yield "---", "---"
    yield (
        "machine",
        f"{cpu_name()}, {os.cpu_count()} cores; {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "sentencex", "pyarrow", "numba")),
    )
    yield "date", time.strftime("%Y-%m-%d")
    yield "corpus", f"{corpus.name}: {len(texts):,} documents, {mb:.1f} MB of text"
    tokenizer = work / "tokenizer"
    if not tokenizer.exists():
        run("tokenizer", "--input", corpus, "--output", tokenizer, "--vocab_size", VOCAB_SIZE)
    base = ["prepare", "--input", corpus, "--tokenizer", tokenizer, "--max_seq_length", LENGTH]

    timings: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for copies in (1, 2):
            output = work / f"copies-{copies}"
            shutil.rmtree(output, ignore_errors=True)
            seconds, rss = run(*base, "--output", output, "--dupe_factor", copies)
            timings.setdefault(f"command, {copies}", []).append(seconds)
            if copies == 1:
                rss_once = rss
        for name, seconds in peer(tokenizer, texts).items():
            timings.setdefault(name, []).append(seconds)
        for name, seconds in steps(tokenizer, texts, work, warm=number > 0).items():
            timings.setdefault(name, []).append(seconds)
    median = {name: statistics.median(values) for name, values in timings.items()}

    def rate(name: str) -> str:
        values = ", ".join(f"{mb / value:.2f}" for value in timings[name])
        return f"{mb / median[name]:.2f} MB/s ({values})"

    yield f"**whole command**, length {LENGTH}, one copy, one process, start-up included", rate("command, 1")
    yield "peer: `encode_batch_fast` on whole lines", rate("encode_batch_fast")
    yield "**whole command against the peer**", f"{median['encode_batch_fast'] / median['command, 1']:.2f}x"
    yield "the original's preparation (0.16 MB/s a core, cited)", f"{mb / median['command, 1'] / 0.16:.0f}x"
    yield "step: read .jsonl", rate("read")
    yield "step: sentences", rate("sentences")
    yield "step: encoder alone, cold table", rate("encode")
    yield "encoder against the peer", f"{median['encode_batch_fast'] / median['encode']:.2f}x"
    yield "step: word starts, pairs, rows", rate("pairs")
    yield "step: sort, mask and write shards", rate("shards")
    yield "sum of the steps", f"{mb / sum(median[name] for name in ('read', 'sentences', 'encode', 'pairs', 'shards')):.2f} MB/s"
    copy = median["command, 2"] - median["command, 1"]
    yield "a further copy, share of the first", f"{copy / median['command, 1']:.1%} ({copy:.2f} s of {median['command, 1']:.2f} s)"
    train = json.loads((work / "copies-1" / "manifest.json").read_text())["splits"]["train"]
    size = sum((work / "copies-1" / name).stat().st_size for name in train["shards"])
    yield "**bytes a piece** on disk, masks and labels included", f"{size / train['pieces']:.3f}"
    yield from reading(work, base)
    yield from masks_again(work)
    four = work / "four"
    four.mkdir(exist_ok=True)
    for number in range(4):
        if not (four / f"{number}.jsonl").exists():
            shutil.copyfile(corpus, four / f"{number}.jsonl")
    shutil.rmtree(work / "out-4", ignore_errors=True)
    _, rss_four = run("prepare", "--input", four, "--tokenizer", tokenizer, "--output", work / "out-4", "--dupe_factor", 1)
    yield "**peak RSS**, 1x and 4x the corpus", f"{rss_once:.0f} MB, {rss_four:.0f} MB: ratio {rss_four / rss_once:.3f}"


def peer(tokenizer: Path, texts: list[str]) -> dict[str, float]:
    """Seconds of the exported tokenizer on whole lines, a document's lines at a time."""
    from tokenizers import Tokenizer

    chain = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    lines = [[line for line in text.split("\n") if line.strip()] for text in texts]
    return {"encode_batch_fast": timed(lambda: [chain.encode_batch_fast(each, add_special_tokens=False) for each in lines])}


def steps(tokenizer: Path, texts: list[str], work: Path, warm: bool) -> dict[str, float]:
    """Seconds of each step by itself, over batches as they are prepared."""
    from data_prep import batches, shuffle
    from data_prep.options import PrepareOptions
    from data_prep.pairs import SOP, cut_units, lay_out, pair, row_keys
    from data_prep.rows import Rows, concatenate, take
    from data_prep.sentences import split
    from data_prep.shards import ShardWriter
    from data_prep.words import word_starts
    from tokenizer.corpus import read_documents

    preparer = batches.BatchPreparer(PrepareOptions(tokenizer=tokenizer, max_seq_length=LENGTH))
    masker = shuffle.Masker(preparer.options, LENGTH, preparer.options.num_predictions, preparer.encoder.pieces)
    corpus = work / "steps.jsonl"
    if not corpus.exists():
        with corpus.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    documents: list = []
    seconds = {"read": timed(lambda: documents.extend(read_documents([str(corpus)])))}
    grouped = [batch.documents for batch in batches.cut_batches(documents, 0, 0.0)]
    split_up: list[list[list[str]]] = []

    def sentences() -> None:
        split_up.extend([[split(d.text, language="en", presegmented=False) for d in batch] for batch in grouped])

    seconds["sentences"] = timed(sentences)
    encoded: list = []
    seconds["encode"] = timed(
        lambda: encoded.extend(preparer.encoder.encode_flat([s for document in batch for s in document]) for batch in split_up)
    )
    parts: list[Rows] = []

    def pairs(which: range) -> None:
        for number in which:
            pieces, lengths = encoded[number]
            kept = lengths > 0
            counts = [len(document) for document in split_up[number]]
            document_of = np.repeat(np.arange(len(counts)), counts)
            document_starts = np.concatenate([[0], np.cumsum(np.bincount(document_of[kept], minlength=len(counts)))])
            sentence_starts = np.concatenate([[0], np.cumsum(lengths[kept])])
            identities = np.array([(d.input_index, d.offset, d.section) for d in grouped[number]], np.int64)
            starts = word_starts(pieces, sentence_starts[:-1], preparer.classes)
            units, first_units = cut_units(sentence_starts, document_starts, starts, preparer.budget)
            table = pair(units, first_units, identities, 0, np.ones(len(counts), np.int64), preparer.budget, 0.1, SOP)
            ids, row_starts, b_starts = lay_out(pieces.astype(preparer.piece_type), table)
            parts.append(Rows(row_keys(table, identities, 0), ids, row_starts, b_starts, table[:, 4].astype(np.int8)))

    def shards() -> None:
        rows = concatenate(parts)
        rows = take(rows, np.argsort(rows.keys, kind="stable"))
        writer = ShardWriter(work / "steps.arrow", masker.schema, "none")
        writer.write(masker.table(rows, "train", 0))
        writer.close()

    if not warm:  # once for the compiler
        pairs(range(1))
        shards()
        parts.clear()
    seconds["pairs"] = timed(lambda: pairs(range(len(grouped))))
    seconds["shards"] = timed(shards)
    return seconds


def reading(work: Path, base: list[object]) -> Iterator[tuple[str, str]]:
    """zstd: size, and random reads of rows against the plain folder, alternated."""
    from data_prep.schema import read_manifest
    from pretrain.data import open_split

    if not (work / "zstd").exists():
        run(*base, "--output", work / "zstd", "--dupe_factor", 1, "--compression", "zstd")
    speeds: dict[str, list[float]] = {"copies-1": [], "zstd": []}
    size = {}
    for _ in range(ROUNDS):
        for name, found in speeds.items():
            manifest = read_manifest(work / name)
            split = open_split(work / name, manifest, "train")
            size[name] = sum(manifest.splits["train"].shard_bytes) / manifest.splits["train"].pieces
            rows = np.random.default_rng(0).integers(0, len(split), 3000)
            found.append(len(rows) / timed(lambda rows=rows, split=split: [split.row(int(row))["input_ids"].sum() for row in rows]))
    plain, packed = (statistics.median(values) for values in speeds.values())
    yield "zero-copy random reads, page cache warm", f"{plain:,.0f} rows/s"
    yield "zstd: bytes a piece; random reads, decompressed batches kept", f"{size['zstd']:.3f}; {packed:,.0f} rows/s"


def masks_again(work: Path) -> Iterator[tuple[str, str]]:
    """`--remask` against preparing, whole commands alternated: ten copies, as it is used."""
    seconds: dict[str, list[float]] = {"prepare": [], "remask": []}
    tokenizer = work / "tokenizer"
    for number in range(ROUNDS):
        shutil.rmtree(work / "ten", ignore_errors=True)
        shutil.rmtree(work / "remasked", ignore_errors=True)
        command = ["prepare", "--input", work / "steps.jsonl", "--tokenizer", tokenizer, "--output", work / "ten"]
        seconds["prepare"].append(run(*command, "--dupe_factor", 10)[0])
        seconds["remask"].append(run("prepare", "--remask", work / "ten", "--output", work / "remasked", "--seed", number + 1)[0])
    prepare, remask = (statistics.median(values) for values in seconds.values())
    yield "ten copies: prepare, and `--remask` of them", f"{prepare:.1f} s, {remask:.1f} s: {prepare / remask:.1f}x"


def run(*command: object) -> tuple[float, float]:
    """Seconds and peak RSS (MB) of one `albert` command."""
    finished = subprocess.run([sys.executable, "-c", MEASURED, str(ALBERT), *map(str, command)], stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        raise SystemExit(f"albert {' '.join(map(str, command))}: exit code {finished.returncode}")
    seconds, kilobytes = map(float, finished.stdout.split())
    return seconds, kilobytes / 1e3


MEASURED = """
import os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - began, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""In a process of its own: ru_maxrss of a child begins with the memory of its parent, and this one holds the text."""


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        work()
    return time.perf_counter() - began


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main(sys.argv[1:])
