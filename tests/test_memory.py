"""The estimate of memory: against what autograd keeps, and against the peak of a run."""

import itertools

import pytest
import torch
from runs import figures

from data_prep.schema import read_manifest
from pretrain.config import ModelConfig
from pretrain.config_file import load_config
from pretrain.memory import estimate_memory, kept_by_layer
from pretrain.micro_batch import full_batch
from pretrain.model import Albert

SIZES, LENGTH = (2, 4), 48


def kept_bytes(num_layers: int, dtype: torch.dtype, num_masked: int = 7, **dropout: float) -> int:
    """Bytes of the tensors, each counted once, that a forward pass keeps."""
    config = ModelConfig(
        embedding_size=16, hidden_size=64, num_hidden_layers=num_layers, num_attention_heads=4, intermediate_size=160, **dropout
    )
    model = Albert(config, vocab_size=50)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        model(full_batch(3, LENGTH, num_masked))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    ("dtype", "hidden_dropout", "attention_dropout"),
    list(itertools.product([torch.float32, torch.bfloat16], [0.0, 0.1], [0.0, 0.1])),
)
def test_what_a_layer_keeps_is_what_is_counted(dtype, hidden_dropout, attention_dropout):
    dropout = {"hidden_dropout": hidden_dropout, "attention_dropout": attention_dropout}
    few, many = (kept_bytes(size, dtype, **dropout) for size in SIZES)
    config = ModelConfig(embedding_size=16, hidden_size=64, num_attention_heads=4, intermediate_size=160, **dropout)
    counted = kept_by_layer(config, half=dtype.itemsize, stream=dtype.itemsize, longest=LENGTH, has_flash=False)
    assert (many - few) / (SIZES[1] - SIZES[0]) / (3 * LENGTH) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_the_last_layer_keeps_of_a_piece_that_is_read_is_what_is_counted(dropout):
    config = ModelConfig(embedding_size=16, hidden_size=64, num_attention_heads=4, intermediate_size=160, hidden_dropout=dropout)
    few, many = (kept_bytes(1, torch.float32, num_masked, hidden_dropout=dropout) for num_masked in (7, 27))
    nothing, half = (kept_by_layer(config, half=4, stream=4, longest=LENGTH, has_flash=False, read=read) for read in (0.0, 0.5))
    head = 4 * (64 + 3 * 16) + 3 * 8  # activations; mean and deviation, place and label
    assert (many - few) / (3 * 20) == pytest.approx(2 * (half - nothing) + head, rel=0.01)


LARGE = ["--model.intermediate_size", 4096, "--model.num_hidden_layers", 12, "--model.attention_dropout", 0]
LARGE += ["--training.global_batch_size", 64, "--training.micro_batch_size", 64, "--training.steps", 3]


def test_the_peak_of_a_run_is_near_the_estimate_and_far_lower_where_layers_are_computed_again(launch, synthetic, tmp_path):
    """Some 700 MB; the interpreter and its libraries take some tens beside."""
    run_folder = tmp_path / "run"
    output = launch(run_folder, *LARGE, num_procs=1).stdout
    measured, estimated = figures(run_folder, "peak_memory", "estimated_memory")[-1]
    assert f"about {estimated / 1e9:.2f} GB a process" in output
    manifest = read_manifest(synthetic)
    estimate = estimate_memory(load_config(run_folder / "config.yaml"), manifest, 64, 1, on_gpu=False)
    train = manifest.splits["train"]
    fill = train.pieces / train.instances / manifest.max_seq_length  # the estimate is for the longest sequences
    assert measured == pytest.approx(estimate.state + fill * (estimate.activations + estimate.working), abs=150e6)
    launch(tmp_path / "again", *LARGE, "--training.activation_checkpointing", "true", num_procs=1)
    again, estimated_again = figures(tmp_path / "again", "peak_memory", "estimated_memory")[-1]
    assert again < measured / 2
    assert estimated_again < estimated / 4


def test_the_share_of_padded_positions_is_that_of_the_kernel_at_work(launch, tmp_path):
    """Dropped attention weights are spelt out for padded sequences, of 29 and 8 pieces here; otherwise nothing is padded."""
    mixed = ["--training.bucket_by_length", "false", "--training.steps", 3]
    launch(tmp_path / "padded", *mixed)
    assert 0 < max(figures(tmp_path / "padded", "padding"))[0] < 0.5
    launch(tmp_path / "packed", *mixed, "--model.attention_dropout", 0)
    assert figures(tmp_path / "packed", "padding") == [[0.0]] * 3
