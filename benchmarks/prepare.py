"""How fast, how small and how bounded `albert prepare` is: one run on one text, as a Markdown table.

`make bench-prepare CORPUS=FILE`, where FILE is english_pd.jsonl from benchmarks/corpora.py. Whole commands and the peer
(`encode_batch_fast` of the exported tokenizer on whole lines) are alternated, the median of three is given. One core: everything
runs in one process, with TOKENIZERS_PARALLELISM off.
"""

import argparse
import contextlib
import functools
import gzip
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
    yield "step: pairs and rows", rate("pairs")
    yield "step: sort, mask and write shards", rate("shards")
    yield "sum of the steps", f"{mb / sum(median[name] for name in ('read', 'sentences', 'encode', 'pairs', 'shards')):.2f} MB/s"
    copy = median["command, 2"] - median["command, 1"]
    yield "a further copy, share of the first", f"{copy / median['command, 1']:.1%} ({copy:.2f} s of {median['command, 1']:.2f} s)"
    train = json.loads((work / "copies-1" / "manifest.json").read_text())["splits"]["train"]
    size = sum((work / "copies-1" / name).stat().st_size for name in train["shards"])
    yield "**bytes a piece** on disk, masks and labels included", f"{size / train['pieces']:.3f}"
    yield from reading(work, base)
    yield from masks_again(work)
    yield from memory(work, corpus, tokenizer, rss_once)


def memory(work: Path, corpus: Path, tokenizer: Path, rss_once: float) -> Iterator[tuple[str, str]]:
    """Peak RSS of one process: the corpus, and four copies of it as one folder, one large task, or one compressed file."""
    four, packed = work / "four", work / "four.jsonl.gz"
    four.mkdir(exist_ok=True)
    for number in range(4):
        shutil.copyfile(corpus, four / f"{number}.jsonl")
    with gzip.open(packed, "wb", compresslevel=1) as file:
        for number in range(4):
            file.write((four / f"{number}.jsonl").read_bytes())

    def peak(name: str, *options: object) -> float:
        shutil.rmtree(work / name, ignore_errors=True)
        return run("prepare", "--tokenizer", tokenizer, "--output", work / name, *options)[1]

    one_copy = peak("rss-4", "--input", four, "--dupe_factor", 1)
    yield "**peak RSS**, 1x and 4x the corpus, one copy", f"{rss_once:.0f} MB, {one_copy:.0f} MB: ratio {one_copy / rss_once:.3f}"
    once = peak("rss-1-10", "--input", corpus, "--dupe_factor", 10)
    ten = peak("rss-4-10", "--input", four, "--dupe_factor", 10)
    yield "peak RSS, 1x and 4x the corpus, ten copies", f"{once:.0f} MB, {ten:.0f} MB: ratio {ten / once:.3f}"
    large = peak("rss-task", "--input", four, "--dupe_factor", 10, "--task_size", 10**9)
    yield "peak RSS, 4x the corpus in one task, ten copies", f"{large:.0f} MB"
    yield "peak RSS, 4x the corpus in one .gz, ten copies", f"{peak('rss-gz', '--input', packed, '--dupe_factor', 10):.0f} MB"
    for name in ("line.txt", "line.jsonl"):
        with (work / name).open("w", encoding="utf-8") as file:
            text = " ".join(" ".join(json.loads(line)["text"].split()) for line in corpus.open(encoding="utf-8"))
            records = [(text + " " + text)[:50_000_000], "One more document. It is short."]
            file.write("\n\n".join(records) if name == "line.txt" else "".join(json.dumps({"text": one}) + "\n" for one in records))
        yield (
            f"peak RSS, one line of 50 MB in a {Path(name).suffix}",
            f"{peak('rss-line', '--input', work / name, '--dupe_factor', 1):.0f} MB",
        )
    mixed = ("--input", f"much={four / '0.jsonl'}", f"little={work / 'steps.jsonl'}", "--weights", "much=0.05", "little=0.95")
    yield "peak RSS, one half repeated 1.9 times by weight, ten copies", f"{peak('rss-mix', *mixed, '--dupe_factor', 10):.0f} MB"


def peer(tokenizer: Path, texts: list[str]) -> dict[str, float]:
    """Seconds of the exported tokenizer on whole lines, a document's lines at a time."""
    from tokenizers import Tokenizer

    chain = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    lines = [[line for line in text.split("\n") if line.strip()] for text in texts]
    return {"encode_batch_fast": timed(lambda: [chain.encode_batch_fast(each, add_special_tokens=False) for each in lines])}


def steps(tokenizer: Path, texts: list[str], work: Path, warm: bool) -> dict[str, float]:
    """Seconds of each step by itself, over batches as they are prepared; the encoder's table is cold."""
    from data_prep import batches, shuffle
    from data_prep.options import PrepareOptions
    from data_prep.rows import Rows, concatenate, take
    from data_prep.sentences import split
    from data_prep.shards import ShardWriter
    from tokenizer.corpus import read_documents

    preparer = batches.BatchPreparer(PrepareOptions(tokenizer=tokenizer, max_seq_length=LENGTH, dupe_factor=1))
    masker = shuffle.Masker(preparer.options, LENGTH, preparer.options.num_predictions, preparer.encoder.pieces)
    corpus = work / "steps.jsonl"
    if not corpus.exists():
        with corpus.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    documents: list = []
    seconds = {"read": timed(lambda: documents.extend(read_documents([str(corpus)])))}
    grouped = list(batches.cut_batches(documents, 0, 0.0))
    sentences: list[list[str]] = []

    def cut() -> None:
        for batch in grouped:
            sentences.append([s for d in batch.documents for s in split(d.text, language="en", presegmented=False)])

    seconds["sentences"] = timed(cut)
    seconds["encode"] = timed(lambda: [preparer.encoder.encode_flat(texts) for texts in sentences])
    encoded = [preparer.encode(batch) for batch in grouped]
    parts: list[Rows] = []

    def pairs() -> None:
        parts.extend(rows for batch in encoded for rows, _ in preparer.pair_up(batch))

    def shards() -> None:
        rows = concatenate(parts)
        rows = take(rows, np.argsort(rows.keys, kind="stable"))
        writer = ShardWriter(work / "steps.arrow", masker.schema, "none")
        writer.write(masker.table(rows, "train", 0))
        writer.close()

    if not warm:  # once for the compiler
        pairs()
        shards()
        parts.clear()
    seconds["pairs"] = timed(pairs)
    seconds["shards"] = timed(shards)
    return seconds


def reading(work: Path, base: list[object]) -> Iterator[tuple[str, str]]:
    """zstd: size, and reads of rows in random order against the plain folder, alternated: all batches at hand, or one in four."""
    from data_prep.schema import read_manifest
    from pretrain import data

    if not (work / "zstd").exists():
        run(*base, "--output", work / "zstd", "--dupe_factor", 1, "--compression", "zstd")
    speeds: dict[tuple[str, str], list[float]] = {}
    size = {}
    for _ in range(ROUNDS):
        for name in ("copies-1", "zstd"):
            manifest = read_manifest(work / name)
            size[name] = sum(manifest.splits["train"].shard_bytes) / manifest.splits["train"].pieces
            for cache in ("all", "quarter"):
                split = data.open_split(work / name, manifest, "train")
                if cache == "quarter":
                    batches = -(-len(split) // data.ROWS_PER_BATCH)
                    split._decode = functools.lru_cache(maxsize=max(1, batches // 4))(split._read_batch)
                rows = np.random.default_rng(0).permutation(len(split))
                seconds = timed(lambda rows=rows, split=split: [split.row(int(row))["input_ids"].sum() for row in rows])
                speeds.setdefault((name, cache), []).append(len(rows) / seconds)
    rates = {key: statistics.median(values) for key, values in speeds.items()}
    yield "rows/s in random order, page cache warm: zero-copy", f"{rates['copies-1', 'all']:,.0f}"
    yield "rows/s from zstd, the window's batches decompressed once and kept", f"{rates['zstd', 'all']:,.0f}"
    yield "rows/s from zstd where only a quarter of them fits", f"{rates['zstd', 'quarter']:,.0f}"
    yield "bytes a piece with zstd", f"{size['zstd']:.3f}"


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
