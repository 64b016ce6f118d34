"""The model against the published parameter counts and against Hugging Face's own implementation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from models import random_model
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence

from pretrain.config import ModelConfig
from pretrain.data import Instance, collate
from pretrain.hf_weights import check_hf_config, hf_config, to_hf_weights
from pretrain.init_from import load_init_weights
from pretrain.model import Albert, MicroBatch
from tokenizer.chain import SPECIAL_IDS, Recipe, build_chain
from tokenizer.charsmap import charsmap
from tokenizer.errors import UserError
from tokenizer.special_tokens import PAD_ID

transformers = pytest.importorskip("transformers", reason="parity with Hugging Face needs the extra `transformers`")

CONFIGS = Path(__file__).parent.parent / "configs"
PRESETS = [f"albert_{size}_{version}" for version in ("v1", "v2") for size in ("base", "large", "xlarge", "xxlarge")]
TINY = ModelConfig(
    embedding_size=16, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40
)
SHARING = [("all", 1), ("all", 2), ("attention", 1), ("ffn", 2), ("none", 1)]
ACTIVATIONS = ["gelu_new", "gelu", "relu"]


def preset_model(name: str) -> ModelConfig:
    return ModelConfig(**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"])


def make_model(config: ModelConfig, vocab_size: int = 50) -> Albert:
    return random_model(config, vocab_size, seed=1)


def begin_from(model: Albert, config: ModelConfig, folder: Path) -> None:
    """Weights of a Hugging Face folder, which gets a tokenizer of the same 50 pieces as the data."""
    pieces = [*SPECIAL_IDS, *(f"▁{'a' * number}" for number in range(1, 46))]
    build_chain(Recipe([(piece, -1.0) for piece in pieces], charsmap(), True, True)).save(str(folder / "tokenizer.json"))
    load_init_weights(model, replace(config, init_from=folder), pieces, seed=0)


def make_batch(vocab_size: int = 50, *, uneven: bool = True) -> MicroBatch:
    """Three sequences, all of 24 pieces or of 24, 12 and 21; four masked pieces, two order labels."""
    generator = np.random.default_rng(2)
    return collate(
        [
            Instance(generator.integers(5, vocab_size, length), 5, order, np.array(masked), 7 + np.array(masked))
            for length, order, masked in ((24, 0, [1, 4]), (12 if uneven else 24, 1, [2]), (21 if uneven else 24, -100, [3]))
        ]
    )


def padded(batch: MicroBatch) -> dict[str, torch.Tensor]:
    """The same sequences as Hugging Face takes them, with the masked pieces as `labels`."""
    labels = torch.full_like(batch.input_ids_N, -100).index_copy(0, batch.read_index_R[batch.mlm_index_M], batch.mlm_labels_M)
    fields = {
        "input_ids": (batch.input_ids_N, PAD_ID),
        "attention_mask": (torch.ones_like(batch.input_ids_N), 0),
        "token_type_ids": (batch.segment_ids_N, 0),
        "labels": (labels, -100),
    }
    return {
        name: pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)
        for name, (values, value) in fields.items()
    }


def hugging_face(model: Albert, config: ModelConfig, folder: Path, vocab_size: int = 50):
    """`AlbertForPreTraining`, loaded from an exported folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(config, vocab_size)))
    save_file(to_hf_weights(model.state_dict(), config), folder / "model.safetensors", metadata={"format": "pt"})
    return transformers.AlbertForPreTraining.from_pretrained(folder, output_loading_info=True)


@pytest.mark.parametrize(
    ("size", "encoder", "with_heads"),
    [
        ("base", 11_683_584, 11_813_810),
        ("large", 17_683_968, 17_847_474),
        ("xlarge", 58_724_864, 59_021_490),
        ("xxlarge", 222_595_584, 223_158_450),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_presets_have_the_published_parameter_counts(size, version, encoder, with_heads):
    config = preset_model(f"albert_{size}_{version}")
    with torch.device("meta"):
        model = Albert(config, 30_000)
    heads = sum(p.numel() for name, p in model.named_parameters() if "head" in name)
    assert sum(p.numel() for p in model.parameters()) == with_heads
    assert with_heads - heads == encoder
    dropout = 0.1 if version == "v1" and size != "xxlarge" else 0.0
    assert (config.hidden_dropout, config.attention_dropout) == (dropout, dropout)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_of_scaled_down_presets_equal_hugging_face(preset, uneven, tmp_path):
    config = preset_model(preset)
    config = replace(config, hidden_size=8 * config.num_attention_heads, intermediate_size=32 * config.num_attention_heads)
    config = replace(config, embedding_size=16, num_hidden_layers=3, max_position_embeddings=40)
    compare_logits(config, tmp_path, uneven=uneven)


@pytest.mark.parametrize(("share", "groups"), SHARING)
def test_logits_of_every_way_of_sharing_equal_hugging_face(share, groups, tmp_path):
    compare_logits(replace(TINY, share=share, num_hidden_groups=groups), tmp_path, uneven=True)


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_logits_of_every_activation_equal_hugging_face_and_no_other_ones(hidden_act, tmp_path):
    compare_logits(replace(TINY, hidden_act=hidden_act), tmp_path, uneven=True)
    for other in set(ACTIVATIONS) - {hidden_act}:
        (tmp_path / "config.json").write_text(json.dumps(hf_config(replace(TINY, hidden_act=other), 50)))
        with pytest.raises(UserError, match=f"hidden_act: the folder has '{other}', this run '{hidden_act}'"):
            check_hf_config(replace(TINY, hidden_act=hidden_act), tmp_path)


def compare_logits(config: ModelConfig, folder: Path, *, uneven: bool) -> None:
    model = make_model(config)
    theirs, info = hugging_face(model, config, folder)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = make_batch(uneven=uneven)
    with torch.no_grad():
        mlm_logits, sop_logits = model.logits(batch)
        inputs = padded(batch)
        labels = inputs.pop("labels")
        output = theirs.eval()(**inputs)
    expected = output.prediction_logits[labels != -100]
    assert expected.std() > 0.1  # logits that do not differ would prove nothing
    # fp32, a few hundred terms a sum: the error of a reordered sum is a few 1e-7 of logits of size 1 to 10
    torch.testing.assert_close(mlm_logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sop_logits, output.sop_logits, atol=1e-5, rtol=1e-5)


def test_loss_sums_equal_hugging_face_losses(tmp_path):
    model = make_model(TINY)
    theirs, _ = hugging_face(model, TINY, tmp_path)
    batch = make_batch()._replace(sop_labels_B=torch.tensor([0, 1, 1]))
    with torch.no_grad():
        sums = model(batch)
        output = theirs.eval()(**padded(batch), sentence_order_label=batch.sop_labels_B)
    torch.testing.assert_close(sums.mlm_loss / 4 + sums.sop_loss / 3, output.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("share", "groups"), SHARING)
def test_init_from_an_export_gives_the_same_weights(share, groups, tmp_path):
    config = replace(TINY, share=share, num_hidden_groups=groups)
    model = make_model(config)
    hugging_face(model, config, tmp_path)
    fresh = Albert(config, 50)
    begin_from(fresh, config, tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_init_from_a_bare_albert_model(tmp_path):
    theirs = transformers.AlbertModel(transformers.AlbertConfig(**hf_config(TINY, 50)))
    theirs.save_pretrained(tmp_path)
    model = Albert(TINY, 50)
    begin_from(model, TINY, tmp_path)
    assert torch.equal(model.pooler.weight, theirs.pooler.weight)
    assert torch.equal(model.encoder.ffns[0].up.weight, theirs.encoder.albert_layer_groups[0].albert_layers[0].ffn.weight)


def test_init_from_another_shape_names_every_difference(tmp_path):
    hugging_face(make_model(TINY), TINY, tmp_path)
    other = replace(TINY, hidden_size=64, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"(?s)hidden_size: the folder has 32, this run 64.*num_hidden_layers"):
        begin_from(Albert(other, 50), other, tmp_path)


def test_initial_weights_are_a_truncated_normal_with_zero_biases():
    model = Albert(replace(TINY, hidden_size=128), 2000)
    model.initialize(0.02, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.all(parameter == (1.0 if "layer_norm.weight" in name else 0.0)), name
    words = model.embeddings.word.weight
    assert words.abs().max() <= 0.04
    # a normal cut at two standard deviations has 0.880 of the standard deviation; 32,000 draws: standard error 0.4 %
    assert words.std().item() == pytest.approx(0.880 * 0.02, rel=0.015)


def test_a_sequence_does_not_see_its_neighbours():
    model = make_model(TINY)
    batch = make_batch()
    (_, ids, _), (_, segments, _) = (values.split(batch.lengths) for values in (batch.input_ids_N, batch.segment_ids_N))
    instance = Instance(ids.numpy(), int((segments == 0).sum()), 0, np.array([2]), np.array([0]))
    with torch.no_grad():
        alone, together = model.hidden_states(collate([instance])), model.hidden_states(batch)
    torch.testing.assert_close(together.split(batch.read_lengths)[1], alone, atol=1e-5, rtol=1e-5)
