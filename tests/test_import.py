"""Training goes on from an ALBERT of the Hugging Face Hub: with its own tokenizer, or with another vocabulary."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from prepared import options
from published import SHAPE, write_published
from runs import records
from safetensors.torch import load_file, save_file
from test_tokenizer import NASTY, SCRIPTS, fuzzed_strings
from tokenizers import Tokenizer

from data_prep.prepare import prepare
from launch.options import LaunchOptions
from launch.run import launch
from pretrain.comparison import evaluate
from pretrain.config_file import differences, load_config, to_plain
from pretrain.evaluate_options import EvaluateOptions
from pretrain.hf_shape import SHAPE as SHAPE_FIELDS
from pretrain.init_from import check_init_from, load_init_weights
from pretrain.model import Albert
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.imported import import_tokenizer
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS

WORDPIECE = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
WORDS = "embeddings.word.weight"
RUN = """
optimizer: {lr: 0.01}
schedule: {warmup_steps: 2, total_steps: 20}
training: {steps: 3, global_batch_size: 8, micro_batch_size: 4, compile: false, validate_every_n_steps: 1}
precision: {dtype: fp32, device: cpu}
checkpoint: {every_n_steps: 1, keep_last: 3}
logging: {every_n_steps: 1, wandb: disabled}
supervision: {max_restarts: 0}
"""
"""The first step of a warm-up moves nothing: after it, the weights are those of the beginning."""


@pytest.fixture(scope="module")
def published(corpus, tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("hub"), corpus)


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "tokenizer"
    import_tokenizer(published, folder)
    return folder


@pytest.fixture(scope="module")
def own_data(corpus, imported, tmp_path_factory) -> Path:
    """Encoded by the published model's tokenizer."""
    folder = tmp_path_factory.mktemp("own") / "data"
    prepare(options(corpus, imported, folder, dupe_factor=1))
    return folder


@pytest.fixture
def run_config(tmp_path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path / "run.yaml"


def changed(published: Path, folder: Path, name: str, change) -> Path:
    """A copy with one file changed: by a function of its JSON, to these bytes, or away."""
    shutil.copytree(published, folder)
    if change is None:
        (folder / name).unlink()
    elif isinstance(change, bytes):
        (folder / name).write_bytes(change)
    else:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


# The tokenizer


def test_an_imported_tokenizer_gives_the_ids_of_the_published_one(published, imported, corpus):
    transformers = pytest.importorskip("transformers")
    texts = [*corpus.read_text().split("\n"), *SCRIPTS.values(), *NASTY, *fuzzed_strings(2000, seed=5)]
    encoder, as_file = Encoder(imported), Tokenizer.from_file(str(published / "tokenizer.json"))
    as_file.no_truncation()
    loaded = [transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer for folder in (published, imported)]
    loaded[0].no_truncation()
    num_compared = 0
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        others = [each.encode(text, add_special_tokens=False).ids for each in (as_file, *loaded)]
        if not set(FORBIDDEN_TEXT_IDS) & set(sum(others, [])):
            num_compared += 1
            assert others == [ids.tolist()] * 3, text
    assert num_compared > 2000
    assert (
        transformers.AutoTokenizer.from_pretrained(imported).model_input_names[1] == "token_type_ids"
    )  # the published one lacks it


def test_what_was_imported_is_recorded(published, imported):
    record = json.loads((imported / "provenance.json").read_text())
    (source,) = record["parents"]
    assert (source["role"], source["path"], source["provenance"]) == ("imported", str(published), "unknown")
    assert {entry["path"] for entry in record["outputs"]} >= {"spiece.model", "tokenizer.json", "manifest.json"}
    assert (imported / "spiece.model").read_bytes() == (published / "spiece.model").read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("tokenizer.json", lambda content: content["normalizer"]["normalizers"].pop(0), "its normalizer is"),
        ("tokenizer.json", lambda content: content["normalizer"]["normalizers"].insert(3, {"type": "NFC"}), "its normalizer is"),
        ("tokenizer.json", lambda content: content["pre_tokenizer"]["pretokenizers"].pop(0), "its pre_tokenizer is"),
        ("tokenizer.json", lambda content: content.update(post_processor=None), "its post_processor is null"),
        ("tokenizer.json", lambda content: content["model"].update(byte_fallback=True), "model's byte_fallback is true"),
        (
            "tokenizer.json",
            lambda content: content["added_tokens"].append(content["added_tokens"][0] | {"id": 800, "content": "covid"}),
            '"covid"',
        ),
        ("tokenizer.json", lambda content: content["model"]["vocab"].insert(0, ["<s>", 0.0]), "expected <pad> at id 0, found <s>"),
        ("tokenizer.json", lambda content: content.update(normalizer=None), "no `Precompiled` normalizer"),
        (
            "tokenizer.json",
            lambda content: content["model"].update(type="WordPiece", unk_token="<unk>", vocab={"<unk>": 0}, **WORDPIECE),
            "found WordPiece. Train a vocabulary on your own text",
        ),
        ("tokenizer.json", b"", "is no tokenizer that can be read"),
        (
            "tokenizer.json",
            lambda content: content["normalizer"]["normalizers"][-2].update(precompiled_charsmap="AAAA"),
            "is no tokenizer that can be read",
        ),
        ("tokenizer.json", None, "spiece.model alone will not do"),
        ("tokenizer_config.json", lambda content: content.update(do_lower_case=False), "says do_lower_case: false, and"),
        ("tokenizer.json", lambda content: content["normalizer"]["normalizers"].pop(4), "do_lower_case: true by saying nothing"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("spiece.model", b"years of work", "is no SentencePiece model"),
        ("spiece.model", b"", "id 0: None and '<pad>'"),
    ],
)
def test_a_tokenizer_that_releases_read_differently_is_refused(published, tmp_path, name, change, expected):
    source = changed(published, tmp_path / "hub", name, change)
    with pytest.raises(UserError) as caught:
        import_tokenizer(source, tmp_path / "tokenizer")
    assert expected in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"hub"}


def test_data_is_not_prepared_with_a_foreign_chain(published, corpus, tmp_path):
    source = changed(published, tmp_path / "hub", "tokenizer.json", lambda content: content["normalizer"]["normalizers"].pop(0))
    with pytest.raises(UserError, match="its normalizer is"):
        prepare(options(corpus, source, tmp_path / "data"))


def test_a_tokenizer_is_trained_or_imported(albert, published, tmp_path):
    both = ("--from_hf", published, "--input", tmp_path, "--vocab_size", 99, "--output", tmp_path / "tokenizer")
    assert "--input, --vocab_size cannot be given with it" in albert("tokenizer", *both, code=2).stderr
    assert "or give --from_hf" in albert("tokenizer", "--output", tmp_path / "tokenizer", code=2).stderr
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    assert "holds something else" in albert("tokenizer", *both[:2], "--output", tmp_path / "thesis", code=2).stderr


def test_a_folder_with_a_wordpiece_vocabulary_alone_is_told_what_can_be_done(published, tmp_path):
    source = changed(published, tmp_path / "hub", "tokenizer.json", None)
    (source / "spiece.model").unlink()
    (source / "vocab.txt").write_text("[PAD]\n[UNK]\n##ing\n")
    with pytest.raises(UserError, match="vocab.txt is a WordPiece vocabulary.*albert tokenizer --input CORPUS"):
        import_tokenizer(source, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="vocab.txt: its vocabulary is WordPiece.*Begin with an ALBERT that has a SentencePiece"):
        check_init_from(replace(SHAPE, init_from=source))


# The weights


def begin(folder: Path, pieces: list[str], config=SHAPE):
    """(weights before, weights after, what became of the rows)."""
    config = replace(config, init_from=folder)
    model = Albert(config, len(pieces))
    model.initialize(0.02, torch.Generator().manual_seed(0))
    rows, lacking = load_init_weights(model, config, pieces, seed=0)
    assert lacking == []
    theirs = load_file(folder / "model.safetensors")
    before = {WORDS: theirs["albert.embeddings.word_embeddings.weight"], "mlm_head.bias": theirs["predictions.bias"]}
    return before, model.state_dict(), rows


def test_rows_follow_their_pieces(published, imported):
    pieces = Encoder(imported).pieces
    others = [*pieces[:5], *pieces[:99:-1], "▁Government", "▁한국", "ﬁ"]
    assert not {"▁Government", "▁한국", "ﬁ"} & set(pieces)
    before, after, rows = begin(published, others)
    for name in before:
        assert torch.equal(after[name][:5], before[name][:5])
        assert torch.equal(after[name][5:-3], before[name][100:].flip(0))
        parts = [pieces.index(piece) for piece in encoded(imported, "government")]
        torch.testing.assert_close(after[name][-3], before[name][parts].mean(0), atol=1e-6, rtol=0)  # fp32, a few terms
        parts = [pieces.index(piece) for piece in encoded(imported, "fi", joined=True)]
        torch.testing.assert_close(after[name][-1], before[name][parts].mean(0), atol=1e-6, rtol=0)
        z = (after[name][-2] - before[name][5:].mean(0)) / before[name][5:].std(0)
        assert 0 < z.abs().max() < 5
    assert rows._asdict() == {"kept": 705, "composed": 2, "drawn": 1, "moved": 699}


def encoded(tokenizer: Path, text: str, *, joined: bool = False) -> list[str]:
    """Pieces of a word, or of what goes on with one."""
    model = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).model
    return [token.value for token in model.tokenize(text if joined else f"▁{text}")]


def test_the_same_pieces_keep_all_weights_even_where_rows_were_padded(published, imported, tmp_path):
    before, after, rows = begin(published, pieces := Encoder(imported).pieces)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert str(rows) == "its pieces are those of the data: all 800 keep their rows"
    padded = changed(published, tmp_path / "padded", "config.json", lambda content: content.update(vocab_size=808))
    weights = load_file(padded / "model.safetensors")
    for name in ("albert.embeddings.word_embeddings.weight", "predictions.bias"):
        weights[name] = torch.cat([weights[name], torch.full_like(weights[name][:8], 9.0)])
    save_file(weights, padded / "model.safetensors")
    again = begin(padded, pieces)[1]
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_parts_that_the_folder_lacks_begin_at_random(published, imported, tmp_path):
    source = shutil.copytree(published, tmp_path / "hub")
    weights = load_file(source / "model.safetensors")
    theirs = {name: tensor for name, tensor in weights.items() if not name.startswith(("sop_classifier", "predictions"))}
    save_file(theirs, source / "model.safetensors")
    model = Albert(SHAPE, 800)
    model.initialize(0.02, torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows, lacking = load_init_weights(model, replace(SHAPE, init_from=source), Encoder(imported).pieces, seed=0)
    assert lacking == ["mlm_head", "sop_head"]
    assert rows.kept == 800
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {name for name in before if name.startswith(("mlm_head", "sop_head"))}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", lambda content: content["model"]["vocab"].append(["more", -1.0]), "one is of another model"),
        (
            "tokenizer.json",
            lambda content: content["model"].update(type="WordLevel", unk_token="<unk>", vocab={"<unk>": 0}),
            "its vocabulary is WordLevel, whose pieces do not compare with those of SentencePiece (Unigram), so no row can be "
            "kept. Begin with an ALBERT that has a SentencePiece vocabulary",
        ),
        ("model.safetensors", None, "Pickled weights are not read"),
        ("model.safetensors", b"half", "model.init_from: "),
        ("config.json", None, "config.json cannot be read"),
        ("config.json", lambda content: content.update(layer_norm_eps=1e-5), "layer_norm_eps is 1e-05"),
        ("config.json", lambda content: content.update(num_attention_heads=5), "num_attention_heads: must divide"),
    ],
)
def test_what_no_run_can_begin_with_is_said_without_reading_the_weights(published, tmp_path, name, change, expected):
    source = changed(published, tmp_path / "hub", name, change)
    with pytest.raises(UserError) as caught:
        check_init_from(replace(SHAPE, init_from=source))
    assert expected in str(caught.value)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_start_that_cannot_begin_ends_before_a_process_is_started(published, synthetic, run_config, tmp_path, dry_run):
    source = changed(published, tmp_path / "hub", "tokenizer.json", None)
    overrides = [f"model.init_from={source}"]
    options = LaunchOptions(config=run_config, data=synthetic, output=tmp_path / "run", overrides=overrides, dry_run=dry_run)
    with pytest.raises(UserError, match=r"^model\.init_from: .* has no tokenizer\.json"):
        launch(options)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_fields_of_the_model_are_taken_over_or_must_agree(published, run_config, synthetic, tmp_path):
    given = [("data.path", str(synthetic)), ("model.init_from", str(published))]
    assert load_config(run_config, given).model == replace(SHAPE, init_from=published)
    as_v1 = {"hidden_dropout_prob": 0.1, "hidden_act": "gelu"}
    dropping = changed(published, tmp_path / "v1", "config.json", lambda content: content.update(as_v1))
    shape = [(f"model.{name}", str(getattr(SHAPE, name))) for name in SHAPE_FIELDS]
    for fields in ([], shape):
        taken = load_config(run_config, [given[0], ("model.init_from", str(dropping)), *fields]).model
        assert (taken.hidden_dropout, taken.hidden_act) == (0.1, "gelu")
        check_init_from(taken)
    assert load_config(run_config, [*given, ("model.hidden_dropout", "0.2")]).model.hidden_dropout == 0.2
    same = changed(published, tmp_path / "same", "config.json", lambda content: content.update(hidden_act="gelu_pytorch_tanh"))
    assert load_config(run_config, [given[0], ("model.init_from", str(same))]).model.hidden_act == "gelu_new"
    other = load_config(run_config, [*given, ("model.hidden_size", "64"), ("model.num_hidden_layers", "3")])
    with pytest.raises(UserError) as caught:
        load_init_weights(Albert(other.model, 800), other.model, ["<pad>"] * 800, seed=0)
    assert "hidden_size: the folder has 32, this run 64\n  - num_hidden_layers: the folder has 2, this run 3" in str(caught.value)


def test_a_run_begun_before_the_activation_was_a_field_goes_on_with_gelu_new_without_the_folder(run_config, synthetic, tmp_path):
    given = [("data.path", str(synthetic)), *((f"model.{name}", str(value)) for name, value in asdict(SHAPE).items() if value)]
    config = load_config(run_config, given)
    config = replace(config, model=replace(config.model, init_from=tmp_path / "gone"))
    content = to_plain(config)
    del content["model"]["hidden_act"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert load_config(tmp_path / "config.yaml") == config
    assert differences(load_config(tmp_path / "config.yaml"), config) == []


# The whole way


def test_a_published_model_trains_on_with_its_own_tokenizer(published, own_data, run_config, albert, tmp_path):
    run = tmp_path / "run"
    where = ("--config", run_config, "--data", own_data, "--model.init_from", published, "--output", run)
    assert "its pieces are those of the data: all 800 keep their rows" in albert("launch", *where).stdout
    result = evaluate(EvaluateOptions(model=[str(published), str(run)], data=own_data, checkpoint="1", device="cpu"))
    of_theirs, of_ours = (column["masked_lm"] for column in result["columns"][-2:])
    assert of_theirs == of_ours
    validation = records(run, "validation")[0]
    assert validation["step"] == 0
    assert validation["mlm_loss"] == pytest.approx(of_theirs["loss"], abs=1e-5)  # fp32, cut into other micro-batches
    albert("export", "--run", run, "--output", tmp_path / "hf")
    weights, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "hf", published))
    assert weights.keys() == before.keys()
    assert not torch.equal(weights["predictions.bias"], before["predictions.bias"])


def test_a_published_model_trains_on_with_another_vocabulary(published, imported, data, run_config, albert, tmp_path):
    run = tmp_path / "run"
    said = albert("launch", "--config", run_config, "--data", data, "--model.init_from", published, "--output", run)
    theirs, ours = (Encoder(folder).pieces for folder in (imported, data / "tokenizer"))
    shared = [piece for piece in ours if piece in set(theirs)]
    assert f"of the 2,000 pieces of the data {len(shared):,} keep their rows" in said.stdout
    rows = json.loads((run / "provenance.json").read_text())["parents"][1]["rows"]
    assert rows["kept"] == len(shared) > 300
    assert rows["kept"] + rows["composed"] + rows["drawn"] == 2000
    before = load_file(published / "model.safetensors")["albert.embeddings.word_embeddings.weight"]
    after = load_file(run / "checkpoints" / "step-1" / "model.safetensors")[WORDS]
    places = [[pieces.index(piece) for piece in shared] for pieces in (theirs, ours)]
    assert torch.equal(before[places[0]], after[places[1]])
