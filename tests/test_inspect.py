"""`albert inspect`: the text and its masks can be read back, the numbers are those of a plain recount, and nothing in the corpus
can do more than be shown. The last of `albert prepare`, too: the table, its JSON and the warnings."""

import dataclasses
import html
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from inspected import MAX_SEQ_LENGTH, Made, Page, count, write_hostile_data, write_shard

from data_prep.charts import histogram, nice_ticks
from data_prep.hazards import warnings
from data_prep.inspect import inspect
from data_prep.inspect_options import InspectOptions
from data_prep.instances import load_pieces, read_columns, sample_instances
from data_prep.schema import FORMAT_VERSION, Manifest, read_manifest, write_manifest
from data_prep.statistics import figures, gather_statistics, most_frequent
from data_prep.summary import print_summary, split_figures, write_summary
from launch.cli import parse
from tokenizer.errors import UserError
from tokenizer.printable import printable
from tokenizer.special_tokens import CLS_ID, MASK_ID, SEP_ID, UNK_ID


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return write_hostile_data(tmp_path_factory.mktemp("inspect") / "data")


def copy_with(made: Made, folder: Path, **changes: object) -> Path:
    """Another folder with the same shards and tokenizer, and fields of the manifest replaced."""
    folder.mkdir()
    for path in made.folder.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(made.folder)).parent.mkdir(exist_ok=True)
            (folder / path.relative_to(made.folder)).write_bytes(path.read_bytes())
    write_manifest(folder, dataclasses.replace(read_manifest(made.folder), **changes))
    return folder


def originals_of(row: dict) -> list[int]:
    ids = list(row["input_ids"])
    for position, label in zip(row["mlm_positions"], row["mlm_labels"], strict=True):
        ids[position] = label
    return ids


def text_of(row: dict, pieces: list[str]) -> str:
    """What the terminal shows, marks resolved."""
    return "".join(
        f" {pieces[piece]} " if piece in (CLS_ID, SEP_ID) else printable(pieces[piece].replace("▁", " "))
        for piece in originals_of(row)
    )


def show(capsys, folder: Path, **options: object) -> str:
    inspect(InspectOptions(folder=folder, **options))
    return capsys.readouterr().out


def shown_rows(output: str) -> dict[int, str]:
    """Row number -> its line, from output that is not a terminal's."""
    return {int(row.replace(",", "")): line for row, line in re.findall(r"^train row ([\d,]+):.*\n(.*)$", output, re.MULTILINE)}


def test_the_terminal_shows_every_row_so_that_text_and_masks_can_be_read_back(made, capsys):
    output = show(capsys, made.folder, num=1000)
    shown = shown_rows(output)
    assert list(shown) == list(range(len(made.rows)))
    for number, row in enumerate(made.rows):
        restored = re.sub(r"\{(.+?)→(.+?)\}(?!→)", r"\1", shown[number].replace("▁", ""))
        if not set("{}→") & set("".join(made.pieces[piece] for piece in originals_of(row))):
            assert restored.split() == text_of(row, made.pieces).split()
        marks = [
            f"{{{printable(made.pieces[label].removeprefix('▁'))}→{printable(made.pieces[row['input_ids'][position]].removeprefix('▁'))}}}"
            for position, label in zip(row["mlm_positions"], row["mlm_labels"], strict=True)
        ]
        rest = shown[number]
        for mark in marks:
            assert mark in rest
            rest = rest[rest.index(mark) + len(mark) :]
    headings = re.findall(r"^train row [\d,]+: (.+?), (\d+) pieces, (\d+) to predict$", output, re.MULTILINE)
    names = {0: "in order", 1: "swapped", -100: "no order label"}
    assert headings == [
        (names[row["sentence_order_label"]], str(len(row["input_ids"])), str(len(row["mlm_labels"]))) for row in made.rows
    ]


def test_a_seed_draws_the_same_rows_again_from_all_shards_and_another_draws_others(made, capsys):
    first = shown_rows(show(capsys, made.folder, num=40, seed=1))
    assert first == shown_rows(show(capsys, made.folder, num=40, seed=1))
    assert first.keys() != shown_rows(show(capsys, made.folder, num=40, seed=2)).keys()
    assert len(first) == 40
    assert min(first) < 200 <= max(first)
    assert "validation row " in show(capsys, made.folder, split="validation", num=1)
    assert " row " not in show(capsys, made.folder, num=0).split("Data in")[0].replace("rows of", "")


def test_segments_have_two_colours_and_each_mark_its_own(made, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = show(capsys, made.folder, num=60, seed=1)
    codes = {name: re.escape(f"\x1b[{code}m") for name, code in {"A": "36", "B": "35", "mask": "1;31", "random": "1;33"}.items()}
    for name in ("A", "B"):
        assert len(re.findall(codes[name], output)) > 60
    assert re.search(codes["mask"] + r"\{[^{}]+→\[MASK\]\}", output)
    assert re.search(codes["random"] + r"\{[^{}]+→(?!\[MASK\])[^{}]+\}", output)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = show(capsys, made.folder, num=60, seed=1)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)


def test_nothing_in_the_corpus_is_interpreted_by_the_terminal(made, capsys):
    output = show(capsys, made.folder, num=1000)
    assert "\x1b" not in output
    assert "\u202e" not in output
    for expected in ("[red]", "\\x1b[31m", "\\u202eevil", "<script>alert(1)</script>"):
        assert expected in output


@pytest.mark.parametrize(
    ("text", "expected"), [("a\x1b[0m\tb", "a\\x1b[0m\\tb"), ("می\u200cخواهم", "می\u200cخواهم"), ("\udc80", "\\udc80")]
)
def test_controls_are_spelt_out_and_joiners_inside_words_stay(text, expected):
    assert printable(text) == expected


def recount(made: Made, num_rows: int) -> dict[str, Counter]:
    """The statistics by plain loops; words as the pieces were made, not as the vocabulary tells them."""
    found = {name: Counter() for name in ("lengths", "runs", "masked", "unknown", "labels", "fates", "pieces")}
    for row, word_of in zip(made.rows[:num_rows], made.words, strict=False):
        length, targets = len(row["input_ids"]), row["mlm_positions"]
        found["lengths"][length] += 1
        found["masked"][round(100 * len(targets) / length)] += 1
        found["labels"][row["sentence_order_label"]] += 1
        originals = originals_of(row)
        num_unknown = originals.count(UNK_ID)
        found["unknown"][(100 * num_unknown + length - 1) // length] += 1
        found["pieces"].update(piece for piece in originals if piece not in (CLS_ID, SEP_ID))
        for position in targets:
            there = row["input_ids"][position]
            found["fates"]["mask" if there == MASK_ID else "kept" if there == originals[position] else "random"] += 1
        breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(targets)) if b != a + 1), len(targets)]
        for begin, end in pairwise(breaks):
            run = targets[begin:end]  # <unk> is a word of its own, whatever word it was a part of
            num_words = 1 + sum(word_of[a] != word_of[b] or UNK_ID in (originals[a], originals[b]) for a, b in pairwise(run))
            found["runs"][num_words] += 1
    return found


@pytest.mark.parametrize("max_rows", [10_000, 200, 137, 1])
def test_statistics_are_those_of_a_plain_recount_of_the_first_rows(made, max_rows):
    manifest = read_manifest(made.folder)
    batches = read_columns(made.folder, manifest, "train", max_rows)
    found = gather_statistics(batches, made.pieces, MAX_SEQ_LENGTH, "ngram")
    expected = recount(made, max_rows)

    def counter(histogram):
        return {value: int(number) for value, number in enumerate(histogram) if number}

    assert found.num_rows == min(max_rows, len(made.rows))
    assert counter(found.lengths) == expected["lengths"]
    assert counter(found.masked_percent) == expected["masked"]
    assert counter(found.unknown_percent) == expected["unknown"]
    assert counter(found.piece_counts) == expected["pieces"]
    assert Counter(found.order_labels) == expected["labels"]
    assert Counter(found.fates) == expected["fates"]
    assert counter(found.runs) == expected["runs"]
    assert max_rows == 1 or set(expected["runs"]) >= {1, 2, 3}
    assert most_frequent(found, 3) == sorted(expected["pieces"].items(), key=lambda item: (-item[1], item[0]))[:3]
    shown = {figure.name: figure.value for figure in figures(found)}
    lengths = sorted(expected["lengths"].elements())
    assert shown["length_of_50%_of_rows_at_most"] == lengths[(len(lengths) + 1) // 2 - 1]


def test_under_piece_masking_each_piece_is_a_word(made):
    batches = read_columns(made.folder, read_manifest(made.folder), "train", 300)
    found = gather_statistics(batches, made.pieces, MAX_SEQ_LENGTH, "piece")
    assert int(found.runs @ np.arange(len(found.runs))) == sum(len(row["mlm_labels"]) for row in made.rows[:300])


def test_the_page_is_self_contained_and_corpus_names_and_options_are_only_text_in_it(made, tmp_path, capsys):
    output = show(capsys, made.folder, html=tmp_path / "page.html", num=400)
    assert f"wrote {tmp_path / 'page.html'}" in output
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    tags = Counter(tag for tag, _ in page.elements)
    assert not set(tags) & {"script", "link", "img", "iframe", "object", "embed", "form", "b", "i>wiki", "u"}
    attributes = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "srcset", "action")}
    assert not re.search(r"https?://|@import|url\(", text)
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in page.elements
    shown = "".join(page.texts)
    for expected in (
        "<script>alert(1)</script>",
        "[red]",
        "\\x1b[31m",
        "\\u202eevil",
        "<i>wiki",
        "<b>&\\x1b[2J",
        "a\\x1b<u>.txt:3",
    ):
        assert expected in shown
    assert not {char for char in text if not char.isprintable()} - {"\n"}
    assert sum("instance" in attrs.get("class", "") for _, attrs in page.elements) == len(made.rows)


def test_the_page_shows_the_histograms_with_all_rows_in_them(made, tmp_path, capsys):
    show(capsys, made.folder, html=tmp_path / "page.html", num=2)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    shown = " ".join(page.texts)
    for heading in ["Instance length", "n-gram length", "Masked share", "Order", "Unknown rate", "Documents per source"] + [
        "Duplicates and documents left out",
        "Most frequent pieces",
        "Options",
        "Faults",
        "Instances of train, drawn at random",
    ]:
        assert heading in shown
    assert tuple(html.unescape(title) for title in page.titles[:1]) == (f"Data in {made.folder}",)
    tips = [re.fullmatch(r"([\d,]+)(?: to [\d,]+)? (\S+): ([\d,]+) (\w+) \(.*\)", title) for title in page.titles[1:]]
    sums = Counter()
    for tip in tips:
        sums[tip[2], tip[4]] += int(tip[3].replace(",", ""))
    num_runs = sum(recount(made, 10_000)["runs"].values())
    assert sums == {("pieces", "rows"): len(made.rows), ("words", "runs"): num_runs, ("%", "rows"): len(made.rows)}
    assert "1 input(s), line(s) or record(s) could not be read" in shown


def test_masked_pieces_of_a_word_stand_together_and_others_alone(made, tmp_path, capsys):
    show(capsys, made.folder, html=tmp_path / "page.html", num=1000)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    times = [int(number or 1) for number in re.findall(r'<rt dir="auto">\[MASK\](?:×(\d+))?</rt>', page)]
    assert sum(times) == recount(made, 10_000)["fates"]["mask"]
    assert max(times) > 1


@pytest.mark.parametrize(("counts", "num_bars"), [([0, 5, 5], 2), ([0] * 100 + [7], 50), ([0, 0, 0], 2), (list(range(513)), 64)])
def test_a_histogram_covers_every_value_once_and_ends_at_the_last(counts, num_bars):
    drawing = histogram(np.array(counts), "pieces", "rows", first=1)
    spans = re.findall(r"<title>([\d,]+)(?: to ([\d,]+))? pieces", drawing)
    values = [value for low, high in spans for value in range(int(low), int(high or low) + 1)]
    assert values == list(range(1, len(counts)))
    assert len(spans) == num_bars


@pytest.mark.parametrize("top", [0.003, 0.7, 1, 9.99, 10, 37, 100, 511, 65_535])
def test_ticks_reach_the_top_in_round_steps(top):
    ticks = nice_ticks(top)
    assert ticks[-2] < top <= ticks[-1]
    assert len(ticks) <= 6
    assert f"{ticks[1]:e}"[0] in "125"


def remove_shard(folder):
    (folder / "train-00001.arrow").unlink()


def truncate_shard(folder):
    content = (folder / "train-00001.arrow").read_bytes()
    (folder / "train-00001.arrow").write_bytes(content[: len(content) // 2])


def shorten_shard(folder):
    rows = pa.ipc.open_stream(folder / "train-00001.arrow").read_all().to_pylist()
    write_shard(folder / "train-00001.arrow", rows[:-1], read_manifest(folder).vocab_size)


def shard_with_a_piece_out_of_range(folder):
    rows = pa.ipc.open_stream(folder / "train-00001.arrow").read_all().to_pylist()
    rows[3]["input_ids"][2] = 60_000
    write_shard(folder / "train-00001.arrow", rows, read_manifest(folder).vocab_size)


def shard_with_a_position_out_of_range(folder):
    rows = pa.ipc.open_stream(folder / "train-00001.arrow").read_all().to_pylist()
    rows[3]["mlm_positions"][-1] = 4_000
    write_shard(folder / "train-00001.arrow", rows, read_manifest(folder).vocab_size)


def shard_of_other_columns(folder):
    table = pa.table({"text": ["a"]})
    with pa.ipc.new_stream(folder / "train-00000.arrow", table.schema) as writer:
        writer.write_table(table)


def empty_shard(folder):
    (folder / "train-00000.arrow").write_bytes(b"")


def damage_manifest(folder):
    (folder / "manifest.json").write_text('{"format_version": 2, "splits": {')


def contradict_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shard_rows"] = [1, 2]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change_tokenizer(folder):
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")


def remove_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_shard, "missing: train-00001.arrow"),
        (truncate_shard, r"train-00001.arrow: cannot be read"),
        (shorten_shard, r"train-00001.arrow: expected the 101 rows of the manifest, but found 100"),
        (shard_with_a_piece_out_of_range, "train-00001.arrow: damaged"),
        (shard_with_a_position_out_of_range, "train-00001.arrow: damaged"),
        (shard_of_other_columns, "train-00000.arrow: expected the columns"),
        (empty_shard, "train-00000.arrow: cannot be read"),
        (damage_manifest, "manifest.json: expected the manifest"),
        (contradict_manifest, "the manifest is damaged"),
        (change_tokenizer, "not the tokenizer that these shards were made with"),
        (remove_tokenizer, "tokenizer.json: not there"),
    ],
)
def test_damage_is_named_and_no_page_is_written(made, tmp_path, damage, expected):
    folder = copy_with(made, tmp_path / "data")
    damage(folder)
    with pytest.raises(UserError, match=expected):
        inspect(InspectOptions(folder=folder, html=tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_a_flipped_bit_of_a_shard_is_damage_or_other_numbers_and_no_crash(made, tmp_path):
    rows, path = made.rows[:2], tmp_path / "train-00000.arrow"
    manifest = dataclasses.replace(read_manifest(made.folder), splits={"train": count(rows, [path.name], [2])})
    write_shard(path, rows, len(made.pieces))
    content = path.read_bytes()
    num_damaged = 0
    for bit in range(0, 8 * len(content), 7):
        path.write_bytes(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
        try:
            list(read_columns(tmp_path, manifest, "train", 2))
        except UserError:
            num_damaged += 1
    assert num_damaged > 500


def test_what_is_no_data_folder_or_no_place_for_a_page_is_refused_with_a_way_out(made, tmp_path):
    with pytest.raises(UserError, match=r"manifest.json: not found.*albert prepare"):
        inspect(InspectOptions(folder=tmp_path))
    with pytest.raises(UserError, match="has train and validation"):
        inspect(InspectOptions(folder=made.folder, split="test"))
    for html_path in (tmp_path, tmp_path / "absent" / "page.html", Path("/dev/null")):
        with pytest.raises(UserError, match=f"--html is .*{html_path.name}.*, but must be a file"):
            inspect(InspectOptions(folder=made.folder, html=html_path))
    with pytest.raises(UserError, match=r"(?s)--num is -1.*--seed is -2"):
        inspect(InspectOptions(folder=made.folder, num=-1, seed=-2))
    too_long = tmp_path / ("x" * 250)
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        inspect(InspectOptions(folder=made.folder, html=too_long))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_page_behind_a_link_is_replaced(made, tmp_path, capsys):
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to("page.html")
    show(capsys, made.folder, html=tmp_path / "link.html", num=1)
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "page.html"]


def test_a_folder_of_the_format_before_is_shown_without_the_counts_it_lacks(made, tmp_path, capsys):
    folder = copy_with(made, tmp_path / "data")
    content = json.loads((folder / "manifest.json").read_text())
    for name in ("sources", "duplicate_documents", "dropped", "changed", "num_letters", "num_vanished", "num_faults", "faults"):
        del content[name]
    for counts in content["splits"].values():
        del counts["unknown_pieces"], counts["nearly_empty_instances"]
    (folder / "manifest.json").write_text(json.dumps(content | {"format_version": FORMAT_VERSION - 1}))
    output = show(capsys, folder, html=tmp_path / "page.html", num=1)
    table = output.split("Data in")[1]
    assert "nearly empty" not in table
    assert "duplicate" not in table
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Documents per split" in page
    assert "Duplicates and documents left out" not in page


def test_the_command_takes_the_folder_bare_anywhere_among_its_options(made, albert, tokenizer, tmp_path):
    assert "train row" in albert("inspect", "--num", 1, made.folder, "--seed", 3).stdout
    assert "required: folder" in albert("inspect", code=2).stderr
    assert "no data folder" in albert("inspect", tmp_path / "absent", code=2).stderr
    error = albert("inspect", tokenizer, code=2).stderr
    assert "names no splits" in error
    assert "Delete" not in error
    options = parse("inspect", InspectOptions, [str(made.folder), "--split", "validation", "--html", "x.html"])
    assert options == InspectOptions(folder=made.folder, split="validation", html=Path("x.html"))


GOOD = {
    "instances": 10_000,
    "documents": 500,
    "text_pieces": 500_000,
    "pieces": 10_000 * 80,
    "masked_pieces": 10_000 * 12,
    "in_order_instances": 5_000,
    "swapped_instances": 5_000,
    "unknown_pieces": 5_000,
    "nearly_empty_instances": 1_000,
}
"""Counts at the bounds: one unknown piece in a hundred, one nearly empty row in ten."""


def manifest_with(made: Made, counts: dict[str, int], **fields: object) -> Manifest:
    manifest = read_manifest(made.folder)
    train = dataclasses.replace(manifest.splits["train"], **GOOD | counts)
    fields = {"num_faults": 0, "faults": [], "duplicate_documents": 5} | fields
    return dataclasses.replace(manifest, splits={"train": train}, **fields)


@pytest.mark.parametrize(
    ("counts", "fields", "expected"),
    [
        ({}, {}, None),
        ({}, {"dropped": {"languages": 500, "min_chars": 9_000}}, None),
        ({}, {"dropped": {"languages": 501}}, r"left out 501 documents and kept 500.*--language_threshold"),
        ({}, {"duplicate_documents": 6}, r"6 of 500 documents \(1.2%\).*--dedup"),
        ({"unknown_pieces": 5_100}, {}, r"1.0% of the text pieces are unknown.*albert tokenizer"),
        ({"swapped_instances": 5_250, "in_order_instances": 4_750}, {}, None),
        ({"swapped_instances": 5_251, "in_order_instances": 4_749}, {}, r"52.5% of the instances.*swapped"),
        ({"swapped_instances": 4_000, "in_order_instances": 6_000}, {"options": {"pair_objective": "nsp"}}, None),
        ({"swapped_instances": 0, "in_order_instances": 0}, {}, None),
        ({"masked_pieces": 79_999}, {}, r"Only 10.0% of the pieces.*--max_predictions"),
        ({"nearly_empty_instances": 1_001}, {}, r"10.0% of the instances fill less than a sixteenth.*--min_chars"),
        ({"pieces": 383_999, "masked_pieces": 70_000}, {}, r"fill 40.0% of 96 pieces.*--max_seq_length"),
        ({"pieces": 300_000, "masked_pieces": 70_000}, {}, r"fill 31.2% of 96 pieces"),
        (
            {"instances": 999, "pieces": 79_920, "nearly_empty_instances": 0, "swapped_instances": 499, "in_order_instances": 500},
            {},
            "holds 999 instance.*more text",
        ),
        ({}, {"num_faults": 2, "faults": [{"location": "a.txt:3", "reason": "x"}]}, r"2 input.*a.txt:3.*manifest.json"),
    ],
)
def test_each_hazard_alone_is_told_with_its_number_and_what_to_do(made, counts, fields, expected):
    found = warnings(manifest_with(made, counts, **fields))
    assert len(found) == (expected is not None)
    if expected:
        assert re.search(expected, found[0])


def test_the_summary_prints_and_writes_the_same_numbers(made, tmp_path, capsys):
    manifest = manifest_with(made, {"unknown_pieces": 7_500, "masked_pieces": 100_000}, num_letters=1000, num_vanished=2)
    sizes = {"train-00000.arrow": 1_500_000, "train-00001.arrow": 500_000}
    found = warnings(manifest)
    print_summary(manifest, "s3://bucket/[bold]", found, 12.5, sizes)
    table = capsys.readouterr().out
    write_summary(tmp_path / "summary.json", manifest, found, 12.5, sizes)
    written = json.loads((tmp_path / "summary.json").read_text())
    train = written["splits"]["train"]
    assert train["unknown_share_of_text_pieces"] == 0.015
    assert train["pieces_to_predict"] == 0.125
    assert train["bytes_on_disk"] == 2_000_000
    assert train["bytes_per_piece"] == 2.5
    assert written["text_pieces_a_second"] == 40_000
    assert written["letters_lost_in_normalisation"] == 0.002
    assert written["documents_dropped_by_min_chars"] == 4
    assert written["documents_changed_by_fix_unicode"] == 7
    assert written["sources"]["books"] == dataclasses.asdict(manifest.sources["books"])
    assert written["warnings"] == found
    assert len(found) == 1
    assert "s3://bucket/[bold]" in table
    assert f"warning: {found[0]}" in table.replace("\n", " ")
    rows = {cells[1]: cells[2] for line in table.splitlines() if len(cells := re.split(r" *[│┃] *", line)) > 3}
    for figure in split_figures(manifest, manifest.splits["train"], sizes):
        assert rows[figure.label] == str(figure)
    assert rows["bytes per piece"] == "2.50"
    assert rows["seconds"] == "12.5"


def test_the_summary_of_a_remote_folder_needs_no_sizes(made, tmp_path):
    write_summary(tmp_path / "summary.json", read_manifest(made.folder))
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["seconds"] is None
    assert written["splits"]["validation"]["bytes_per_piece"] is None


def test_instances_hold_what_the_rows_hold(made):
    manifest = read_manifest(made.folder)
    pieces = load_pieces(made.folder, manifest)
    assert pieces == made.pieces
    instances = sample_instances(made.folder, manifest, "train", pieces, 1000, np.random.default_rng(0))
    for instance, row in zip(instances, made.rows, strict=True):
        assert instance.order_label == row["sentence_order_label"]
        assert [number for number, token in enumerate(instance.tokens) if token.fate] == row["mlm_positions"]
        second = [number for number, token in enumerate(instance.tokens) if token.segment == "B"]
        assert second[:1] == ([row["segment_b_start"]] if row["segment_b_start"] else [])
        assert [token.segment for token in instance.tokens].count("") == (3 if row["segment_b_start"] else 2)
