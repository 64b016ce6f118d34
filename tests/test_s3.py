"""A corpus on S3, held by moto's server on this machine: the same documents as from local files."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from prepared import BUNDLED, hashes

from data_prep.documents import PARTS
from data_prep.options import PrepareOptions
from data_prep.prepare import prepare
from data_prep.schema import read_manifest
from pretrain.data import open_split
from tokenizer.corpus import Document, Faults, read_documents, read_range, resolve_inputs, split_inputs
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files

pytest.importorskip("moto.server", reason="moto's server is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

TEXTS = [f"Document {number}: naïve 😀 text.\nIts second line." + " More of it." * (number % 50) for number in range(500)]


@pytest.fixture(scope="module")
def server() -> Iterator[s3fs.S3FileSystem]:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield s3fs.S3FileSystem()
        s3fs.S3FileSystem.clear_instance_cache()
    moto.stop()


@pytest.fixture(scope="module")
def corpus(server, tmp_path_factory) -> Path:
    """The folder that lies on S3 as s3://corpus/texts, too."""
    folder = tmp_path_factory.mktemp("texts")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "plain.txt").write_text("\ufeff" + "\n \u3000\n".join(TEXTS) + "\n", encoding="utf-8")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (folder / "deep" / "rows.jsonl").write_text(rows)
    (folder / "empty.txt").write_text("")
    (folder / "read.me").write_text("of no known type")
    (folder / ".hidden.txt").write_text("hidden")
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "table.parquet", row_group_size=70)
    server.mkdir("corpus")
    server.put(str(folder), "corpus/texts", recursive=True)
    return folder


def identities(documents: list[Document]) -> list[tuple[int, int, str, int]]:
    return [(document.input_index, document.offset, document.text, document.section) for document in documents]


@pytest.mark.parametrize("range_bytes", [7_001, 1 << 30])
def test_a_folder_on_s3_gives_the_documents_of_the_local_folder(corpus, range_bytes):
    inputs, local = resolve_inputs(["s3://corpus/texts"]), resolve_inputs([str(corpus)])
    assert [item.name for item in inputs] == [item.name for item in local]
    assert inputs[0].source == "s3://corpus/texts/deep/er/rows.jsonl.gz"
    ranges = split_inputs(inputs, range_bytes)
    assert ranges == split_inputs(local, range_bytes)
    documents = [document for part in ranges for document in read_range(inputs, part)]
    assert identities(documents) == identities(list(read_documents([str(corpus)])))
    assert len(documents) == 4 * len(TEXTS)
    assert documents[0].location == "s3://corpus/texts/deep/er/rows.jsonl.gz byte 0"


@pytest.mark.parametrize("pattern", ["*.txt", "**/*.gz", "**", "de*", "plain.txt", "p*/*", "deep/"])
def test_globs_on_s3_are_those_of_local_files(corpus, pattern):
    try:
        expected = [item.name for item in resolve_inputs([f"{corpus}/{pattern}"])]
    except UserError:
        with pytest.raises(UserError, match="no file of a known type"):
            resolve_inputs([f"s3://corpus/texts/{pattern}"])
    else:
        assert [item.name for item in resolve_inputs([f"s3://corpus/texts/{pattern}"])] == expected


def test_labels_and_local_files_go_together_with_urls(corpus):
    inputs = resolve_inputs(["web=s3://corpus/texts/*.txt", f"rows={corpus}/deep/rows.jsonl"])
    assert [(item.name, item.label) for item in inputs] == [("empty.txt", "web"), ("plain.txt", "web"), ("rows.jsonl", "rows")]


def test_bad_input_on_s3_is_named_or_left_out(corpus, server):
    server.pipe("corpus/bad/a.txt", b"good\n\n\xff\n")
    server.pipe("corpus/bad/b.txt.gz", gzip.compress(b"good\n" * 1000)[:-9])
    with pytest.raises(UserError, match=r"^s3://corpus/bad/a\.txt:3: not UTF-8"):
        list(read_documents(["s3://corpus/bad"]))
    faults = Faults("skip")
    inputs = resolve_inputs(["s3://corpus/bad", "s3://corpus/none", "s3://nobucket/a.txt"], faults=faults)
    for part in split_inputs(inputs, 5):
        list(read_range(inputs, part, faults=faults))
    assert [fault["location"] for fault in faults.listed] == ["none", "a.txt", "a.txt byte 6", "b.txt.gz"]


def test_a_store_that_cannot_be_written_is_named(server, tokenizer):
    with pytest.raises(UserError, match="s3://nosuchbucket/data: The specified bucket does not exist"):
        prepare(PrepareOptions(input=[str(BUNDLED)], tokenizer=tokenizer, output="s3://nosuchbucket/data", max_seq_length=64))


@pytest.mark.parametrize("changes", [{}, {"workers": 2, "dedup": "exact", "weights": ["web=1"]}])
def test_prepare_reads_from_s3_and_writes_to_it(server, tokenizer, tmp_path, changes):
    text = gzip.decompress(BUNDLED.read_bytes())
    bucket = f"prepared-{len(changes)}"
    server.mkdir(bucket)
    server.pipe(f"{bucket}/speeches/a.txt", text)
    (tmp_path / "a.txt").write_bytes(text)
    sizes = {"max_seq_length": 64, "dupe_factor": 1, "task_size": 1_000_000, "shard_size": 500_000}
    chosen = {"tokenizer": tokenizer} | sizes | changes
    corpus, output = f"web=s3://{bucket}/speeches", f"s3://{bucket}/data"
    manifest = prepare(PrepareOptions(input=[corpus], output=output, **chosen))
    local = {"input": [f"web={tmp_path / 'a.txt'}"], "output": str(tmp_path / "data"), "workers": 1}
    assert manifest == prepare(PrepareOptions(**chosen | local))
    server.get(output, str(tmp_path / "fetched"), recursive=True)
    assert hashes(tmp_path / "fetched") == hashes(tmp_path / "data")
    assert (tmp_path / "fetched" / "tokenizer" / "tokenizer.json").exists()
    record = json.loads((tmp_path / "fetched" / "provenance.json").read_text())
    assert [session["exit_code"] for session in record["sessions"]] == [0]
    (entry,) = record["inputs"]
    assert (entry["path"], entry["size"], entry["sha256"]) == (f"s3://{bucket}/speeches/a.txt", len(text), None)
    assert hashlib.md5(text).hexdigest() in entry["store_mark"]  # the ETag of an upload in one part
    assert record["parents"][0]["provenance"]["verb"] == "tokenizer"
    assert record["outputs"][0]["sha256"] == sha256_of_files(tmp_path / "fetched" / "manifest.json")
    assert len(open_split(tmp_path / "fetched", read_manifest(tmp_path / "fetched"), "train"))
    assert not server.exists(f"{output}/{PARTS}")
    assert prepare(PrepareOptions(input=[corpus], output=output, **chosen)) == manifest
    with pytest.raises(UserError, match="--seed is 1, there it is 0"):
        prepare(PrepareOptions(input=[corpus], output=output, seed=1, **chosen))


@pytest.mark.parametrize("url", ["gs://bucket/a.txt", "nosuch://bucket/a.txt"])
def test_a_missing_driver_is_named(url):
    expected = "unknown|Protocol not known" if url.startswith("nosuch") else "gcsfs.*pip"
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        pass
    else:
        if url.startswith("gs"):
            pytest.skip("gcsfs is installed")
    with pytest.raises(UserError, match=expected):
        resolve_inputs([url])
