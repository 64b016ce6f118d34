"""Labelled text is read from each layout to the same rows, and what is wrong with a file is told by its line."""

import csv
import gzip
import json
from dataclasses import replace

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from downstream.classification import build_glue, find_targets, hold_out, in_order, read_parts
from downstream.finetune_options import FinetuneOptions
from downstream.labelled import Columns, find_columns, read_labelled
from downstream.text_files import Reading
from tests.labelled_rows import write_tsv
from tokenizer.errors import UserError

ANY = Columns(None, None, None)


def read(source, reading=None, *, split="train", labelled=True):
    return read_labelled(source, split, ANY, reading or Reading(), labelled=labelled)


def test_every_layout_gives_the_same_rows(tmp_path):
    rows = [{"text": 'He said "no",\tthen left', "label": "a"}, {"text": "two\nlines", "label": "b"}, {"text": "ü", "label": "a"}]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n\n".join(map(json.dumps, rows)))
    Dataset.from_list(rows).to_parquet(tmp_path / "set" / "train.parquet")
    for source in (tmp_path / "rows.csv", tmp_path / "rows.jsonl.gz", f"hf:{tmp_path}/set"):
        assert read(str(source)).rows == rows
    plain = write_tsv(tmp_path / "rows.tsv", [('a "quoted', "x"), ('b" word', "y")], header=None)
    expected = [{"text": 'a "quoted', "label": "x"}, {"text": 'b" word', "label": "y"}]
    assert read(plain, Reading(["text", "label"])).rows == expected
    with pytest.raises(UserError, match="its rows name their columns; leave --columns out"):
        read(str(tmp_path / "rows.jsonl.gz"), Reading(["text", "label"]))


def test_class_labels_of_a_dataset_are_their_names_and_minus_one_is_none(tmp_path):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    Dataset.from_dict({"sentence": ["a", "b"], "label": [-1, -1]}, features=features).to_parquet(tmp_path / "set" / "test.parquet")
    found = read(f"hf:{tmp_path}/set")
    assert (found.texts(), found.labels()) == ((["a", "b"], None), ["yes", "no"])
    assert read(f"hf:{tmp_path}/set", split="test", labelled=False).columns.label is None
    numbers = write_tsv(tmp_path / "numbers.tsv", [("a", "-1"), ("b", "-1")], ("text", "score"))
    assert read(numbers, split="test", labelled=False).columns.label is None
    assert read(numbers).labels() == ["-1", "-1"]


def test_rows_of_another_width_are_named_or_left_out(tmp_path, capsys):
    path = write_tsv(tmp_path / "rows.tsv", [("a", "x"), ("b",), ("c", "y")])
    with pytest.raises(UserError, match=r"rows.tsv, line 3: has 1 columns, expected 2 \(text, label\).*--on_error skip"):
        read(path)
    assert [row["text"] for row in read(path, Reading(on_error="skip")).rows] == ["a", "c"]
    assert "1 rows with another number of columns than 2 left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"line 3: .*Mend it\.$"):  # predictions go by the number of the row
        read(path, Reading(on_error="skip"), split="test", labelled=False)


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_csv_with_misplaced_quotes_is_named_by_its_line_or_left_out(tmp_path, capsys):
    path = write_lines(tmp_path / "a.csv", ("text,label", "a,x", '"b" c,x', "d,y"))
    with pytest.raises(UserError, match=r"a.csv, line 3: cannot be read \('.'.*\)\. A .* is doubled\. .*--on_error skip"):
        read(path)
    with pytest.raises(UserError, match=r"a.csv, line 3: .*doubled\. Mend it\.$"):
        read(path, Reading(on_error="skip"), split="test", labelled=False)
    assert read(path, Reading(on_error="skip")).texts()[0] == ["a", "d"]
    assert f"{path}: 1 lines with misplaced quotes left out" in capsys.readouterr().out
    path = write_lines(tmp_path / "b.csv", ("text,label", '"a,x', "b,y", '"c",x', "d,y", "e", "f,x"))
    with pytest.raises(UserError, match="b.csv, line 4, of a row that begins in line 2: cannot be read"):
        read(path)
    assert read(path, Reading(on_error="skip")).texts()[0] == ["d", "f"]
    told = capsys.readouterr().out
    assert f"{path}: 3 lines with misplaced quotes left out" in told
    assert f"{path}: 1 rows with another number of columns than 2 left out" in told
    path = write_lines(tmp_path / "torn.csv", ("text,label", "a,x", '"he said "yes', 'really",y', "d,y"))
    assert read(path, Reading(on_error="skip")).texts()[0] == ["a", "d"]
    assert f"{path}: 2 lines with misplaced quotes left out" in capsys.readouterr().out
    path = write_lines(tmp_path / "c.csv", ("text,label", "a,x", '"b,x', "c,y"))  # the rest of the file is no row to leave out
    for on_error in ("stop", "skip"):
        with pytest.raises(UserError, match='c.csv, line 3: in this row begins a cell with " that no other " ends'):
            read(path, Reading(on_error=on_error))
    with pytest.raises(UserError, match="d.csv, line 1: cannot be read"):
        read(write_lines(tmp_path / "d.csv", ('"text" a,label', "a,x")), Reading(on_error="skip"))


def write_jsonl(path, labels):
    return write_lines(path, [json.dumps({"text": f"text {number}", "label": label}) for number, label in enumerate(labels)])


def test_a_list_of_labels_is_no_label(tmp_path):
    for found, what in ((["a"], "a list"), ([], "a list"), ({"a": 1}, "an object")):
        path = write_jsonl(tmp_path / "a.jsonl", ["x", found])
        for labelled in (True, False):
            with pytest.raises(UserError, match=f"a.jsonl, row 2: expected one label in the column label, found {what}"):
                read(path, labelled=labelled)


def test_rows_without_a_label_are_left_out_on_request_but_not_of_a_test(tmp_path, capsys):
    path, skip = write_jsonl(tmp_path / "a.jsonl", ["x", None, "y", " ", "x"]), Reading(on_error="skip")
    with pytest.raises(UserError, match=r"row 2: has no label in the column label. Fill it in, or .* --on_error skip\."):
        read(path).labels()
    assert read(path, skip).labels() == ["x", "y", "x"]
    assert f"{path}: 2 rows without a label left out" in capsys.readouterr().out
    with pytest.raises(UserError, match="row 2: has no label in the column label, as 2 of 5 rows"):
        read(path, skip, labelled=False)
    with pytest.raises(UserError, match="no row has a label in the column label; give --label NAME"):
        read(write_jsonl(tmp_path / "b.jsonl", [None, ""]), skip)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {"text": ["a", "b", "c"], "label": [1, -1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    assert read(f"hf:{tmp_path}/set", skip).texts()[0] == ["a", "c"]


QUOTED = 'text\tlabel\n"He said ""no"""\tneg\nShe went.\tpos\n'


def test_a_tsv_is_read_without_quoting_and_that_is_told_where_a_program_has_quoted(tmp_path, capsys):
    path = tmp_path / "rows.tsv"
    path.write_text(QUOTED)
    assert read(str(path)).texts()[0] == ['"He said ""no"""', "She went."]
    told = capsys.readouterr().out
    assert f'{path}: 1 cells begin and end with ", which belongs to them. A .tsv is read without quoting' in told
    (tmp_path / "rows.csv").write_text(QUOTED.replace("\t", ","))
    assert read(str(tmp_path / "rows.csv")).texts()[0] == ['He said "no"', "She went."]
    path.write_text('text\tlabel\n"all"\t"neg"\n"rows"\t"pos"\n')
    read(str(path))
    assert "4 cells begin and end" in capsys.readouterr().out
    path.write_text('text\tlabel\n"Yes."\tneg\n"No," he said, "no."\tpos\n"a "" b\tpos\n')  # quotes of the texts themselves
    (tmp_path / "b.csv").write_text(QUOTED.replace("\t", ","))
    for source in (path, tmp_path / "b.csv"):
        read(str(source))
    assert capsys.readouterr().out == ""
    path.write_text('text\tlabel\n"two\nlines"\tneg\n')
    with pytest.raises(UserError, match="line 2: has 1 columns, expected 2 .*A .tsv is read without quoting.*save it as .csv"):
        read(str(path))


@pytest.mark.parametrize(("name", "encoding"), [("a.tsv", "utf-16"), ("b.jsonl", "latin-1"), ("c.csv.gz", "latin-1")])
def test_a_file_that_is_not_utf_8_is_to_be_saved_so(name, encoding, tmp_path):
    content = json.dumps({"text": "née", "label": "x"}, ensure_ascii=False).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=rf"{name}: is not in UTF-8 \(byte 0x..\).*Save it as UTF-8\.$"):
        read(str(tmp_path / name))


def test_endings_may_be_in_capitals(tmp_path):
    table, line = "text,label\na,x\n", '{"text": "a", "label": "x"}'
    for name, content in (("A.CSV", table), ("A.TSV", table.replace(",", "\t")), ("A.JSONL", line)):
        (tmp_path / name).write_text(content)
        (tmp_path / f"{name}.GZ").write_bytes(gzip.compress(content.encode()))
        for source in (name, f"{name}.GZ"):
            assert read(str(tmp_path / source)).rows == [{"text": "a", "label": "x"}]


def test_a_blank_line_is_an_empty_text_of_the_only_column_and_nothing_elsewhere(tmp_path):
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_text("\ntext\na\n\nb\n")
        assert read(str(tmp_path / name), labelled=False).texts()[0] == ["a", "", "b"]
        (tmp_path / f"two_{name}").write_text("text,label\n\na,x\n\nb,y\n\n".replace(",", "\t" if name == "a.tsv" else ","))
        assert read(str(tmp_path / f"two_{name}")).texts()[0] == ["a", "b"]


def test_columns_of_the_same_name_are_refused(tmp_path):
    header, plain = "text\tlabel\tlabel\n", "a\tx\ty\n"
    (tmp_path / "a.tsv").write_text(header + plain)
    with pytest.raises(UserError, match=r"a.tsv: several columns have the same name \(label\).*in the header; if that is a row"):
        read(str(tmp_path / "a.tsv"))
    (tmp_path / "b.tsv").write_text(plain)
    with pytest.raises(UserError, match=r"same name \(text\). Give each its own in --columns"):
        read(str(tmp_path / "b.tsv"), Reading(["text", "label", "text"]))
    (tmp_path / "c.csv").write_text("text,label,,\na,x,,\n")  # as spreadsheets write columns that were emptied
    assert read(str(tmp_path / "c.csv")).labels() == ["x"]


def test_a_carriage_return_within_a_text_is_told(tmp_path):
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_text("text,label\na\rb,x\n".replace(",", "\t" if name == "a.tsv" else ","), newline="")
        with pytest.raises(
            UserError, match="line 2: has 1 columns, .*ends with a lone carriage return, which may belong to a text"
        ):
            read(str(tmp_path / name))


def test_a_test_has_labels_in_all_rows_or_in_none_which_is_told(tmp_path, capsys):
    some = write_tsv(tmp_path / "some.tsv", [("a", "x"), ("b", " "), ("c", "")])
    with pytest.raises(UserError, match=r"some.tsv, row 2: has no label in the column label, as 2 of 3 rows\."):
        read(some, labelled=False)
    for header, rows, told in (
        (("text", "label"), [("a", ""), ("b", "")], "no label (its column label has none); it gets predictions, but no figures"),
        (("text", "lable"), [("a", "x"), ("b", "y")], "no label or score (it has: text, lable); it gets predictions"),
    ):
        path = write_tsv(tmp_path / "none.tsv", rows, header)
        assert read(path, labelled=False).columns.label is None
        assert f"{path}: {told}" in capsys.readouterr().out
    assert read(write_tsv(tmp_path / "all.tsv", [("a", "x"), ("b", "y")]), labelled=False).labels() == ["x", "y"]
    assert capsys.readouterr().out == ""


def test_labels_are_numbered_in_one_order_whatever_their_length_and_white_space():
    labels = ["b", "10", "2", "01", "-1", "1", "2" * 5000, "1" * 5000, "a", "٣", "-10", "+0.5", "nan"]  # an Arabic 3 among them
    expected = ["-10", "-1", "+0.5", "01", "1", "2", "٣", "10", "1" * 5000, "2" * 5000, "a", "b", "nan"]
    for turn in range(len(labels)):
        assert sorted(labels[turn:] + labels[:turn], key=in_order) == expected


def test_white_space_around_a_label_makes_no_other_label(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "a", "label": label}) for label in ("1 ", "1", 1, "\u00a01", "in two words")))
    assert read(str(path)).labels() == ["1", "1", "1", "1", "in two words"]


def test_columns_asked_for_must_be_there_and_two_texts_need_a_word():
    rows, plain = [{"a": "1", "b": "2", "label": "x"}], Reading()
    assert find_columns(rows, Columns("a", "b", None), "f", plain, labelled=True) == Columns("a", "b", "label")
    with pytest.raises(UserError, match="no column c; give --text_pair NAME"):
        find_columns(rows, Columns("a", "c", None), "f", plain, labelled=True)
    rows = [{"question": "1", "sentence": "2", "label": "x"}]
    with pytest.raises(UserError, match="columns sentence and question; give --text NAME"):
        find_columns(rows, ANY, "f", plain, labelled=True)
    assert find_columns(rows, Columns("question", "sentence", None), "f", plain, labelled=True).text_pair == "sentence"


def test_where_training_has_one_text_other_files_have_no_pair(tmp_path):
    single = write_tsv(tmp_path / "train.tsv", [("a", "x"), ("b", "y")])
    more = {
        split: write_tsv(tmp_path / f"{split}.tsv", [("a", "b", "x")], ("text", "sentence2", "label")) for split in ("dev", "test")
    }
    options = FinetuneOptions(model=tmp_path, output=tmp_path, train=single, validation=more["dev"], test=more["test"])
    for part in read_parts(options, private=False).values():
        assert part.texts()[1] is None
    pairs = replace(options, train=more["dev"], validation=more["dev"])
    assert {part.columns.text_pair for part in read_parts(pairs, private=False).values()} == {"sentence2"}


def test_a_rare_label_is_not_held_out(tmp_path):
    rows = [("a", "common")] * 99 + [("b", "rare")]
    train = read(write_tsv(tmp_path / "train.tsv", rows))
    for seed in range(30):
        parts = hold_out(train, seed, keep_labels=True)
        assert len(parts["validation"].rows) == 10
        assert len(parts["train"].rows) == 90
        assert "rare" in parts["train"].labels()


def read_for(task, folder, labels, **more):
    path = write_tsv(folder / "train.tsv", [("a", label) for label in labels])
    return read_parts(FinetuneOptions(model=folder, output=folder, task=task, train=path, **more), private=False)


def test_numbers_to_predict_are_no_classes_where_most_have_a_row_each_and_are_told_elsewhere(tmp_path, capsys):
    scores = [f"{number / 8:.3f}" for number in range(60)]
    with pytest.raises(UserError, match=r"train.tsv: the labels are numbers \(0.000, 0.125, .*give --task regression"):
        read_for("classification", tmp_path, scores)
    assert len(read_for("regression", tmp_path, scores)["validation"].rows) == 6
    assert "the labels are numbers" not in capsys.readouterr().out
    read_for("classification", tmp_path, ["0.5", "1", "1.5"] * 10)
    told = "train.tsv: the labels are numbers (0.5, 1, 1.5), here 3 classes. For a number to predict give --task regression."
    assert told in capsys.readouterr().out
    for classes in (["0", "1"], ["-1.0", "1.0"], ["1", "1.5", "x"]):
        read_for("classification", tmp_path, classes * 20)
    assert "the labels are numbers" not in capsys.readouterr().out


def test_rows_that_each_have_a_label_of_their_own_are_not_called_too_few(tmp_path):
    with pytest.raises(UserError, match="each of the 60 rows has a label of its own, so none can be held out. Give --label"):
        read_for("classification", tmp_path, range(60))
    with pytest.raises(UserError, match="9 rows are too few to hold a tenth out"):
        read_for("classification", tmp_path, range(9))


def test_the_classes_are_told_and_which_of_them_f1_is_of(tmp_path, capsys):
    for labels, classes, told in (
        ("1 -1", ["-1", "1"], "2 classes (-1, 1); f1 is that of the second"),
        ("b a c", ["a", "b", "c"], "3 classes (a, b, c); f1 is the mean over them"),
    ):
        targets = find_targets("", read_for("classification", tmp_path, labels.split() * 10), regression=False)
        assert targets.classes == classes
        assert told in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("labels", "is_told"),
    [("-1 0 1 2", True), ("-1 1", True), ("0 1", False), ("-2 -1 0", False), ("-1 x", False), ("-1 0.5", False)],
)
def test_a_class_that_may_stand_for_no_label_is_told(labels, is_told, tmp_path, capsys):
    find_targets("", read_for("classification", tmp_path, labels.split() * 10), regression=False)
    assert ("one class is -1. If it stands for no label, empty it" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize(
    ("name", "column", "label", "message"),
    [
        ("WNLI", "label", "2", r"dev.tsv: has labels that --train does not have \(2\)"),
        ("STS-B", "score", "high", r"dev.tsv, row 1: expected a number to predict \(high\)"),
    ],
)
def test_the_labels_of_all_glue_tasks_are_checked_before_the_first_is_trained(name, column, label, message, tmp_path):
    for split, labels in (("train", "01"), ("dev", [label])):
        write_tsv(tmp_path / "SST-2" / f"{split}.tsv", [("a", "0"), ("b", "1")], ("sentence", "label"))
        write_tsv(tmp_path / name / f"{split}.tsv", [("a", "b", each) for each in labels], ("sentence1", "sentence2", column))
    options = FinetuneOptions(model=tmp_path, task="glue", glue_folder=tmp_path, output=tmp_path / "out")
    with pytest.raises(UserError, match=message):
        next(build_glue(options, None, 64, False))
