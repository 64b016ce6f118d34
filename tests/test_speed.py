"""What makes a step fast changes nothing but the time: compiled, recomputed, in chunks, in other kernels, read ahead."""

import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import CONFIG, assert_same_run, figures
from synthetic import VOCAB_SIZE
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from data_prep.schema import read_manifest
from pretrain import head, products
from pretrain.attention import Packing, attention_by_sequence, padded_attention
from pretrain.compilation import compiled_graphs
from pretrain.config import ModelConfig
from pretrain.config_file import load_config
from pretrain.data import Instance, collate, open_split
from pretrain.flops import step_flops
from pretrain.loader import Loader
from pretrain.model import Albert
from pretrain.products import PAYS_FROM_CALLS, join, linear

LENGTHS = (7, 1, 12, 5)


def test_a_compiled_run_has_the_same_losses_compiles_once_and_resumes_bitwise(launch, undisturbed, tmp_path):
    """Steps whose micro-batches have other numbers of pieces each, on 2 ranks, with dropout."""
    compiled = ["--training.compile", "true"]

    def launch_compiled(run_folder, cache, *options):
        launch(run_folder, *compiled, *options, timeout=400, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / cache))

    launch_compiled(tmp_path / "whole", "cache")
    ours, plain = (figures(folder, "loss", "mlm_loss", "grad_norm") for folder in (tmp_path / "whole", undisturbed))
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    graphs = [count for (count,) in figures(tmp_path / "whole", "compiled_graphs")]
    # the layer for training and for validation; LAMB's first pass with and without weight decay, and its second
    assert set(graphs) == {5}
    assert figures(tmp_path / "whole", "compile_seconds")[0][0] > 0
    launch_compiled(tmp_path / "halves", "cache", "--training.steps", 5)
    launch_compiled(tmp_path / "halves", "another")  # compiled anew, as on another machine
    assert {count for (count,) in figures(tmp_path / "halves", "compiled_graphs")} == {5}
    keys = ("loss", "grad_norm", "weight_norm", "rows_crc32")
    assert figures(tmp_path / "halves", *keys) == figures(tmp_path / "whole", *keys)


def test_activation_checkpointing_is_bitwise_the_same_run(launch, undisturbed, tmp_path):
    launch(tmp_path / "run", "--training.activation_checkpointing", "true")
    assert_same_run(tmp_path / "run", undisturbed)


def test_compiled_and_with_activation_checkpointing_at_once_the_losses_are_the_same(launch, undisturbed, tmp_path):
    options = ["--training.compile", "true", "--training.activation_checkpointing", "true"]
    launch(tmp_path / "run", *options, timeout=400)
    ours, plain = (figures(folder, "loss", "grad_norm") for folder in (tmp_path / "run", undisturbed))
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    assert len({count for (count,) in figures(tmp_path / "run", "compiled_graphs")}) == 1


def test_a_profile_shows_the_parts_of_a_step_and_changes_nothing(launch, undisturbed, tmp_path):
    output = launch(tmp_path / "run", "--logging.profile_steps", 2).stdout
    folder = tmp_path / "run" / "profile"
    assert f"profile of 2 step(s): {folder}/steps-3-4.txt" in output
    parts = dict(re.findall(r"^(\w+) +([\d,.]+) ms a step$", (folder / "steps-3-4.txt").read_text(), re.MULTILINE))
    assert list(parts) == ["read", "forward", "backward", "optimizer"]
    assert all(float(milliseconds) > 0 for milliseconds in parts.values())
    with gzip.open(folder / "steps-3-4.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("optimizer") == 2
    assert names.count("forward") == 4  # rank 0 has two micro-batches a step
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_missing_compiler_is_a_user_error(launch, tmp_path):
    error = launch(tmp_path / "run", "--training.compile", "true", code=2, CXX="absent", PATH="/nowhere").stderr
    assert "training.compile: torch.compile needs a compiler, and absent is not to be found" in error


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_the_loss_in_chunks_has_the_value_and_the_gradients_of_the_loss_in_one(chunk_rows, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_rows * 11)
    generator = torch.Generator().manual_seed(0)
    hidden, decoder, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((7, 5), (11, 5), (11,))
    )
    labels = torch.randint(11, (7,), generator=generator)
    loss, correct = head.masked_lm_loss(hidden, decoder, bias, labels)
    logits = F.linear(hidden, decoder, bias)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert correct == (logits.argmax(-1) == labels).sum()
    ours, theirs = (torch.autograd.grad(3.0 * each, (hidden, decoder, bias)) for each in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_without_gradients_none_are_computed(monkeypatch):
    hidden, decoder, bias = torch.ones(2, 3), torch.ones(5, 3, requires_grad=True), torch.zeros(5, requires_grad=True)
    monkeypatch.setattr(torch, "zeros_like", lambda tensor: 1 / 0)  # where the gradients are summed up
    with torch.no_grad():
        head.masked_lm_loss(hidden, decoder, bias, torch.tensor([0, 1]))
    with pytest.raises(ZeroDivisionError):
        head.masked_lm_loss(hidden, decoder, bias, torch.tensor([0, 1]))


@pytest.mark.parametrize("query_lengths", [LENGTHS, (2, 1, 4, 1)])
def test_all_kernels_of_attention_agree_values_and_gradients(query_lengths):
    generator = torch.Generator().manual_seed(0)
    queries, keys = make_packing(query_lengths), make_packing(LENGTHS)
    sizes = sum(query_lengths), sum(LENGTHS), sum(LENGTHS)
    tensors = [torch.randn(size, 4, 8, generator=generator, requires_grad=True) for size in sizes]
    weights = torch.randn(sum(query_lengths), 4, 8, generator=generator)
    results = []
    for kernel in (attention_by_sequence, lambda *arguments: padded_attention(*arguments, None)):
        context = kernel(*tensors, queries, keys)
        results.append((context, *torch.autograd.grad((context * weights).sum(), tensors)))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def make_packing(lengths: tuple[int, ...]) -> Packing:
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    return Packing(lengths, starts, torch.cat([torch.arange(length) for length in lengths]))


@pytest.mark.parametrize("num_rows", [1, 37, 300])
def test_a_product_with_a_matrix_laid_out_beforehand_is_the_product_value_and_gradients(num_rows, monkeypatch):
    monkeypatch.setattr(products, "PAYS_FROM_SIZE", 0)
    generator = torch.Generator().manual_seed(0)
    layers = [torch.nn.Linear(48, 64), torch.nn.Linear(48, 64)]
    x = torch.randn(num_rows, 48, generator=generator, requires_grad=True)
    weights = torch.randn(num_rows, 128, generator=generator)
    leaves = [x, *(tensor for layer in layers for tensor in (layer.weight, layer.bias))]
    results, packed = [], []
    for num_calls in (1, PAYS_FROM_CALLS):
        matrix = join(layers, num_rows, num_calls)
        packed.append(matrix.packed is not None)
        output = linear(x, matrix)
        results.append((output, *torch.autograd.grad((output * weights).sum(), leaves)))
    assert packed == [False, torch.backends.mkldnn.is_available()]
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("recompute", "hidden_act"), [(False, "gelu_new"), (False, "gelu"), (True, "relu")])
def test_a_model_with_matrices_laid_out_beforehand_has_the_losses_and_gradients_of_one_without(recompute, hidden_act, monkeypatch):
    """Two groups of layers, one of the four calls that it pays from; compiled, for several numbers of pieces."""
    config = ModelConfig(
        embedding_size=8, hidden_size=16, num_hidden_layers=8, num_hidden_groups=2, num_attention_heads=2, intermediate_size=32
    )
    config = replace(config, hidden_act=hidden_act)
    torch.compiler.reset()  # what an earlier test has compiled is not counted
    results, counts = [], []
    for size in (1 << 40, 0):
        monkeypatch.setattr(products, "PAYS_FROM_SIZE", size)
        model = Albert(config, VOCAB_SIZE)
        model.initialize(0.2, torch.Generator().manual_seed(0))
        model.encoder.recompute = recompute
        if size == 0 and not recompute:
            model.encoder.compile_layer()
        before, losses = compiled_graphs(), []
        for length in (9, 20, 14):
            instance = Instance(np.arange(length) + 5, 4, 1, np.array([3, 4, 7]), np.array([7, 8, 9]))
            sums = model(collate([instance] * 3))
            (sums.mlm_loss + sums.sop_loss).backward()
            losses.append(sums.mlm_loss.item())
            counts.append(compiled_graphs() - before)
        results.append((torch.tensor(losses), *(parameter.grad for parameter in model.parameters())))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)
    assert counts == ([0] * 6 if recompute else [0] * 3 + [3] * 3)  # parts between the products, each compiled once


def test_half_precision_has_pytorchs_own_products(monkeypatch):
    monkeypatch.setattr(products, "PAYS_FROM_SIZE", 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert join([torch.nn.Linear(8, 8)], 4, PAYS_FROM_CALLS).packed is None


def test_flops_are_those_that_pytorch_counts():
    """With attention spelt out, forward and backward, over sequences of one length, so that none is padded."""
    config = ModelConfig(
        embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, attention_dropout=0.1
    )
    instance = Instance(np.arange(20) + 5, 9, 1, np.array([3, 4, 11]), np.array([7, 8, 9]))
    batch = collate([instance] * 4, torch.arange(4, dtype=torch.int32))
    with FlopCounterMode(display=False) as counter:
        sums = Albert(config, VOCAB_SIZE)(batch)
        (sums.mlm_loss + sums.sop_loss).backward()
    assert step_flops(config, VOCAB_SIZE, np.array(batch.lengths), num_masked=12) == counter.get_total_flops()


@pytest.fixture
def loader(small_config, synthetic):
    config = load_config(small_config, [("data.path", f'"{synthetic}"')])
    loader = Loader(open_split(synthetic, read_manifest(synthetic), "train"), config, 2, torch.device("cpu"))
    yield loader
    loader.close()


def test_what_is_read_ahead_is_what_would_be_read_and_a_wrong_guess_is_read_again(loader):
    first, second, other = (np.arange(start, start + 8) for start in (0, 8, 30))
    loader.get(0, first, second)
    same(loader.get(1, second, other), loader.read(1, second))
    same(loader.get(1, second, other), loader.read(1, second))  # after a rollback: another step than the one begun
    same(loader.get(2, first, None), loader.read(2, first))  # past left-out samples: others than those begun
    assert loader.ahead is None


def same(left, right) -> None:
    assert np.array_equal(left.rows, right.rows)
    for ours, theirs in zip(left.micro_batches, right.micro_batches, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_an_error_of_reading_ahead_reaches_the_step_that_needs_it(loader, monkeypatch):
    loader.get(0, np.arange(8), None)
    monkeypatch.setattr(loader.split, "read", lambda rows: 1 / 0)
    loader.ahead = 1, np.arange(8, 16), loader.thread.submit(loader.read, 1, np.arange(8, 16))
    with pytest.raises(ZeroDivisionError):
        loader.get(1, np.arange(8, 16), None)


def test_the_small_config_does_not_compile():
    """Or every start of the tests would take seconds longer."""
    assert "compile: false" in CONFIG
