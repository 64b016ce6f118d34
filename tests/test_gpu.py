"""What only a GPU shows; skipped without one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import tensors
from safetensors.torch import save_file
from synthetic import VOCAB_SIZE, write_synthetic_data

from pretrain.attention import Packing, chosen_kernel, packed_attention, padded_attention
from pretrain.comparison import evaluate
from pretrain.config import ModelConfig
from pretrain.evaluate_options import EvaluateOptions
from pretrain.hf_weights import hf_config, to_hf_weights
from pretrain.model import Albert
from pretrain.optimizer import build_optimizer, set_lr

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")

ROOT = Path(__file__).parent.parent
SMALL = ["--model.hidden_size", 64, "--training.global_batch_size", 8, "--training.steps", 6, "--logging.every_n_steps", 1]
SMALL += ["--logging.wandb", "disabled", "--checkpoint.every_n_steps", 3]
LENGTHS = (130, 1, 77, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic")


def losses(run_folder: Path) -> list[float]:
    lines = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [record["mlm_loss"] for record in lines if record["event"] == "train"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_run_on_the_gpu_follows_the_run_on_the_cpu(albert, data, tmp_path, dtype):
    for device, precision in (("cpu", "fp32"), ("cuda", dtype)):
        where = ("--config", ROOT / "configs" / "demo.yaml", "--data", data, "--output", tmp_path / device)
        albert("launch", *where, *SMALL, "--precision.device", device, "--precision.dtype", precision, "--num_procs", 1)
    # bf16 keeps 8 bits, averaged over some forty pieces a step
    np.testing.assert_allclose(losses(tmp_path / "cuda"), losses(tmp_path / "cpu"), rtol=1e-4 if dtype == "fp32" else 0.02)


def test_a_resumed_run_on_the_gpu_is_bitwise_the_same_with_deterministic_kernels(albert, data, tmp_path):
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", data, "--precision.device", "cuda", "--precision.dtype", "bf16")
    where += ("--precision.deterministic", "true", "--model.hidden_dropout", 0.1, "--num_procs", 1, *SMALL)
    albert("launch", *where, "--output", tmp_path / "whole")
    albert("launch", *where, "--output", tmp_path / "halves", "--training.steps", 3)
    albert("launch", *where, "--output", tmp_path / "halves")
    ours, theirs = (tensors(tmp_path / name, step=6) for name in ("halves", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")


@pytest.mark.parametrize("cut", [(8, "false"), (4, "true"), (1, "true")])
def test_the_cut_of_the_batch_does_not_change_losses_in_bf16(cut, albert, data, tmp_path):
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", data, "--precision.device", "cuda", "--precision.dtype", "bf16")
    where += ("--model.hidden_dropout", 0.1, "--num_procs", 1, *SMALL)
    for name, (micro_batch_size, bucketed) in {"one": (8, "true"), "cut": cut}.items():
        how = ("--training.micro_batch_size", micro_batch_size, "--training.bucket_by_length", bucketed)
        albert("launch", *where, "--output", tmp_path / name, *how)
    # bf16 keeps 8 bits (0.4 %), averaged over some forty pieces a step
    np.testing.assert_allclose(losses(tmp_path / "cut"), losses(tmp_path / "one"), rtol=0.01)


@pytest.mark.parametrize("query_lengths", [LENGTHS, (20, 1, 12, 10)])
def test_packed_attention_is_padded_attention_values_and_gradients(query_lengths):
    generator = torch.Generator().manual_seed(0)
    queries, keys = make_packing(query_lengths), make_packing(LENGTHS)
    sizes = sum(query_lengths), sum(LENGTHS), sum(LENGTHS)
    tensors = [torch.randn(size, 4, 64, generator=generator).cuda().bfloat16().requires_grad_() for size in sizes]
    assert chosen_kernel(torch.device("cuda"), tensors[0].shape[-1], tensors[0].dtype, drops=False) == "packed"
    results = []
    for context in (packed_attention(*tensors, queries, keys), padded_attention(*tensors, queries, keys, None)):
        results.append((context, *torch.autograd.grad(context.float().square().sum(), tensors)))
    torch.testing.assert_close(*results, atol=0.05, rtol=0.05)  # bf16 keeps 8 bits


def make_packing(lengths: tuple[int, ...]) -> Packing:
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32).cuda()
    return Packing(lengths, starts, torch.cat([torch.arange(length) for length in lengths]).cuda())


def test_a_lamb_step_on_the_gpu_waits_for_nothing():
    from pretrain.config import ModelConfig, OptimizerConfig

    model = Albert(ModelConfig(embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=16), 40).cuda()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.00176))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")  # any wait for the device raises
    try:
        set_lr(optimizer, 1e-3)
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_figures_of_evaluate_on_the_gpu_are_those_on_the_cpu(data, tmp_path):
    config = ModelConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128)
    model = Albert(config, VOCAB_SIZE)
    model.initialize(0.2, torch.Generator().manual_seed(1))
    (tmp_path / "config.json").write_text(json.dumps(hf_config(config, VOCAB_SIZE)))
    save_file(to_hf_weights(model.state_dict(), config), tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(data / "tokenizer" / "tokenizer.json", tmp_path)
    found = [evaluate(EvaluateOptions(model=[str(tmp_path)], data=data, device=device)) for device in ("cpu", "cuda")]
    for cpu, gpu in zip(*(result["columns"][1:] for result in found), strict=True):
        for key in ("masked_lm", "sentence_order"):
            assert gpu[key]["loss"] == pytest.approx(cpu[key]["loss"], rel=1e-4)  # fp32, sums in another order
