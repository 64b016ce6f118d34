"""`albert inspect` of an exported model: fillings and attention are those of transformers, and the page shows them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from inspected import Page
from published import write_published
from safetensors.torch import load_file, save_file
from test_run_page import LAYOUT

from data_prep.inspect_options import InspectOptions
from downstream.export_page import LEVELS, LONGEST
from launch.inspect_verb import inspect
from tokenizer.errors import UserError

transformers = pytest.importorskip("transformers", reason="exported models are read by the extra `transformers`")

TEXT = "The state of the [MASK] is strong."
NO_UTF8 = b"caf\xe9 [MASK]".decode(errors="surrogateescape")
"""As Python has it in sys.argv."""
HOSTILE = 'We [MASK] <script>alert("1")</script> & the\x1b[31m ‮ [MASK]\x00 </svg>'


@pytest.fixture(scope="module")
def export(corpus, tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("export"), corpus)


def page_of(export: Path, folder: Path, *texts: str) -> str:
    inspect(InspectOptions(folder=export, html=folder / "page.html", text=list(texts)))
    return (folder / "page.html").read_text(encoding="utf-8")


def changed(export: Path, folder: Path, keep) -> Path:
    """A copy with these of the weights alone."""
    shutil.copytree(export, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if keep(name)}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_command_fills_masks_as_the_pipeline_does(albert, export, tmp_path):
    said = albert("inspect", export, "--html", tmp_path / "page.html", "--text", TEXT, "We [MASK] the [MASK].")
    assert said.stderr == ""
    page = (tmp_path / "page.html").read_text()
    rows = re.findall(r"<dt><bdi>([^<]*)</bdi></dt><dd><i[^>]*></i></dd><dd>([^<]*)</dd>", page)
    fill = transformers.pipeline("fill-mask", str(export), top_k=10)
    expected = [fill(TEXT), *fill("We [MASK] the [MASK].")]
    names = fill.tokenizer.convert_ids_to_tokens
    assert rows == [(names(guess["token"]), f"{guess['score']:.1%}") for guesses in expected for guess in guesses]
    for guesses in expected:
        best = guesses[0]
        assert f"{names(best['token'])} {best['score']:.1%}" in said.stdout


def test_the_maps_show_the_attention_of_every_head(export, tmp_path):
    page = page_of(export, tmp_path, TEXT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(export)
    model = transformers.AlbertModel.from_pretrained(export, attn_implementation="eager").eval()
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    size = inputs["input_ids"].shape[1]
    for layer, weights_1HNN in enumerate(attentions, start=1):
        for head, weights_NN in enumerate(weights_1HNN[0].numpy(), start=1):
            drawn = page.partition(f'id="t0-l{layer}-h{head}">')[2].partition("</g>")[0]
            shades = painted(drawn, size)
            assert shades.min() >= 0
            # half a step, and rounding
            assert np.abs(shades - np.sqrt(weights_NN)).max() <= 0.5 / LEVELS + 1e-3
            assert page.count(f'href="#t0-l{layer}-h{head}"') == 1
            assert np.std(weights_NN) > 0.01  # even maps would prove nothing
    assert page.count("<title>[MASK] → ") == 2 * 4
    assert len(Page(page).titles) == 1 + 2 * 4 * (2 + size)


def painted(paths: str, size: int) -> np.ndarray:
    """The shade of each cell; no cell is painted twice."""
    shades = np.zeros((size, size))
    for shade, drawn in re.findall(r'<path fill-opacity="([^"]*)" d="([^"]*)"/>', paths):
        for begin, row, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", drawn):
            cells = shades[int(row), int(begin) : int(begin) + int(length)]
            assert not cells.any()
            cells[:] = float(shade)
    return shades


def test_hostile_text_is_shown_and_not_run(export, tmp_path):
    page = page_of(export, tmp_path, HOSTILE, TEXT, "no mask at all")
    parsed = Page(page)
    assert {name for name, _ in parsed.elements} & {"script", "b", "img", "link"} == set()
    assert not re.search("[\x00\x1b\u202e]", page)
    assert len({attributes["id"] for _, attributes in parsed.elements if "id" in attributes}) == 3 * 2 * 4
    assert page.count("<dl") == 2 + 1


def test_a_long_text_has_fillings_without_maps(export, tmp_path):
    page = page_of(export, tmp_path, "the " * (LONGEST - 3) + "[MASK]")
    assert "<dl" in page
    assert page.count("<figure>") == 2 * 4
    with pytest.raises(UserError, match=r"has 70 pieces, and the model takes 64 at most"):
        page_of(export, tmp_path, "the " * 68)
    content = json.loads((export / "config.json").read_text()) | {"max_position_embeddings": 80}
    longer = shutil.copytree(export, tmp_path / "longer")
    (longer / "config.json").write_text(json.dumps(content))
    weights = load_file(longer / "model.safetensors")
    name = "albert.embeddings.position_embeddings.weight"
    weights[name] = torch.cat([weights[name], weights[name][:16]])
    save_file(weights, longer / "model.safetensors", {"format": "pt"})
    page = page_of(longer, tmp_path, "the " * 68)
    assert "the text has 70 pieces" in page
    assert "<figure>" not in page


def test_an_encoder_without_head_shows_attention_alone(export, tmp_path):
    encoder = changed(export, tmp_path / "encoder", lambda name: name.startswith("albert.") and "pooler" not in name)
    assert page_of(encoder, tmp_path, "The union is strong.").count("<figure>") == 8
    with pytest.raises(UserError, match="no masked-LM head to fill a"):
        page_of(encoder, tmp_path, TEXT)
    half = changed(export, tmp_path / "half", lambda name: "query" not in name)
    with pytest.raises(UserError, match="its weights do not fit its config.json"):
        page_of(half, tmp_path, TEXT)


def test_what_cannot_be_read_is_refused_and_an_earlier_page_stays(export, synthetic, tmp_path):
    page_of(export, tmp_path, TEXT)
    before = (tmp_path / "page.html").read_bytes()
    for texts, expected in (
        ([], "say what to read"),
        ([""], "no piece is left"),
        (["fine", "  "], "no piece is left"),
        (["fine", NO_UTF8], "UTF-8"),
    ):
        with pytest.raises(UserError, match=expected):
            page_of(export, tmp_path, *texts)
    with pytest.raises(UserError, match="--text: goes with an exported model, and .* is data"):
        page_of(synthetic, tmp_path, TEXT)
    with pytest.raises(UserError, match="--num: goes with data or a run.*\n--checkpoint: goes with a run"):
        inspect(InspectOptions(folder=export, text=[TEXT], num=3, checkpoint="best"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    with pytest.raises(UserError, match="--checkpoint: of a run, goes with --html"):
        inspect(InspectOptions(folder=run, checkpoint="best"))
    for name, content in (
        ("config.json", "{}"),
        ("config.json", '{"model_type": "bert"}'),
        ("model.safetensors", "half"),
        ("tokenizer.json", ""),
    ):
        broken = shutil.copytree(export, tmp_path / "broken")
        (broken / name).write_text(content)
        with pytest.raises(UserError, match="broken"):
            page_of(broken, tmp_path, TEXT)
        shutil.rmtree(broken)
    assert (tmp_path / "page.html").read_bytes() == before


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian's package `chromium`)")
def test_a_browser_shows_the_page_whole_in_both_colours_and_fetches_nothing(export, tmp_path):
    page_of(export, tmp_path, TEXT, HOSTILE)
    path, shots = tmp_path / "page.html", []
    with Browser() as browser:
        for width, dark in ((1280, False), (1280, True), (360, True)):
            browser.open(path, width=width, dark=dark)
            browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert browser.evaluate(LAYOUT) == []
            assert browser.evaluate("[...document.querySelectorAll('use')].every(each => each.getBBox().width > 9)")
            shots.append(browser.screenshot(height=1200))
            assert browser.requests == [path.as_uri()]
            assert browser.complaints == []
    assert len(set(shots)) == 3
