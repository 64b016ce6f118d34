"""One global batch, however it is cut: processes, accumulation, length buckets, dropout; and the naive mean, which is not it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runs import CONFIG, figures, records
from synthetic import VOCAB_SIZE

from data_prep.schema import read_manifest
from pretrain.config import ModelConfig
from pretrain.cut import cut_batch, rank_slice
from pretrain.data import collate, micro_batches, open_split
from pretrain.dropout import keyed_dropout, sample_keys, subkeys
from pretrain.evaluate import batch_counts
from pretrain.model import Albert
from pretrain.sample_order import sample_rows

CUTS = [(1, 8, False), (1, 8, True), (1, 2, True), (1, 1, False), (2, 4, True), (2, 1, False), (4, 1, True), (4, 2, False)]
"""(processes, micro-batch size, length-bucketed) of a global batch of 8: accumulation is 1, 2, 4 or 8."""


def test_processes_accumulation_and_buckets_do_not_change_losses_and_gradients_with_dropout(launch, synthetic, tmp_path):
    seed = uneven_seed(synthetic)
    keys = ("loss", "mlm_loss", "sop_loss", "grad_norm")
    options = ["--training.seed", seed, "--training.steps", 20, "--checkpoint.every_n_steps", 20]
    runs = []
    for number, (processes, micro_batch_size, by_length) in enumerate(CUTS):
        cut = ["--training.micro_batch_size", micro_batch_size, "--training.bucket_by_length", str(by_length).lower()]
        launch(tmp_path / str(number), *options, *cut, num_procs=processes)
        runs.append(figures(tmp_path / str(number), *keys))
        assert [record["rows_crc32"] for record in records(tmp_path / str(number))] == [
            record["rows_crc32"] for record in records(tmp_path / "0")
        ]
    assert len(runs[0]) == 20
    for cut, run in zip(CUTS, runs, strict=True):
        np.testing.assert_allclose(run, runs[0], rtol=1e-5, err_msg=str(cut))


def test_the_naive_means_of_ranks_and_micro_batches_are_another_gradient(launch, synthetic, tmp_path):
    """What DeepSpeed does by itself over ranks and micro-batches would not pass the test above."""
    seed = uneven_seed(synthetic)
    launch(
        tmp_path / "run",
        "--training.seed",
        seed,
        "--training.steps",
        1,
        "--model.hidden_dropout",
        0,
        "--model.attention_dropout",
        0,
    )
    ours = figures(tmp_path / "run", "grad_norm")[0][0]
    assert abs(naive_grad_norm(synthetic, seed, num_parts=1) / ours - 1) < 1e-5
    for num_parts in (2, 4):
        assert abs(naive_grad_norm(synthetic, seed, num_parts) / ours - 1) > 1e-3


def uneven_seed(data: Path) -> int:
    """A shuffle seed whose first batch has a rank with 4 times the masked pieces of the other, which has no order label."""
    split = open_split(data, read_manifest(data), "train")
    for seed in range(10_000):
        (first,), (second,) = ([batch_counts([batch]).tolist() for batch in first_batch(split, seed, rank)] for rank in range(2))
        if first[0] >= 4 * second[0] and second[1] == 0:
            return seed
    raise AssertionError("no such seed")


def first_batch(split, seed: int, rank: int, num_ranks: int = 2):
    rows = sample_rows(rank_slice(np.arange(8), rank, num_ranks), split.shard_rows, seed, window=8)
    return list(micro_batches(split, rows, 8))


def naive_grad_norm(data: Path, seed: int, num_parts: int) -> float:
    """Gradient norm of the first step if every part of the batch took the mean over its own masked pieces and labels."""
    split = open_split(data, read_manifest(data), "train")
    model = Albert(ModelConfig(**small_model(hidden_dropout=0.0, attention_dropout=0.0)), VOCAB_SIZE)
    model.initialize(0.02, torch.Generator().manual_seed(seed))
    for part in range(num_parts):
        (batch,) = first_batch(split, seed, part, num_parts)
        masked, labelled = batch_counts([batch]).tolist()
        sums = model(batch)
        loss = sums.mlm_loss / masked + (sums.sop_loss / labelled if labelled else 0.0)
        (loss / num_parts).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()


def small_model(**changes) -> dict:
    return yaml.safe_load(CONFIG)["model"] | changes


def test_another_number_of_processes_goes_on_with_the_same_samples_and_losses(launch, tmp_path):
    launch(tmp_path / "whole", num_procs=1)
    launch(tmp_path / "parts", "--training.steps", 5, "--training.micro_batch_size", 3, num_procs=1)
    launch(tmp_path / "parts", num_procs=2)
    ours, theirs = (figures(tmp_path / name, "loss", "grad_norm") for name in ("parts", "whole"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    ours, theirs = (figures(tmp_path / name, "samples", "rows_crc32") for name in ("parts", "whole"))
    assert ours == theirs


@given(size=st.integers(1, 60), world=st.integers(1, 9), micro=st.integers(1, 9), seed=st.integers(0, 99), bucketed=st.booleans())
def test_a_cut_covers_the_batch_once_and_leaves_no_rank_empty(size, world, micro, seed, bucketed):
    world = min(world, size)
    lengths = np.random.default_rng(seed).integers(4, 512, size) if bucketed else None
    parts = cut_batch(size, world, micro, lengths)
    places = np.concatenate([chunk for part in parts for chunk in part])
    assert sorted(places.tolist()) == list(range(size))
    assert len(parts) == world
    assert all(1 <= len(chunk) <= micro for part in parts for chunk in part)
    assert all(parts)


def test_buckets_pad_less_and_deal_pieces_evenly():
    lengths = np.random.default_rng(0).integers(4, 512, 1024)

    def padded(parts):
        return sum(lengths[chunk].max() * len(chunk) for part in parts for chunk in part)

    bucketed, plain = cut_batch(1024, 4, 16, lengths), cut_batch(1024, 4, 16, None)
    # random lengths up to 512, padded to the longest of 16: nearly half is padding; of neighbours in order: a step of 16 in 1,024
    assert padded(plain) > 1.7 * lengths.sum()
    assert padded(bucketed) < 1.03 * lengths.sum()
    pieces = [sum(lengths[chunk].sum() for chunk in part) for part in bucketed]
    assert max(pieces) < 1.01 * min(pieces)


def test_dropout_drops_the_asked_share_evenly_over_positions_and_channels_and_scales_the_rest():
    x = torch.ones(16, 64, 96)
    dropped = keyed_dropout(x, 0.1, subkeys(sample_keys(np.arange(16), 0, 1)[:, None], torch.arange(64)))
    gone = (dropped == 0).double()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    # five standard deviations of a fair draw, for the whole and for each slice
    for dims, count in (((0, 1, 2), x.numel()), ((0, 1), 16 * 64), ((0, 2), 16 * 96), ((1, 2), 64 * 96)):
        assert (gone.mean(dims) - 0.1).abs().max() < 5 * (0.09 / count) ** 0.5
    # neighbours are independent: the share of pairs that both fall is 0.01
    for pairs in (gone[1:] * gone[:-1], gone[:, 1:] * gone[:, :-1], gone[..., 1:] * gone[..., :-1]):
        assert abs(pairs.mean() - 0.01) < 5 * (0.0099 / pairs.numel()) ** 0.5


def test_dropout_masks_differ_by_seed_step_sample_and_site():
    def mask(samples=0, seed=0, step=0, site=0):
        keys = subkeys(subkeys(sample_keys(np.array([samples]), seed, step), site)[:, None], torch.arange(32))
        return keyed_dropout(torch.ones(1, 32, 64), 0.5, keys) == 0

    first = mask()
    assert torch.equal(first, mask())
    for other in (mask(samples=1), mask(seed=1), mask(step=1), mask(site=1)):
        # half of 2,048 agree by chance, with a standard deviation of 23
        assert abs((first == other).sum().item() - 1024) < 5 * 23


@pytest.mark.parametrize(
    "dropout", [{"hidden_dropout": 0.3, "attention_dropout": 0.0}, {"hidden_dropout": 0.0, "attention_dropout": 0.3}]
)
def test_a_sample_drops_the_same_alone_and_among_others(dropout, synthetic):
    split = open_split(synthetic, read_manifest(synthetic), "train")
    model = Albert(ModelConfig(**small_model(**dropout)), VOCAB_SIZE)
    model.initialize(0.2, torch.Generator().manual_seed(0))
    keys = sample_keys(np.arange(6), 0, 0)
    instances = split.read(np.array([0, 5, 1, 6, 2, 7]))  # short ones among long ones
    batch = collate(instances, keys)
    together = model.hidden_states(batch).split(batch.read_lengths)
    alone = model.hidden_states(collate(instances[1:2], keys[1:2]))
    assert len(alone) < len(together[0])
    torch.testing.assert_close(together[1], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, model.eval().hidden_states(collate(instances[1:2])), atol=1e-2)  # and something was dropped


def test_dropout_without_keys_is_an_error_and_not_a_random_mask(synthetic):
    split = open_split(synthetic, read_manifest(synthetic), "train")
    with pytest.raises(ValueError, match="dropout_keys_B"):
        Albert(ModelConfig(**small_model()), VOCAB_SIZE)(collate(split.read(np.array([0]))))
