"""`--weights`: each named input gets its share of the training text, in whole documents."""

import gzip
from collections import Counter

import numpy as np
import pytest
from prepared import BUNDLED, hashes, options, read, restored

from data_prep.batches import times
from data_prep.options import PrepareOptions
from data_prep.prepare import prepare
from tokenizer.errors import UserError
from tokenizer.special_tokens import SEP_ID, UNK_ID


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The bundled corpus, its addresses cut into documents of ten lines: the first quarter, and the rest."""
    folder = tmp_path_factory.mktemp("sources")
    lines = [line for line in gzip.decompress(BUNDLED.read_bytes()).decode().split("\n") if line]
    documents = ["\n".join(lines[begin : begin + 10]) for begin in range(0, len(lines), 10)]
    border = len(documents) // 4
    (folder / "early.txt").write_text("\n\n".join(documents[:border]) + "\n", encoding="utf-8")
    (folder / "late.txt").write_text("\n\n".join(documents[border:]) + "\n", encoding="utf-8")
    return folder


def mixed(sources, tokenizer, output, weights, **changes):
    both = [f"early={sources / 'early.txt'}", f"late={sources / 'late.txt'}"]
    chosen = {"max_seq_length": 64, "dupe_factor": 1, "weights": weights} | changes
    return prepare(PrepareOptions(input=both, tokenizer=tokenizer, output=str(output), **chosen))


def test_weights_give_each_source_its_share_in_whole_documents(tmp_path, sources, tokenizer):
    plain = mixed(sources, tokenizer, tmp_path / "plain", [])
    mix = mixed(sources, tokenizer, tmp_path / "mix", ["early=0.6", "late=0.4"])
    held_out = [content["splits"]["validation"] for content in (plain, mix)]
    assert held_out[0]["shard_sha256"] == held_out[1]["shard_sha256"], "held-out text is taken once, whatever the weights"
    assert plain["sources"]["early"]["repeats"] == 1
    early, late = mix["sources"]["early"], mix["sources"]["late"]
    assert early["text_pieces"] == plain["sources"]["early"]["text_pieces"]
    # The text that training sees, by where it comes from.
    expected = {label: source["text_pieces"] * source["repeats"] for label, source in mix["sources"].items()}
    assert abs(expected["early"] / sum(expected.values()) - 0.6) < 0.01  # weights are of characters, this counts pieces
    assert early["repeats"] > 2 > 1 > late["repeats"]
    # Rows of the first copies stand in both folders; how often do they in the mix, by where they come from?
    once, rows = (Counter(map(tuple, restored(read(tmp_path / name)))) for name in ("plain", "mix"))
    alone = prepare(options(sources / "early.txt", tokenizer, tmp_path / "alone", dupe_factor=1))
    early_rows = set(map(tuple, restored(read(tmp_path / "alone"))))
    assert alone["splits"]["train"]["instances"] > 300
    times_early = [rows[row] for row in once if row in early_rows]
    # A row of copy 0 comes back in further copies by chance alone, so what counts is that it is there at all.
    assert np.mean(np.array(times_early) > 0) == 1
    documents = sum(mix["splits"][name]["documents"] for name in ("train", "validation"))
    taken = early["documents_taken"] + late["documents_taken"]
    assert early["documents_taken"] / early["documents"] == pytest.approx(early["repeats"], rel=0.1)
    assert late["documents_taken"] / late["documents"] == pytest.approx(late["repeats"], rel=0.1)
    assert taken < documents * 1.2
    # The entropy is that of the text as training takes it, not as it lies there.
    pieces = [piece for row in restored(read(tmp_path / "mix")) for piece in row if piece > SEP_ID or piece == UNK_ID]
    share = np.unique(pieces, return_counts=True)[1] / len(pieces)
    assert mix["splits"]["train"]["unigram_entropy"] == pytest.approx(-np.sum(share * np.log(share)), rel=1e-9)
    assert mix["splits"]["train"]["unigram_entropy"] != pytest.approx(plain["splits"]["train"]["unigram_entropy"], rel=1e-6)


def test_a_source_that_is_repeated_many_times_is_paired_some_copies_at_a_time(tmp_path, sources, tokenizer, monkeypatch):
    weights = ["early=0.9", "late=0.1"]
    mixed(sources, tokenizer, tmp_path / "one", weights, dupe_factor=4)
    monkeypatch.setattr("data_prep.batches.COPIES_AT_ONCE", 3)
    mixed(sources, tokenizer, tmp_path / "two", weights, dupe_factor=4)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_a_weight_of_zero_leaves_a_source_out(tmp_path, sources, tokenizer):
    mix = mixed(sources, tokenizer, tmp_path / "mix", ["early=1", "late=0"], validation_fraction=0)
    alone = prepare(options(sources / "early.txt", tokenizer, tmp_path / "alone", dupe_factor=1, validation_fraction=0))
    factor = mix["splits"]["train"]["pieces"] / alone["splits"]["train"]["pieces"]
    assert factor == pytest.approx(mix["sources"]["early"]["repeats"], rel=0.05)
    assert mix["sources"]["late"]["repeats"] == 0


def test_a_document_is_taken_as_often_as_its_average_says():
    drawn = [times(2.3, 5, 0, offset) for offset in range(20_000)]
    assert set(drawn) == {2, 3}
    # five standard deviations of 20,000 draws with probability 0.3
    assert abs(sum(drawn) / len(drawn) - 2.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5
    assert {times(1.0, 5, 0, offset) for offset in range(100)} == {1}


def test_weights_do_not_depend_on_workers(tmp_path, sources, tokenizer):
    weights = ["early=0.5", "late=0.5"]
    mixed(sources, tokenizer, tmp_path / "one", weights, task_size=100_000)
    mixed(sources, tokenizer, tmp_path / "two", weights, task_size=100_000, workers=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["early=1"], r"one weight, not all of them 0, for each named input \(early, late\)"),
        (["early=0", "late=0"], "not all of them 0"),
        (["early=1", "late=1", "other=1"], "for each named input"),
        (["early=1e400", "late=1"], "NAME=NUMBER|not all of them 0"),
        (["early=1" + "0" * 400, "late=1"], "for each named input"),
        (["early=1", "early=2", "late=1"], "for each named input"),
        (["early:1"], "NAME=NUMBER"),
        (["early=-1", "late=1"], "NAME=NUMBER"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, sources, tokenizer, weights, message):
    with pytest.raises(UserError, match=message):
        mixed(sources, tokenizer, tmp_path / "mix", weights)
    assert not (tmp_path / "mix").exists()
