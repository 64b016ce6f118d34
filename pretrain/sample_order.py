"""Which row is the next sample: a keyed shuffle in two steps, each epoch anew, that can be entered anywhere and stores nothing.

The shards of a split are permuted and taken a few at a time, a window; the rows of a window are permuted among themselves. So a
disk reads from a few files at a time, and an epoch of a billion rows needs no list of them. Each shard is a random sample of the
split (`albert prepare` shuffles), so windows take nothing from the mixing.
"""

import functools

import numpy as np

FEISTEL_ROUNDS = 6


def sample_rows(samples: np.ndarray, shard_rows: tuple[int, ...], seed: int, window: int) -> np.ndarray:
    """Rows (int64) of the samples (int64, counted from the start of the run): each epoch is a permutation of its own.

    shard_rows: rows of each shard of the split. window: shards that are shuffled together.
    """
    epochs, places = np.divmod(samples, sum(shard_rows))
    rows = np.empty_like(samples)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        rows[chosen] = epoch_rows(places[chosen], shard_rows, window, mix(np.uint64(seed), np.uint64(epoch)))
    return rows


def epoch_rows(places: np.ndarray, shard_rows: tuple[int, ...], window: int, key: np.uint64) -> np.ndarray:
    """Rows (int64) at these places (int64) of one epoch."""
    first_row, order, ends = shard_order(shard_rows, int(key))
    window_ends = np.append(ends[window - 1 : -1 : window], ends[-1])
    windows = np.searchsorted(window_ends, places, side="right")
    rows = np.empty_like(places)
    for number in np.unique(windows):
        chosen = windows == number
        begin, end = window_ends[number - 1] if number else 0, window_ends[number]
        shuffled = begin + permute(places[chosen] - begin, int(end - begin), mix(key, np.uint64(number + 1)))
        shards = np.searchsorted(ends, shuffled, side="right")
        rows[chosen] = first_row[order[shards]] + shuffled - (ends[shards] - np.diff(ends, prepend=0)[shards])
    return rows


@functools.lru_cache(maxsize=2)
def shard_order(shard_rows: tuple[int, ...], key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row of each shard; the shards in the order of the epoch; the number of rows up to the end of each in that order."""
    sizes = np.array(shard_rows, np.int64)
    order = permute(np.arange(len(sizes)), len(sizes), np.uint64(key))
    return np.cumsum(sizes) - sizes, order, np.cumsum(sizes[order])


def permute(indices: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """A keyed permutation of 0..size-1 at `indices` (int64): a balanced Feistel network, cycle-walked into the range.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002), section 5 and cycle walking.
    """
    half_bits = np.uint64(max(1, (max(1, size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    round_keys = [mix(key, np.uint64(number)) for number in range(FEISTEL_ROUNDS)]
    walking = indices.astype(np.uint64)
    outside = np.ones(len(walking), dtype=bool)
    while outside.any():
        left, right = walking[outside] >> half_bits, walking[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(round_key, right) & mask)
        walking[outside] = (left << half_bits) | right
        outside = walking >= size
    return walking.astype(np.int64)


def mix(a: np.uint64, b: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """A 64-bit hash of two numbers: splitmix64's finaliser (Steele et al. 2014) over each in turn."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(0x9E3779B97F4A7C15)
        for number in (np.uint64(0), b):
            x = (x ^ number) + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x
