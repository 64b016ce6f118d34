"""`albert inspect` of a run: what the log says is what is drawn, predictions are the model's, a run in any state can be looked at,
and the page is one file that a browser shows without a network."""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from browser import CHROMIUM, Browser
from inspected import Made, Page, write_hostile_data
from runs import CONFIG, records

from data_prep.inspect_options import InspectOptions
from data_prep.schema import ROWS_PER_BATCH, manifest_sha256, read_manifest
from launch.inspect_verb import inspect
from pretrain.axes import log_ticks, short, step_edges, ticks_between
from pretrain.checkpoint import snapshot, write_checkpoint
from pretrain.config_file import load_config
from pretrain.curves import Line, draw_curves, smoothed
from pretrain.data import collate, open_split
from pretrain.model import Albert
from pretrain.optimizer import build_optimizer
from pretrain.predictions import predict
from pretrain.run_report import gather, read_run
from tokenizer.errors import UserError
from tokenizer.provenance import open_session

LAYOUT = """
(() => {
  const faults = [];
  for (const svg of document.querySelectorAll("svg")) {
    const name = svg.querySelector("title").textContent, frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (const [words, box] of boxes) {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        faults.push(`${name}: ${words} is cut`);
      for (const [others, other] of boxes)
        if (words < others && box.left < other.right && other.left < box.right
            && box.top < other.bottom - 2 && other.top < box.bottom - 2) faults.push(`${name}: ${words} is over ${others}`);
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
  return faults;
})()
"""


def train_record(step: int, **changes: object) -> dict:
    figures = {"mlm_loss": 4 + 3 / (1 + step / 50), "sop_loss": 0.69, "mlm_accuracy": 0.1, "sop_accuracy": 0.5, "lr": 1e-3}
    figures |= {"trust_ratio_min": 0.01, "trust_ratio_median": 0.4, "trust_ratio_max": 20.0, "grad_norm": 1.5}
    figures |= {"tokens_per_second": 12_345.6, "mfu": 0.41, "data_wait": 0.01, "peak_memory": 2e9, "estimated_memory": 3e9}
    return {"event": "train", "step": step, "loss": figures["mlm_loss"] + 0.69, "time": 1.8e9 + step, **figures, **changes}


def validation_record(step: int, **changes: object) -> dict:
    kept = ("loss", "mlm_loss", "sop_loss", "mlm_accuracy", "sop_accuracy", "time")
    figures = {name: value for name, value in train_record(step).items() if name in kept}
    return {"event": "validation", "step": step, **figures, "unigram_entropy": 4.5, "instances": 20, **changes}


def write_log(run: Path, listed: list[dict], end: str = "") -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in listed) + end)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return write_hostile_data(tmp_path_factory.mktemp("data") / "data", ROWS_PER_BATCH)


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A run of 100 steps on the hostile data, with a random model as its checkpoint and a name to be escaped."""
    folder = tmp_path / """it's "a" <b>run & more"""
    folder.mkdir()
    content = yaml.safe_load(CONFIG) | {"data": {"path": str(made.folder)}}
    content["model"]["max_position_embeddings"] = 96
    content["training"]["steps"] = content["schedule"]["total_steps"] = 200
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    write_log(folder, [validation_record(0), *map(train_record, range(10, 101, 10)), validation_record(100)])
    save_random_model(folder, 100)
    return folder


def save_random_model(run: Path, step: int) -> None:
    config = load_config(run / "config.yaml")
    model = Albert(config.model, read_manifest(config.data.path).vocab_size)
    model.initialize(0.3, torch.Generator().manual_seed(step))  # far from even, so that probabilities tell pieces apart
    state = {"step": step, "best": {}, "data_sha256": manifest_sha256(config.data.path)}
    write_checkpoint(run / "checkpoints" / f"step-{step}", snapshot(model, build_optimizer(model, config.optimizer)), state)


def page_of(run: Path, **options: object) -> str:
    path = run.parent / "page.html"
    inspect(InspectOptions(folder=run, html=path, **options))
    return path.read_text(encoding="utf-8")


def tips_of(page: str, name: str) -> list[str]:
    """The tooltips of one drawing."""
    drawing = page[page.index(f"{name} by step</title>") :].partition("</svg>")[0]
    return re.findall(r'class="hover"[^>]*><title>([^<]*)</title>', drawing)


def test_the_command_shows_the_figures_of_the_log_and_draws_them(albert, undisturbed, tmp_path):
    said = albert("inspect", undisturbed, "--html", tmp_path / "page.html").stdout
    train, validation = records(undisturbed), records(undisturbed, "validation")
    for record in train:
        cells = [str(record["step"]), *(format(record[name], ".4f") for name in ("loss", "mlm_loss")), f"{record['lr']:.2e}"]
        assert re.search(r" .*\b".join(map(re.escape, cells)), said)
    assert f"last validation, step 10: loss {validation[-1]['loss']:.4f}" in said
    assert "Step 10 of 10, done." in said
    page = (tmp_path / "page.html").read_text()
    tips = tips_of(page, "MLM loss")
    assert len(tips) == len({record["step"] for record in train + validation})
    for tip, record in zip(tips[1:], train, strict=True):
        assert f"train {record['mlm_loss']:.4g}" in tip
    assert f"validation {validation[-1]['mlm_loss']:.4g}" in tips[-1]
    assert "unigram entropy" in page
    assert page.count('<polyline class="level"') == 1
    shown = "".join(Page(page).texts)
    for expected in (
        "global_batch_size: 8",
        "Environment: 1 start(s)",
        "exit code",
        "the beginning to 10",
    ):
        assert expected in shown
    assert "Predictions of step 10" in shown


def test_the_page_is_self_contained_and_corpus_names_and_messages_are_only_text_in_it(run):
    log = [*map(train_record, range(1, 11)), {"event": "restart", "step": 5, "message": "<img src=x onerror=alert(1)>\x1b[2J"}]
    write_log(run, log)
    text = page_of(run, num=1000, split="train")
    page = Page(text)
    tags = Counter(tag for tag, _ in page.elements)
    assert not set(tags) & {"script", "link", "img", "iframe", "object", "embed", "form", "b"}
    attributes = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "srcset", "action")}
    assert not re.search(r"https?://|@import|url\(", text)
    assert not {char for char in text if not char.isprintable()} - {"\n"}
    shown = "".join(page.texts)
    for expected in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>\\x1b[2J", "\\u202eevil", '"a" <b>run & more'):
        assert expected in shown
    assert sum("instance" in attrs.get("class", "") for _, attrs in page.elements) == 301
    identities = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(identities) == len(set(identities)) == 2 * tags["svg"]
    labelled = {name for tag, attrs in page.elements if tag == "svg" for name in attrs["aria-labelledby"].split()}
    assert labelled == set(identities)


def test_predictions_are_those_of_the_model_that_is_in_the_checkpoint(run, made):
    config, manifest = load_config(run / "config.yaml"), read_manifest(made.folder)
    checkpoint = run / "checkpoints" / "step-100"
    found = predict(checkpoint, config.model, made.folder, manifest, "validation", 1000, np.random.default_rng(0)).listed
    model = Albert(config.model, manifest.vocab_size).eval()
    model.initialize(0.3, torch.Generator().manual_seed(100))
    rows = open_split(made.folder, manifest, "validation").read(np.arange(len(found)))
    sums = model(collate(rows))  # what validation counts, over all rows at once
    rights = [right.probability for prediction in found for right in prediction.right]
    assert -sum(map(math.log, rights)) == pytest.approx(sums.mlm_loss.item(), rel=1e-4)  # fp32, summed in another order
    firsts = [guesses[0] for prediction in found for guesses in prediction.guesses]
    assert sum(guess.is_right for guess in firsts) == sums.mlm_correct.item()
    orders = [(row.sentence_order_label, prediction.swapped) for row, prediction in zip(rows, found, strict=True)]
    assert all((label == -100) == (swapped is None) for label, swapped in orders)
    of_label = [swapped if label == 1 else 1 - swapped for label, swapped in orders if label != -100]
    assert -sum(map(math.log, of_label)) == pytest.approx(sums.sop_loss.item(), rel=1e-4)
    for prediction in found:
        labels = [token.text for token in prediction.instance.tokens if token.fate]
        assert [right.text.removeprefix("▁") or "▁" for right in prediction.right] == labels
        for guesses in prediction.guesses:
            assert [guess.probability for guess in guesses] == sorted((guess.probability for guess in guesses), reverse=True)
            assert len(guesses) == 5


def test_each_piece_to_predict_is_on_the_page_with_its_guesses(run, made):
    page = page_of(run, num=1000)
    rows = open_split(made.folder, read_manifest(made.folder), "validation").read(np.arange(20))
    num_targets = sum(len(row.mlm_labels) for row in rows)
    assert len(re.findall(r'<ruby class="(?:right|wrong)"><span', page)) == num_targets
    assert len(re.findall(r"<td class=\"[a-z]*\"><bdi>[^<]*</bdi> [\d.]+%</td>", page)) == 5 * num_targets
    assert len(re.findall(r"the model gives it [\d.]+%, (?:right|wrong)", page)) == sum(
        row.sentence_order_label >= 0 for row in rows
    )
    assert "Predictions of step 100" in page


def test_half_of_few_instances_have_an_order_to_predict(run, made):
    config, manifest = load_config(run / "config.yaml"), read_manifest(made.folder)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        found = predict(run / "checkpoints" / "step-100", config.model, made.folder, manifest, "train", 4, generator).listed
        rows = [prediction.instance.row for prediction in found]
        assert len(set(rows)) == 4
        assert rows == sorted(rows)
        assert sum(prediction.swapped is not None for prediction in found) >= 2


def test_the_newest_good_checkpoint_predicts_or_the_one_that_is_asked_for(run, capsys):
    save_random_model(run, 150)
    assert "Predictions of step 150" in page_of(run)
    assert "Predictions of step 100" in page_of(run, checkpoint="100")
    (run / "checkpoints" / "step-150" / "model.safetensors").write_bytes(b"damaged")
    capsys.readouterr()
    assert "Predictions of step 100" in page_of(run)
    assert "damaged checkpoint passed over" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such checkpoint"):
        page_of(run, checkpoint="7")
    (run / "checkpoints" / "step-100" / "state.json").unlink()
    assert "no checkpoint is whole" in page_of(run)
    shutil.rmtree(run / "checkpoints")
    assert "there is no checkpoint yet" in page_of(run)


def test_of_private_data_there_is_no_text(run, made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "data")
    manifest = json.loads((made.folder / "manifest.json").read_text())
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"private": True}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"path": str(tmp_path / "data")}}))
    save_random_model(run, 100)
    page = page_of(run, num=1000)
    assert "The corpus is private" in page
    assert "<article" not in page
    assert "<ruby" not in page
    assert "MLM loss by step" in page


def test_data_that_has_moved_or_changed_leaves_the_curves(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    shutil.copytree(config["data"]["path"], tmp_path / "data")
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"path": str(tmp_path / "data")}}))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"seed": 1}))
    assert "is not the data that" in page_of(run)
    shutil.rmtree(tmp_path / "data")
    page = page_of(run)
    assert "manifest.json: not found" in page
    assert "MLM loss by step" in page


@pytest.mark.parametrize(
    ("log", "num_drawings", "expected"),
    [
        ([], 0, "No step has been logged yet"),
        ([validation_record(0)], 5, "Step 0 of 200"),
        ([train_record(1)], 12, "Step 1 of 200"),
        ([train_record(step) for step in (10, 20)], 12, "Step 20 of 200"),
        ([train_record(step, sop_loss=None, sop_accuracy=None) for step in (1, 2)], 10, "Step 2 of 200"),
        ([train_record(step, grad_norm=None) for step in (1, 2)], 11, "Step 2 of 200"),
        ([train_record(step, loss=math.nan, mlm_loss=math.inf) for step in (1, 2)], 10, "Step 2 of 200"),
        ([train_record(step, mlm_loss=math.nan if step == 5 else 3.0) for step in range(9)], 12, "1 value(s) that are no finite"),
        ([{"event": "skipped", "step": 3, "message": "no update: loss nan"}], 0, "no update: loss nan"),
    ],
)
def test_a_run_is_shown_however_little_it_has_logged(run, log, num_drawings, expected, capsys):
    write_log(run, log)
    page = page_of(run)
    assert page.count("<svg") == num_drawings
    assert expected in page
    assert not re.search(r"(?:points|[xy12]|height|width|c[xy])=\"[^\"]*(?:nan|inf)", page)
    assert "skipped step(s)" in capsys.readouterr().out


def test_a_run_without_a_log_or_a_record_is_shown_too(run, capsys):
    (run / "metrics.jsonl").unlink()
    (run / "provenance.json").write_text("{")
    page = page_of(run)
    assert "No step has been logged yet" in page
    assert "provenance.json: expected the record" in page


def test_of_a_run_at_work_the_half_written_line_is_left_out_and_damaged_ones_are_counted(run, capsys):
    write_log(run, [train_record(1), train_record(2)], end='{"event": "train", "step": 3, "lo')
    report = read_run(run)
    assert report.train.steps.tolist() == [1, 2]
    assert report.faults == []
    write_log(
        run, [train_record(1)], end='{"event": "tr\n\0\0\n[]\n{"event": "train", "step": "x"}\n{"event": "train", "step": 2}\n'
    )
    report = read_run(run)
    assert report.train.steps.tolist() == [1, 2]
    assert np.isnan(report.train.figures["loss"][1])
    assert "4 line(s) cannot be read" in report.faults[0]
    (run / "state.json").write_text('{"status": "running", "exit_code": null, "message": ""}')
    inspect(InspectOptions(folder=run))
    assert "Step 2 of 200, running." in " ".join(capsys.readouterr().out.split())


def test_what_was_logged_beyond_the_place_a_run_went_back_to_does_not_count():
    went_back = {"event": "rollback", "step": 20, "message": "back"}
    log = [train_record(10), train_record(20), validation_record(20), train_record(30, lr=9.0), validation_record(30), went_back]
    train, validation, marks, _ = gather([*log, train_record(30, lr=0.5), train_record(40)])
    assert train.steps.tolist() == [10, 20, 30, 40]
    assert train.figures["lr"].tolist() == [1e-3, 1e-3, 0.5, 1e-3]
    assert validation.steps.tolist() == [20]
    assert [(mark.step, mark.kind) for mark in marks] == [(20, "rollback")]
    train, *_ = gather([train_record(10), train_record(20), train_record(15)])  # without a word, as after a kill
    assert train.steps.tolist() == [10, 15]


def test_restarts_rollbacks_and_skipped_steps_are_marked_with_their_words(run):
    words = {"restart": "rank 1 was killed", "rollback": "back from step 70", "skipped": "no update", "warning": "loss spike"}
    steps = dict(zip(words, (20, 40, 60, 80), strict=True))
    log = [*map(train_record, range(0, 101, 10))]
    for kind, step in steps.items():
        log.insert(step // 10 + 1, {"event": kind, "step": step, "message": words[kind]})
    write_log(run, log)
    page = page_of(run)
    tips = tips_of(page, "Learning rate")
    for kind, message in words.items():
        assert f"step {steps[kind]}, {kind}: {message}" in tips
        assert page.count(f'<line class="{kind}"') == page.count("<svg")
    sessions = [{"command": ["albert"], "started": f"day {day}", "from_step": step} for day, step in ((1, None), (2, 50))]
    (run / "provenance.json").write_text(json.dumps({"format_version": 1, "sessions": sessions}))
    assert "step 50, restart: started again, day 2" in tips_of(page_of(run), "Learning rate")


def test_the_environment_of_each_start_names_the_libraries(undisturbed, tmp_path):
    inspect(InspectOptions(folder=undisturbed, html=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert re.search(rf"<td>libraries</td><td>torch {re.escape(torch.__version__.partition('+')[0])}[^<]*, deepspeed \d", page)


@pytest.mark.parametrize("odd", [None, 7, -1, 1e300, 10**30, "words", "<b>", True, [], ["x", None], {}, {"a": [1]}, [[]]], ids=repr)
def test_a_session_with_odd_values_is_shown_as_it_is(run, odd):
    whole = open_session() | {"hosts": ["node"], "from_step": 50, "to_step": 60, "slurm_job": "7"}
    sessions = [odd, whole, *({**whole, name: odd} for name in whole), whole | {"code": {"revision": odd, "clean": odd}}, whole]
    (run / "provenance.json").write_text(json.dumps({"format_version": 1, "sessions": sessions}))
    page = page_of(run)
    assert page.count("<td>platform</td>") >= len(whole)
    assert ("1 session(s) are no records" in page) == (not isinstance(odd, dict))
    assert "<b>" not in page


def test_a_long_run_with_many_restarts_stays_a_small_page(run):
    log = [train_record(step, mlm_loss=3 + math.sin(step)) for step in range(1, 20_001)]
    for number in range(300):
        log.insert(number * 60, {"event": "restart", "step": number * 59, "message": f"crash {number}"})
    write_log(run, sorted(log, key=lambda record: (record["step"], record["event"] == "restart")))
    page = page_of(run)
    assert len(page) < 3_000_000
    assert max(len(points.split()) for points in re.findall(r'points="([^"]*)"', page)) <= 400
    assert "300 mark(s) in words, the last 200" in page


def test_the_band_spans_what_a_point_stands_for_and_smoothing_keeps_the_mean():
    steps = np.arange(1, 4001)
    values = np.random.default_rng(0).normal(5, 1, len(steps))
    drawing = draw_curves("Loss", "nats", [Line("train", "smoothed", steps, values)], [], step_edges(steps))
    tips = [re.fullmatch(r"steps ([\d,]+) to ([\d,]+): train (\S+) \((\S+) to (\S+)\)", tip) for tip in tips_of(drawing, "Loss")]
    assert len(tips) == 200
    for tip in tips[:-1]:
        inside = values[(steps >= int(tip[1].replace(",", ""))) & (steps <= int(tip[2].replace(",", "")))]
        expected = inside.mean(), inside.min(), inside.max()
        assert [float(number) for number in tip.groups()[2:]] == pytest.approx(expected, rel=1e-3)  # four digits are shown
    assert smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    line = np.arange(300.0)
    assert smoothed(line)[10:-10] == pytest.approx(line[10:-10])
    assert smoothed(values).std() < 0.2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.9, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]), (0.002, 150, [0.01, 0.1, 1, 10, 100]), (3.1, 3.9, [3.2, 3.4, 3.6, 3.8])],
)
def test_ticks_of_a_log_scale_are_round(low, high, expected):
    assert log_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 7.9), (112_500, 125_000), (-1, 1), (0, 0.00176), (9.99, 10.01)])
def test_ticks_lie_inside_and_their_labels_tell_them_apart(low, high):
    ticks = ticks_between(low, high)
    assert 2 <= len(ticks) <= 7
    assert min(ticks) >= low - 1e-9
    assert max(ticks) <= high + 1e-9
    assert len({short(tick) for tick in ticks}) == len(ticks)


def test_what_is_neither_data_nor_a_run_is_refused_with_a_way_out(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no data folder .* and no run .*albert prepare.*albert launch"):
        inspect(InspectOptions(folder=tmp_path / "empty"))
    with pytest.raises(UserError, match="--split is 'test'"):
        page_of(run, split="test")
    (run / "config.yaml").write_text("optimzer: {lr: 1}")
    with pytest.raises(UserError, match="did you mean optimizer"):
        page_of(run)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (Debian's package `chromium`)")
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_the_page_whole_in_both_colours_and_fetches_nothing(run, browser, width):
    log = [*map(train_record, range(0, 12_001, 50)), {"event": "restart", "step": 11_000, "message": "killed"}]
    write_log(run, [*log, validation_record(12_000)])
    page_of(run)
    path, shots, backgrounds = run.parent / "page.html", [], []
    for dark in (False, True):
        browser.open(path, width=width, dark=dark)
        assert browser.evaluate(LAYOUT) == []
        assert browser.evaluate("document.querySelectorAll('svg').length") == 12
        assert browser.evaluate("document.querySelectorAll('script').length") == 0
        browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        backgrounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        shots.append(browser.screenshot())
        assert browser.requests == [path.as_uri()]
        assert browser.complaints == []
    assert len(set(backgrounds)) == 2
    assert min(map(len, shots)) > 10_000
    assert shots[0] != shots[1]
