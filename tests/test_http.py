"""A corpus on an http server, on this machine: servers differ in what they can do, and none may make text vanish."""

import gzip
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pyarrow
import pyarrow.parquet
import pytest

from tokenizer.corpus import Faults, read_documents, read_range, resolve_inputs, split_inputs
from tokenizer.errors import UserError

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

ROWS = [f"Document {number}, with text." for number in range(400)]
TEXT = "\n\n".join(ROWS)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(is_head=True)

    def do_GET(self) -> None:
        self.answer(is_head=False)

    def answer(self, is_head: bool) -> None:
        content = self.server.files.get(self.path)
        if content is None or (self.server.fails and not is_head):
            self.send_error(404 if content is None else 503)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.has_ranges else None
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, len(content))) if asked else (0, len(content))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        if self.server.has_sizes:
            self.send_header("Content-Length", str(end - begin))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if not is_head:
            self.wfile.write(content[begin:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path) -> Iterator[ThreadingHTTPServer]:
    import fsspec

    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS}), tmp_path / "c.parquet", row_group_size=100)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {"/a.txt": TEXT.encode(), "/b.txt.gz": gzip.compress(TEXT.encode())}
    server.files["/c.parquet"] = (tmp_path / "c.parquet").read_bytes()
    server.has_ranges, server.has_sizes, server.fails = True, True, False
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    fsspec.filesystem("http").clear_instance_cache()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["a.txt", "b.txt.gz", "c.parquet"])
def test_a_file_on_a_server_is_read_in_ranges(server, name):
    inputs = resolve_inputs([f"{server.url}/{name}"])
    parts = split_inputs(inputs, 3000)
    assert len(parts) > 1 or name == "b.txt.gz"
    assert [document.text for part in parts for document in read_range(inputs, part)] == ROWS


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_a_server_that_gives_whole_files_only_is_named_and_no_text_vanishes(server, mode):
    server.has_ranges = False
    inputs = resolve_inputs([f"{server.url}/a.txt"])
    documents = (document for part in split_inputs(inputs, 3000) for document in read_range(inputs, part, faults=Faults(mode)))
    with pytest.raises(UserError, match=r"/a\.txt: cannot be read .*gives whole files only; fetch the file first"):
        list(documents)
    assert [document.text for document in read_documents([f"{server.url}/a.txt"])] == ROWS, "all of it at once can be read"


def test_a_server_that_tells_no_sizes_is_named(server):
    server.has_ranges = server.has_sizes = False
    with pytest.raises(UserError, match=r"/a\.txt: its server does not tell its size\. Fetch the file first"):
        list(read_documents([f"{server.url}/a.txt"]))


@pytest.mark.parametrize("mode", ["fail", "skip"])
@pytest.mark.parametrize("name", ["a.txt", "b.txt.gz", "c.parquet"])
def test_a_failure_of_the_server_is_no_fault_of_the_file(server, name, mode):
    inputs = resolve_inputs([f"{server.url}/{name}"])
    part = split_inputs(inputs, 3000)[-1]
    server.fails = True
    faults = Faults(mode)
    with pytest.raises(UserError, match=rf"/{re.escape(name)}: cannot be read .*503.*start again"):
        list(read_range(inputs, part, faults=faults))
    assert faults.num == 0


def test_a_parquet_file_whose_server_fails_while_the_work_is_shared_out_is_read_whole(server):
    inputs = resolve_inputs([f"{server.url}/c.parquet"])
    server.fails = True
    (part,) = split_inputs(inputs, 3000)
    server.fails = False
    assert [document.text for document in read_range(inputs, part)] == ROWS
