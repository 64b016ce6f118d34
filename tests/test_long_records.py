"""Records of .jsonl over a megabyte: the text of json.loads, whatever the cut, and never held whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import long_records
from tokenizer.corpus import SECTION_CHARS, Faults, read_range, resolve_inputs, split_inputs
from tokenizer.errors import UserError
from tokenizer.plain_text import _text_of_record

pieces_of_text = st.lists(
    st.sampled_from(["a", "word ", "\n\n", '"', "\\", "\\u", "\u00e9", "你好", "😀", "\x1f", "{", '"text": "no"', "\u2028", "/"]),
    max_size=30,
).map("".join)
values = st.recursive(
    st.none() | st.integers() | pieces_of_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a", 'k"e\\y']), inner, max_size=3),
    max_leaves=6,
)


@given(
    text=pieces_of_text,
    before=st.dictionaries(st.sampled_from(["a", "b", 'q"', "long" * 9]), values, max_size=3),
    after=st.dictionaries(st.sampled_from(["c", "d", "text2"]), values, max_size=3),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, " "]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    long_string=st.integers(45, 90),  # keys are shorter
)
@settings(max_examples=500, deadline=None)
def test_any_cut_gives_the_text_of_json_loads(text, before, after, ascii_only, indent, cuts, long_string):
    separators = (f",{indent}", f":{indent}") if indent else None
    line = json.dumps(before | {"text": text} | after, ensure_ascii=ascii_only, separators=separators)
    places = sorted({0, len(line), *(cut for cut in cuts if cut < len(line))})
    fragments = (line[begin:end] for begin, end in zip(places, places[1:], strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_records, "LONG_STRING", long_string)
        found = long_records.read_long_record(fragments, "text", lambda record: _text_of_record(record, "text", Faults()))
        assert "".join(found) == text


def read(path: Path, faults: Faults | None = None) -> list[tuple[int, str]]:
    inputs = resolve_inputs([str(path)])
    parts = split_inputs(inputs, 700_000)
    return [(document.offset, document.text) for part in parts for document in read_range(inputs, part, faults=faults)]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_record_comes_in_the_sections_of_its_text(tmp_path, ascii_only):
    text = "".join(f"Sentence {number}: naïve 😀 “quoted” \\ text.\n" for number in range(80_000))
    records = [
        {"text": "before"},
        {"id": 1, "nested": {"text": "not this" * 200_000}, "text": text, "z": "x" * 3_000_000},
        {"text": "after"},
    ]
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read(tmp_path / "a.jsonl")
    offset = len(lines[0].encode()) + 1
    assert found[0] == (0, "before")
    assert found[-1] == (offset + len(lines[1].encode()) + 1, "after")
    assert "".join(section for place, section in found if place == offset) == text
    assert all(len(section) <= SECTION_CHARS for _, section in found)
    assert len(found) > 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "' + "long " * 400_000, "not JSON"),
        ('{"text": "' + "long " * 400_000 + '", "a": }', "not JSON"),
        ('{"text": "' + "long " * 400_000 + '\\x"}', "not JSON, or not text"),
        ('{"text": "' + "long " * 400_000 + '\\ud800 "}', "surrogate"),
        ('{"body": "' + "long " * 400_000 + '"}', r"no field `text`. There are: body"),
        ('{"' + "long " * 400_000 + '": 1}', r"no field `text`. There are: long"),
        ('["' + "long " * 400_000 + '"]', "found a list"),
        ('{"text": ["' + "long " * 400_000 + '"]}', "must be a string, found list"),
    ],
)
def test_a_bad_long_record_is_named_and_the_next_one_read(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n{line}\n{{"text": "three"}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{message}") as caught:
        read(tmp_path / "a.jsonl")
    assert len(str(caught.value)) < 1000
    faults = Faults("skip")
    texts = [text for _, text in read(tmp_path / "a.jsonl", faults)]
    assert texts[0] == "one"
    assert texts[-1] == "three"
    assert faults.num == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_memory_does_not_grow_with_the_length_of_a_record(tmp_path):
    script = (
        "import sys\nfrom tokenizer.corpus import read_documents\n"
        "size = sum(len(document.text) for document in read_documents([sys.argv[1]]))\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(size, peak.split()[1])"
    )
    peaks = []
    for size in (2, 30):
        path = tmp_path / f"{size}.jsonl"
        path.write_text(json.dumps({"text": "Wörter 😀 und mehr. " * (size * 50_000)}, ensure_ascii=False) + "\n", encoding="utf-8")
        command = [sys.executable, "-c", script, str(path)]
        num_chars, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert num_chars >= size * 50_000 * 19
        peaks.append(peak / 1000)
    # 28 MB more of text, of 4 bytes a character in memory: two copies of it would be 220 MB
    assert peaks[1] - peaks[0] < 25, peaks
