"""`albert prepare`: what the data folder holds, that its bytes depend on corpus, options and seed alone, and its errors."""

import dataclasses
import errno
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from data_prep.options import PrepareOptions
from data_prep.prepare import prepare
from data_prep.schema import ROWS_PER_BATCH, manifest_sha256, read_manifest, shard_schema
from data_prep.sentences import split
from data_prep.shards import ShardWriter
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.files import replace_folder
from tokenizer.options import TokenizerOptions
from tokenizer.special_tokens import CLS_ID, MASK_ID, SEP_ID
from tokenizer.train import train_tokenizer

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "data_prep" / "bundled" / "sotu_1961_2026.txt.gz"
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "tokenizer"
    train_tokenizer(TokenizerOptions(input=[str(BUNDLED)], output=folder, vocab_size=2000))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Twelve addresses, 40 lines of each."""
    documents = gzip.decompress(BUNDLED.read_bytes()).decode().split("\n\n")[:12]
    path = tmp_path_factory.mktemp("corpus") / "addresses.txt"
    path.write_text("\n\n".join("\n".join(document.split("\n")[:40]) for document in documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory, corpus, tokenizer):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(options(corpus, tokenizer, folder))
    return folder


def options(corpus, tokenizer, output, **changes):
    defaults = {"max_seq_length": 64, "dupe_factor": 3}
    return PrepareOptions(input=[str(corpus)], tokenizer=tokenizer, output=output, **defaults | changes)


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
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()}


def test_datasets_opens_the_shards_and_columns_have_the_types_of_the_contract(data):
    manifest = read_manifest(data)
    shard = data / manifest.splits["train"].shards[0]
    from_file = datasets.Dataset.from_file(str(shard))
    loaded = datasets.load_dataset("arrow", data_files=str(shard), split="train", cache_dir=str(data.parent / "cache"))
    assert from_file.num_rows == loaded.num_rows == manifest.splits["train"].instances
    assert from_file[5] == loaded[5]
    table = read(data)
    assert table.schema.equals(shard_schema(2000))
    assert table.schema.field("input_ids").type == pa.list_(pa.uint16())
    assert shard_schema(65_536).field("input_ids").type == pa.list_(pa.uint16())
    assert shard_schema(65_537).field("mlm_labels").type == pa.list_(pa.uint32())
    ids, b_start = from_file[0]["input_ids"], from_file[0]["segment_b_start"]
    assert ids[0] == CLS_ID
    assert ids[-1] == SEP_ID
    assert b_start == 0 or ids[b_start - 1] == SEP_ID


def test_the_manifest_counts_what_the_shards_hold(data, corpus, tokenizer):
    manifest = read_manifest(data)
    encoder = Encoder(tokenizer)
    assert manifest.tokenizer_sha256 == encoder.sha256
    assert manifest.vocab_size == 2000
    assert manifest.max_seq_length == 64
    assert sorted(path.name for path in (data / "tokenizer").iterdir()) == sorted(path.name for path in tokenizer.iterdir())
    assert sum(counts.documents for counts in manifest.splits.values()) == 12
    assert manifest.splits["validation"].documents >= 1
    for name, counts in manifest.splits.items():
        table = read(data, name)
        lengths = [len(row) for row in table["input_ids"].to_pylist()]
        labels = table["sentence_order_label"].to_pylist()
        assert max(lengths) <= 64
        assert counts.instances == table.num_rows == sum(counts.shard_rows)
        assert counts.pieces == sum(lengths)
        assert counts.masked_pieces == sum(map(len, table["mlm_labels"].to_pylist()))
        assert (counts.in_order_instances, counts.swapped_instances) == (labels.count(0), labels.count(1))
        assert counts.one_sentence_instances == table["segment_b_start"].to_pylist().count(0)
        text = [piece for row in restored(table) for piece in row if piece not in (CLS_ID, SEP_ID)]
        assert len(text) == counts.text_pieces * (3 if name == "train" else 1)
        share = np.unique(text, return_counts=True)[1] / len(text)
        assert counts.unigram_entropy == pytest.approx(-np.sum(share * np.log(share)), rel=1e-9)


def test_restored_rows_are_the_text_of_the_corpus(data, corpus, tokenizer):
    encoder = Encoder(tokenizer)
    documents = corpus.read_text(encoding="utf-8").split("\n\n")
    encoded = [
        [piece for ids in encoder.encode(split(text, language="en", presegmented=False)) for piece in ids] for text in documents
    ]
    expected = sorted(piece for document in encoded for piece in document)
    found = []
    for name, copies in (("train", 3), ("validation", 1)):
        text = sorted(piece for row in restored(read(data, name)) for piece in row if piece not in (CLS_ID, SEP_ID))
        found += text[::copies]
    assert sorted(found) == expected


def test_the_number_of_workers_and_the_path_change_no_byte(tmp_path, tokenizer):
    first, second = tmp_path / "one", tmp_path / "two"
    prepare(options(BUNDLED, tokenizer, first, dupe_factor=2))
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(BUNDLED, tmp_path / "elsewhere" / "renamed.txt.gz")
    prepare(options(tmp_path / "elsewhere" / "renamed.txt.gz", tokenizer, second, dupe_factor=2, workers=2))
    assert hashes(first) == hashes(second)
    assert manifest_sha256(first) == manifest_sha256(second)


def test_another_seed_gives_other_bytes_and_the_same_seed_the_same(tmp_path, corpus, tokenizer, data):
    prepare(options(corpus, tokenizer, tmp_path / "same"))
    prepare(options(corpus, tokenizer, tmp_path / "other", seed=1))
    assert hashes(tmp_path / "same") == hashes(data)
    assert hashes(tmp_path / "other")["train-00000.arrow"] != hashes(data)["train-00000.arrow"]


@pytest.mark.parametrize(
    "changes", [{"mask_unit": "piece"}, {"mask_unit": "word", "mask_ratio": 0.3}, {"max_ngram": 5, "max_predictions": 4}]
)
def test_other_masks_leave_the_pairs_as_they_are(tmp_path, corpus, tokenizer, data, changes):
    prepare(options(corpus, tokenizer, tmp_path / "data", **changes))
    one, other = read(data), read(tmp_path / "data")
    assert not one["mlm_positions"].equals(other["mlm_positions"])
    assert restored(one) == restored(other)
    assert one["segment_b_start"].equals(other["segment_b_start"])
    assert one["sentence_order_label"].equals(other["sentence_order_label"])


@pytest.mark.parametrize("objective", ["nsp", "none"])
def test_other_pair_objectives(tmp_path, corpus, tokenizer, objective):
    prepare(options(corpus, tokenizer, tmp_path / "data", pair_objective=objective))
    table = read(tmp_path / "data")
    labels, b_starts = table["sentence_order_label"].to_numpy(), table["segment_b_start"].to_numpy()
    if objective == "none":
        assert set(labels) == {-100}
        assert set(b_starts) == {0}
        assert max(map(len, table["input_ids"].to_pylist())) > 61 + 1  # The [SEP] that is not needed is room for text.
    else:
        assert set(labels) == {-100, 0, 1}
        assert (b_starts[labels != -100] > 0).all()


def test_presegmented_text_has_one_sentence_a_line(tmp_path, corpus, tokenizer):
    manifest = prepare(options(corpus, tokenizer, tmp_path / "data", presegmented=True))
    num_lines = sum(1 for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip())
    assert sum(split["sentences"] for split in manifest["splits"].values()) == num_lines


def test_text_that_spells_special_tokens_yields_none_and_is_counted(tmp_path, tokenizer):
    path = tmp_path / "odd.txt"
    path.write_text("We saw [MASK] and <pad> here. It was [CLS] again.\n\nThe second one. It is plain.\n", encoding="utf-8")
    manifest = prepare(options(path, tokenizer, tmp_path / "data"))
    assert manifest["num_guarded_words"] == 3
    for name in ("train", "validation"):
        table = read(tmp_path / "data", name)
        assert not any(MASK_ID in row or 0 in row for row in restored(table))


def test_without_a_validation_fraction_there_is_no_validation_split(tmp_path, corpus, tokenizer):
    manifest = prepare(options(corpus, tokenizer, tmp_path / "data", validation_fraction=0))
    assert list(manifest["splits"]) == ["train"]
    assert not list((tmp_path / "data").glob("validation*"))


def test_shards_end_at_their_size_and_hold_full_record_batches(tmp_path):
    schema = shard_schema(2000)
    row = {"input_ids": [2, 7, 3], "segment_b_start": 0, "mlm_positions": [1], "mlm_labels": [7], "sentence_order_label": -100}
    writers = []
    for name, sizes in (("a", [5000]), ("b", [1, 700, 2500, 1799])):
        writer = ShardWriter(tmp_path, name, schema, shard_bytes=50_000)
        for size in sizes:
            writer.write(pa.Table.from_pylist([row] * size, schema=schema))
        writer.close()
        writers.append(writer)
    assert writers[0].shard_sha256 == writers[1].shard_sha256
    assert writers[0].shard_rows == [2048, 2048, 904]
    batches = [pa.ipc.open_stream(tmp_path / shard).read_all().to_batches() for shard in writers[0].shards]
    assert [[batch.num_rows for batch in shard] for shard in batches] == [[ROWS_PER_BATCH] * 2, [ROWS_PER_BATCH] * 2, [904]]


GOLDEN_TEXT = """a cab fed a deaf bee. dad had a bad cafe! he bade me add.
see a sea.

be a hero. add one egg. no one is sad.

red sand. blue sea."""


def golden_options(tmp_path):
    path = tmp_path / "golden.txt"
    path.write_text(GOLDEN_TEXT, encoding="utf-8")
    return PrepareOptions(
        input=[str(path)], tokenizer=GOLDEN / "tokenizer", output=tmp_path / "data", max_seq_length=48, dupe_factor=2
    )


def test_the_golden_data_folder_of_format_version_1_still_opens():
    manifest = read_manifest(GOLDEN / "shards")
    assert manifest.format_version == 1
    assert manifest.splits["train"].instances == read(GOLDEN / "shards").num_rows
    for counts in manifest.splits.values():
        for shard, digest in zip(counts.shards, counts.shard_sha256, strict=True):
            assert hashlib.sha256((GOLDEN / "shards" / shard).read_bytes()).hexdigest() == digest


def test_preparing_the_golden_text_gives_the_golden_rows(tmp_path):
    # A change that alters what users' seeds give must be a decision: then write the golden folder anew and say so.
    prepare(golden_options(tmp_path))
    for name in ("train", "validation"):
        assert read(tmp_path / "data", name).equals(read(GOLDEN / "shards", name))


def test_all_bad_options_are_listed_in_one_error(tmp_path):
    bad = PrepareOptions(
        input=[],
        tokenizer=tmp_path,
        output=tmp_path / "data",
        max_seq_length=4,
        language="English",
        mask_ratio=0.9,
        dupe_factor=0,
        seed=-1,
    )
    with pytest.raises(UserError) as caught:
        prepare(bad)
    for name in ("input", "tokenizer", "max_seq_length", "language", "mask_ratio", "dupe_factor", "seed"):
        assert f"--{name} is" in str(caught.value)


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_an_output_that_holds_something_else_is_left_alone(tmp_path, corpus, tokenizer, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("{}")
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"Choose an"):
        prepare(options(corpus, tokenizer, tmp_path / "data"))
    assert (tmp_path / "data" / "thesis.tex").read_text() == "years of work"


def test_the_tokenizer_folder_is_not_taken_for_an_earlier_output(tmp_path, corpus, tokenizer):
    copy = shutil.copytree(tokenizer, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="holds something else"):
        prepare(options(corpus, copy, copy))
    assert hashes(copy) == hashes(tokenizer)


def test_bad_input_leaves_an_earlier_output_as_it_was(tmp_path, corpus, tokenizer):
    prepare(options(corpus, tokenizer, tmp_path / "data"))
    before = hashes(tmp_path / "data")
    (tmp_path / "cut.txt.gz").write_bytes(BUNDLED.read_bytes()[:10_000])
    with pytest.raises(UserError, match=r"cut\.txt\.gz"):
        prepare(options(tmp_path / "cut.txt.gz", tokenizer, tmp_path / "data"))
    assert hashes(tmp_path / "data") == before
    prepare(options(corpus, tokenizer, tmp_path / "data", seed=3))
    assert hashes(tmp_path / "data") != before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "cut.txt.gz"}


def test_one_document_cannot_be_both_trained_on_and_held_out(tmp_path, tokenizer):
    (tmp_path / "one.txt").write_text("One sentence. Another one.\n")
    with pytest.raises(UserError, match="--validation_fraction"):
        prepare(options(tmp_path / "one.txt", tokenizer, tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "reads 1 to 1"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"splits": None}, "damaged"),
        ({"extra": 1}, "damaged"),
        ({"splits": {}}, "a train split"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_named(tmp_path, change, message):
    content = json.loads((GOLDEN / "shards" / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match="no data folder"):
        read_manifest(tmp_path / "nothing")


def test_a_missing_shard_is_named(tmp_path, data):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        read_manifest(copy)


def test_an_output_that_is_a_link_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    for seed in (0, 1):
        prepare(dataclasses.replace(golden_options(tmp_path), seed=seed))
    assert (tmp_path / "data").is_symlink()
    assert read_manifest(tmp_path / "disk" / "data").seed == 1
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").touch()
    with pytest.raises(UserError, match=r"data: cannot be written \(No space left on device\)"), replace_folder(tmp_path / "data"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["data", "data/old"]


def test_compiled_code_follows_a_change_in_another_file_and_needs_no_cache_folder(tmp_path):
    for package in ("data_prep", "tokenizer"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    code = (
        "from data_prep.masks import shuffled; from data_prep.random_streams import start;"
        "print(shuffled(start(0, 0, 0, 0, 0), 50).tolist(), sum(shuffled.stats.cache_hits.values()))"
    )

    def shuffle(**environment):
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, cwd=tmp_path, text=True, env=os.environ | environment).rsplit(" ", 1)

    order, _ = shuffle()
    assert shuffle() == [order, "1\n"], "the second run finds compiled code"
    streams = tmp_path / "data_prep" / "random_streams.py"
    changed = streams.read_text().replace("2.0**-53", "2.0**-54")
    assert changed != streams.read_text()
    streams.write_text(changed)
    assert shuffle()[0] != order, "a cache of code that calls what changed must not be used"
    cache = tmp_path / "data_prep" / "__pycache__"
    shutil.rmtree(cache)
    cache.touch()
    other_order, _ = shuffle(HOME="/dev/null", XDG_CACHE_HOME="/dev/null")
    assert other_order == shuffle(NUMBA_DISABLE_CACHING="1")[0] != order


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker to kill in Linux's /proc")
@pytest.mark.parametrize("killed", ["worker", "main"])
def test_after_a_kill_nothing_stands_under_the_final_name_and_no_process_lingers(tmp_path, tokenizer, killed):
    script = tmp_path / "script.py"
    chosen = dataclasses.asdict(options(BUNDLED, tokenizer, tmp_path / "out" / "data", workers=2, dupe_factor=20))
    script.write_text(
        "from pathlib import Path, PosixPath\n"
        "from data_prep.options import PrepareOptions\nfrom data_prep.prepare import prepare\n"
        "from tokenizer.errors import UserError\n"
        "if __name__ == '__main__':\n"
        f"    try:\n        prepare(PrepareOptions(**{chosen!r}))\n"
        "    except UserError as error:\n        print('USER ERROR', error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    worker = None
    while worker is None and process.poll() is None:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                worker = int(child)
        time.sleep(0.02)
    assert worker is not None
    os.kill(worker if killed == "worker" else process.pid, signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)  # ends when no process holds the pipe any more
    left = [path.name for path in (tmp_path / "out").iterdir()]
    if killed == "worker":
        assert "USER ERROR A worker process died" in printed
        assert left == []
    else:
        assert "data" not in left
    assert not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes(), "gone, or a zombie"
