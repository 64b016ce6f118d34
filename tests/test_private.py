"""`--private`: words that occur once are planted all over a corpus, and looked for in whatever each verb says and writes."""

import gzip
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from prepared import BUNDLED, options

from data_prep.prepare import prepare
from data_prep.schema import read_manifest
from tokenizer.corpus import Faults, read_documents
from tokenizer.errors import UserError
from tokenizer.privacy import is_private_tokenizer

WORD = re.compile(rb"[bcdfghjkmpqvwxz]{16}")
"""What a planted word looks like, and none of English does: consonants alone."""

VOCABULARY = ("spiece.model", "tokenizer.json")
"""Files that hold pieces of the text by their nature, as the shards (.arrow) do. Weights (.safetensors) are numbers."""

CRASH = """
import os
if os.environ.get("CRASH") == "sentences":
    import sentencex
    def segment(language, text):
        raise ValueError(f"cannot split {text}")
    sentencex.segment = segment
if os.environ.get("CRASH") == "vocabulary":
    import sentencepiece
    train = sentencepiece.SentencePieceTrainer.train
    def crash(sentence_iterator, **options):
        lines = list(sentence_iterator)
        if len(lines) > 1:
            raise RuntimeError(f"cannot learn {lines[0]}")
        return train(sentence_iterator=iter(lines), **options)
    sentencepiece.SentencePieceTrainer.train = crash
"""
"""sitecustomize.py: a library that fails, and says with what."""


def planted(seed: object) -> str:
    return "".join(random.Random(f"word {seed}").choices("bcdfghjkmpqvwxz", k=16))


def found_in(content: str | bytes) -> list[bytes]:
    return WORD.findall(content.encode() if isinstance(content, str) else content)


def write_good(folder: Path) -> None:
    """A planted word in each line; a document that comes twice; words like special tokens; a very long word."""
    lines = [line for line in gzip.decompress(BUNDLED.read_bytes()).decode().split("\n") if line][:500]
    lines = [f"{planted(number)} {line}" for number, line in enumerate(lines)]
    documents = ["\n".join(lines[start : start + 20]) for start in range(0, len(lines), 20)]
    documents += [
        documents[0],
        f"[MASK]{planted('mask')} and <pad>{planted('pad')}.",
        f"The word {planted('long') * 10_000} is long.",
    ]
    (folder / "good.txt").write_text("\n\n".join(documents) + "\n")


def write_table(path: Path, column: str, kind: pyarrow.DataType) -> None:
    pyarrow.parquet.write_table(pyarrow.table({column: pyarrow.array([None], kind)}), path)


FAULTY: dict[str, bytes | Callable[[Path], None]] = {
    "bytes.txt": f"{planted('a')}\xff{planted('b')}\n".encode("latin-1"),
    "zero.txt": f"{planted('c')}\0{planted('d')}\n".encode(),
    "long_line.txt": f"{planted('e')} ".encode() * 100_000 + b"\xff\n",
    "broken.jsonl": f'{{"text": "{planted("f")}"\n'.encode(),
    "fields.jsonl": f'{{"{planted("g")}": "{planted("h")}"}}\n'.encode(),
    "list.jsonl": f'["{planted("i")}"]\n'.encode(),
    "string.jsonl": f'"{planted("j")}"\n'.encode(),
    "number.jsonl": f'{{"text": {{"{planted("k")}": 1}}}}\n'.encode(),
    "half.jsonl": f'{{"text": "{planted("l")} \\ud800"}}\n'.encode(),
    "long.jsonl": json.dumps({planted("m"): f"{planted('n')} " * 100_000}).encode() + b"\n",
    "long_broken.jsonl": json.dumps({"text": f"{planted('o')} " * 100_000})[:-3].encode() + b"\\u00\n",
    "plain.txt.gz": f"{planted('p')}\n".encode(),
    "appended.txt.gz": gzip.compress(b"fine\n") + planted("q").encode(),
    "cut.jsonl.gz": gzip.compress(json.dumps({"text": planted("r")}).encode())[:-9],
    "column.parquet": lambda path: write_table(path, planted("s"), pyarrow.string()),
    "struct.parquet": lambda path: write_table(path, "text", pyarrow.struct([(planted("t"), pyarrow.int64())])),
    "text.parquet": planted("u").encode() * 100,
}
QUOTED = {"broken.jsonl", "fields.jsonl", "long.jsonl", "column.parquet", "struct.parquet"}
"""Those of them whose message quotes text where it may."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    for name, content in FAULTY.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content(folder / name)
    return folder


def told_of(path: Path, mode: str, *, private: bool) -> str:
    """The error, or the faults that were left out."""
    faults, message = Faults(mode, private=private), ""
    try:
        list(read_documents([str(path)], faults=faults))
    except UserError as error:
        message = str(error)
    return json.dumps(faults.listed) if mode == "skip" else message


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_no_fault_quotes_a_private_corpus_and_each_says_where_it_is(faulty, name, mode):
    private, shown = (told_of(faulty / name, mode, private=private) for private in (True, False))
    assert name in private
    assert not found_in(private)
    assert bool(found_in(shown)) == (name in QUOTED)


def test_a_private_table_that_datasets_cannot_load_is_not_quoted(albert, tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text(f"text\nfine\n{planted(1)},two,three\n")
    command = ("tokenizer", "--input", f"hf:{tmp_path / 'csv'}", "--output", tmp_path / "tokenizer", "--vocab_size", 300)
    cache = {"HF_HOME": str(tmp_path / "cache")}
    said = [albert(*command, *more, code=2, **cache).stderr for more in ([], ["--private"])]
    assert ["a.csv" in text for text in said] == [True, False]  # what `datasets` logs
    assert "DatasetGenerationError" in said[1]


def test_the_record_of_a_private_table_does_not_quote_it(albert, tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text(f"text\nfine\n{planted(1)},two,three\n")
    write_good(tmp_path)
    given = ("--input", tmp_path / "good.txt", f"hf:{tmp_path / 'csv'}", "--private", "true", "--on_error", "skip")
    cache = {"HF_HOME": str(tmp_path / "cache")}
    tokenizer, data = tmp_path / "tokenizer", tmp_path / "data"
    for command in (
        ("tokenizer", *given, "--output", tokenizer, "--vocab_size", 300),
        ("prepare", *given, "--output", data, "--tokenizer", tokenizer, "--dupe_factor", 1),
    ):
        finished = albert(*command, **cache)
        assert not found_in(finished.stdout + finished.stderr)
        assert "a.csv" not in finished.stderr  # what `datasets` logs
    for folder in (tokenizer, data):
        content = (folder / "provenance.json").read_text()
        assert not found_in(content)
        of_table = {"size": None, "sha256": None, "reason": "cannot be loaded (DatasetGenerationError)"}
        assert {"path": f"hf:{tmp_path / 'csv'}"} | of_table in json.loads(content)["inputs"]


@pytest.mark.parametrize("private", [True, False])
def test_data_prepared_with_an_export_is_private_if_the_export_is(albert, small_config, data, corpus, tmp_path, private):
    transformers = pytest.importorskip("transformers", reason="the export is checked with the extra `transformers`")
    shutil.copytree(data, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"private": private}))
    run, export = tmp_path / "run", tmp_path / "hf"
    where = ("--config", small_config, "--data", tmp_path / "data", "--output", run)
    albert("launch", *where, "--num_procs", 1, "--training.steps", 1, "--model.max_position_embeddings", 64)
    albert("export", "--run", run, "--output", export)
    (export / "provenance.json").unlink()  # as of what is handed on
    assert ("private" in (export / "tokenizer_config.json").read_text()) == private
    loaded = transformers.AutoTokenizer.from_pretrained(export)
    assert loaded.model_max_length == 64
    assert loaded("It is so.").input_ids == transformers.AutoTokenizer.from_pretrained(data / "tokenizer")("It is so.").input_ids
    for _ in range(2):  # the second finds the tokenizer of the plan, too
        prepare(options(corpus, export, tmp_path / "new", dupe_factor=1))
        assert read_manifest(tmp_path / "new").private == private
    assert is_private_tokenizer(tmp_path / "new" / "tokenizer") == private


class Work:
    """What the verbs of one corpus said and wrote."""

    def __init__(self, folder: Path, faulty: Path, albert, *private: str):
        self.folder, self.faulty, self.private, self.albert = folder, faulty, private, albert
        self.said: dict[str, str] = {}
        (folder / "corpus").mkdir()
        write_good(folder / "corpus")
        (folder / "library").mkdir()
        (folder / "library" / "sitecustomize.py").write_text(CRASH)
        self.crash = {"PYTHONPATH": str(folder / "library"), "PYTHONSAFEPATH": "1"}
        self.inputs = ["--input", folder / "corpus", faulty]

    def run(self, name: str, *arguments: object, **more) -> None:
        finished = self.albert(*arguments, timeout=300, **more)
        self.said[name] = finished.stdout + finished.stderr

    def make_data(self) -> None:
        """A vocabulary, data, and failures on the way; only the vocabulary is told that the corpus is private."""
        folder, inputs = self.folder, self.inputs
        crash = self.crash
        learn = ("tokenizer", "--vocab_size", 400, *self.private)
        self.run("tokenizer", *learn, *inputs, "--output", folder / "tokenizer", "--on_error", "skip")
        fault = ("--input", self.faulty / "broken.jsonl")
        self.run("tokenizer fails", *learn, *fault, "--output", folder / "tokenizer2", code=2)
        self.run("tokenizer crashes", *learn, *inputs[:2], "--output", folder / "tokenizer3", code=1, CRASH="vocabulary", **crash)
        prepare = ("prepare", "--tokenizer", folder / "tokenizer", "--max_seq_length", 64)
        self.run("prepare", *prepare, *inputs, "--output", folder / "data", "--on_error", "skip", "--workers", 2)
        self.run("prepare fails", *prepare, *fault, "--output", folder / "data2", code=2)
        for number in (1, 2):  # in this process, and in others
            more = ("--output", folder / f"data3-{number}", "--workers", number, "--task_size", 20_000)
            self.run(f"prepare crashes {number}", *prepare, *inputs[:2], *more, code=1, CRASH="sentences", **crash)
        page = folder / "page.html"
        self.run("inspect", "inspect", folder / "data", "--html", page, "--num", 20)
        self.run("remask", "prepare", "--remask", folder / "data", "--output", folder / "data4", "--seed", 1)

    def train(self, config: Path) -> None:
        folder = self.folder
        steps = ("--training.steps", 2, "--checkpoint.every_n_steps", 1, "--model.max_position_embeddings", 64)
        where = ("--config", config, "--data", folder / "data", "--output", folder / "run", "--num_procs", 2)
        self.run("dry run", "launch", *where, *steps, "--dry_run")
        self.run("doctor", "doctor", *where, *steps)
        self.run("launch", "launch", *where, *steps, "--logging.wandb", "offline")
        self.run("launch fails", "launch", *where, *steps, "--model.hidden_size", 17, code=2)
        self.run("inspect run", "inspect", folder / "run", "--html", folder / "run.html", "--num", 20)
        self.run("export", "export", "--run", folder / "run", "--output", folder / "hf")
        self.run("evaluate", "evaluate", "--model", folder / "run", folder / "hf", "--output", folder / "figures.json")

    def places(self) -> set[str]:
        """Where planted words are, of all that was said, and of every file that is neither shard nor vocabulary."""
        found = {name for name, text in self.said.items() if found_in(text)}
        for path in self.folder.rglob("*"):
            top = path.relative_to(self.folder).parts[0]
            is_text = path.name in VOCABULARY or path.suffix in (".arrow", ".safetensors") or top in ("corpus", "library")
            if path.is_file() and not is_text and any(map(found_in, contents(path))):
                found.add(str(path.relative_to(self.folder)))
        return found


def contents(path: Path) -> list[bytes]:
    """The bytes of a file; of wandb's own, its records without what lies between them."""
    if path.suffix != ".wandb":
        return [path.read_bytes()]
    # LevelDB's log format: 7 bytes for the file, then blocks of 32 KiB; parts of records behind checksum, length and kind.
    data, parts, place = path.read_bytes(), [], 7
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        left = -place % (1 << 15)
        if left < 7:
            place += left
            continue
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
    assert b"global_batch_size" in b"".join(parts)
    return [data, b"".join(parts)]


@pytest.fixture(scope="module")
def work(tmp_path_factory, faulty, albert) -> Work:
    made = Work(tmp_path_factory.mktemp("private"), faulty, albert, "--private", "true")
    made.make_data()
    return made


@pytest.fixture(scope="module")
def open_work(tmp_path_factory, faulty, albert) -> Work:
    made = Work(tmp_path_factory.mktemp("open"), faulty, albert)
    made.make_data()
    return made


def test_no_verb_shows_a_word_of_a_private_corpus(work, small_config):
    work.train(small_config)
    assert work.places() == set()
    assert (work.folder / "run" / "DONE").exists()
    assert (work.folder / "hf" / "README.md").exists()
    assert (work.folder / "figures.json").exists()
    assert list((work.folder / "run").rglob("*.wandb"))
    manifest = read_manifest(work.folder / "data")
    assert manifest.duplicate_documents == 1
    assert manifest.num_guarded_words >= 2
    assert manifest.num_faults >= len(FAULTY)
    assert read_manifest(work.folder / "data4").private


def test_without_the_option_they_do(open_work):
    expected = {"tokenizer", "tokenizer/manifest.json", "data/manifest.json", "inspect", "page.html", "data4/manifest.json"}
    expected |= {"tokenizer fails", "tokenizer crashes", "prepare fails", "prepare crashes 1", "prepare crashes 2"}
    assert open_work.places() >= expected


def test_private_output_still_says_what_and_where(work):
    assert re.search(r"broken\.jsonl:1: not JSON \(.*\): \[not shown: the corpus is private\]", work.said["prepare fails"])
    assert "broken.jsonl:1" in work.said["tokenizer fails"]
    assert "ValueError" in work.said["prepare crashes 1"]
    assert "sentences.py" in work.said["prepare crashes 2"]
    assert "RuntimeError" in work.said["tokenizer crashes"]
    assert "private" in work.said["inspect"]
    assert "pieces to predict" in work.said["inspect"]


def test_the_option_shapes_no_shard(work, open_work):
    private, shown = (read_manifest(made.folder / "data") for made in (work, open_work))
    assert [counts.shard_sha256 for counts in private.splits.values()] == [counts.shard_sha256 for counts in shown.splits.values()]
    assert private.tokenizer_sha256 == shown.tokenizer_sha256
    assert private.options == shown.options
    assert (private.private, shown.private) == (True, False)


def test_a_private_folder_stays_private_and_an_open_one_cannot_become_it(work, open_work, tmp_path, albert):
    prepare = ("prepare", "--max_seq_length", 64, "--output")
    command = (*prepare, open_work.folder / "data", "--tokenizer", open_work.folder / "tokenizer", *open_work.inputs)
    assert "--private is True" in albert(*command, "--on_error", "skip", "--private", code=2).stderr
    source = open_work.folder / "data"
    assert "--private" in albert("prepare", "--remask", source, "--output", tmp_path / "new", "--private", code=2).stderr
    # An open tokenizer; private data, begun and then gone on with, without a word of it.
    begin = (*prepare, tmp_path / "data", "--tokenizer", open_work.folder / "tokenizer", *open_work.inputs[:2])
    for more in (["--private"], []):
        finished = albert(*begin, *more, code=1, CRASH="sentences", **open_work.crash)
        assert "ValueError" in finished.stderr
        assert not found_in(finished.stderr)
    plan = tmp_path / "data" / "plan.json"
    assert json.loads(plan.read_text())["options"]["private"] is True
    task = albert("prepare", "--plan", plan, "--stage", "encode", "--task", 0, code=1, CRASH="sentences", **open_work.crash)
    assert "ValueError" in task.stderr  # as in the log of a Slurm job
    assert not found_in(task.stderr)
