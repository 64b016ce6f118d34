"""Reading order and batches: a permutation each epoch, cuts that change nothing, views instead of copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_synthetic_data

from data_prep.schema import read_manifest
from pretrain.cut import rank_slice
from pretrain.data import collate, micro_batches, open_split
from pretrain.sample_order import mix, permute, sample_rows
from tokenizer.errors import UserError
from tokenizer.special_tokens import CLS_ID, SEP_ID


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic", num_instances=2100)


@pytest.fixture(scope="module")
def split(folder):
    return open_split(folder, read_manifest(folder), "train")


@settings(deadline=None)
@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation_of_any_size(size, key):
    permuted = permute(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(permuted), np.arange(size))


def test_permute_seeks_without_the_rest():
    whole = permute(np.arange(10_000), 10_000, np.uint64(7))
    assert permute(np.array([1234]), 10_000, np.uint64(7))[0] == whole[1234]
    assert permute(np.array([10**12]), 10**12 + 1, np.uint64(7))[0] <= 10**12


def test_permutations_are_spread_and_differ_by_seed_and_epoch():
    size, samples = 4096, np.arange(8192)
    rows = sample_rows(samples, (size,), seed=0, window=1)
    first, second = rows[:size], rows[size:]
    assert np.array_equal(np.sort(second), np.arange(size))
    # of 4,096 places about 1 keeps its row by chance; neighbours are not neighbours any more
    assert (first == second).sum() < 10
    assert (first == np.arange(size)).sum() < 10
    assert (first == sample_rows(np.arange(size), (size,), seed=1, window=1)).sum() < 10
    assert (np.abs(np.diff(first)) == 1).sum() < 20
    # rows seen in the first quarter lie in every quarter of the file as often: 1,024 draws, standard deviation below 14
    assert np.all(np.abs(np.bincount(first[:1024] // 1024, minlength=4) - 256) < 70)


@settings(deadline=None)
@given(shard_rows=st.lists(st.integers(1, 60), min_size=1, max_size=20), window=st.integers(1, 25), seed=st.integers(0, 2**63))
def test_an_epoch_visits_each_row_once_a_window_of_shards_at_a_time(shard_rows, window, seed):
    size, shard_rows = sum(shard_rows), tuple(shard_rows)
    rows = sample_rows(np.arange(size), shard_rows, seed, window)
    assert np.array_equal(np.sort(rows), np.arange(size))
    shard_of = np.repeat(np.arange(len(shard_rows)), shard_rows)[rows]
    first_seen = list(dict.fromkeys(shard_of.tolist()))
    for begin in range(0, len(first_seen), window):  # all rows of a window's shards come before any other shard's
        group = first_seen[begin : begin + window]
        places = np.flatnonzero(np.isin(shard_of, group))
        assert np.array_equal(places, np.arange(places[0], places[0] + sum(shard_rows[shard] for shard in group)))
    someone = np.array([size // 2])
    assert sample_rows(someone, shard_rows, seed, window)[0] == rows[size // 2]


def test_a_billion_rows_need_no_list_of_them():
    shard_rows = (200_000,) * 5_000
    rows = sample_rows(np.array([0, 123_456_789, 999_999_999, 1_000_000_000]), shard_rows, seed=3, window=8)
    assert len(set(rows.tolist())) == 4
    assert rows.max() < 10**9


def test_mix_depends_on_both_numbers():
    keys = {int(mix(np.uint64(a), np.uint64(b))) for a in range(30) for b in range(30)}
    assert len(keys) == 900


@given(size=st.integers(1, 100), world=st.integers(1, 9))
def test_rank_slices_cover_the_batch_once_and_evenly(size, world):
    parts = [rank_slice(np.arange(size), rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), np.arange(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_instances_are_read_only_views_across_record_batches(split):
    assert len(split) == 2100
    rows = np.array([2099, 0, 1023, 1024, 2047, 2048])  # record batches hold 1,024 rows
    for row, instance in zip(rows, split.read(rows), strict=True):
        ids = instance.input_ids
        assert not ids.flags.owndata
        assert not ids.flags.writeable
        assert ids.dtype == np.uint16
        assert (ids[0], ids[-1]) == (CLS_ID, SEP_ID)
        assert len(instance.mlm_positions) == len(instance.mlm_labels) == (8 if row % 8 < 4 else 1)
    assert split.lengths(rows).tolist() == [len(instance.input_ids) for instance in split.read(rows)]


def test_collate_keeps_every_piece_segment_and_masked_position(split):
    instances = split.read(np.array([0, 5, 2]))
    batch = collate(instances)
    assert batch.lengths == tuple(len(instance.input_ids) for instance in instances)
    assert batch.starts_B1.tolist() == [0, *np.cumsum(batch.lengths)]
    parts = zip(*(x.split(batch.lengths) for x in (batch.input_ids_N, batch.segment_ids_N, batch.position_ids_N)), strict=True)
    for instance, (ids, segments, positions) in zip(instances, parts, strict=True):
        assert ids.tolist() == instance.input_ids.tolist()
        assert positions.tolist() == list(range(len(ids)))
        border = int(instance.segment_b_start) or len(ids)
        assert segments.tolist() == [0] * border + [1] * (len(ids) - border)
        assert ids[border - 1] == SEP_ID  # token type 0 through the first [SEP]
    places = [start + place for start, one in zip(batch.starts_B1.tolist(), instances, strict=False) for place in one.mlm_positions]
    assert batch.read_index_R[batch.mlm_index_M].tolist() == places
    assert batch.read_starts_B1.tolist() == [0, *np.cumsum(batch.read_lengths)]
    assert batch.read_index_R[batch.read_starts_B1[:-1]].tolist() == batch.starts_B1[:-1].tolist()
    assert len(batch.read_index_R) == len(places) + len(instances) == batch.read_starts_B1[-1]
    assert batch.mlm_labels_M.tolist() == [label for instance in instances for label in instance.mlm_labels]
    assert batch.sop_labels_B.tolist() == [instance.sentence_order_label for instance in instances]
    assert {field.dtype for field in batch if isinstance(field, torch.Tensor)} == {torch.int64, torch.int32}


def test_micro_batches_cover_the_rows_in_order(split):
    sizes = [len(batch.lengths) for batch in micro_batches(split, np.arange(7), 3)]
    assert sizes == [3, 3, 1]


def test_a_truncated_shard_is_a_user_error_that_names_it(tmp_path):
    folder = write_synthetic_data(tmp_path / "data")
    shard = folder / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        open_split(folder, read_manifest(folder), "train")
