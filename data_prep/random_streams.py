"""Keyed streams of random numbers, compiled: the same key gives the same numbers on any machine, worker or numpy.

In: the words of a key (seed, purpose, and mostly copy and document). Out: a state, and draws from it. No global state: what a
document gets depends on nothing but its key, so pairs and masks do not disturb each other and work can be cut anywhere.

SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17; it passes BigCrush.
"""

import numpy as np

from data_prep.compiled import compiled

PAIRS, MASKS, VALIDATION, SHUFFLE, MIXING = 1, 2, 3, 4, 5
"""Purposes: each has streams of its own."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S11, S27, S30, S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)
"""Shifts as uint64: numba turns uint64 with a signed integer into float64."""


@compiled
def start(seed, purpose, copy, input_index, offset, section):
    """State of the stream with this key: uint64 array of length 1. Arguments: integers >= 0."""
    state = np.zeros(1, np.uint64)
    for word in (seed, purpose, copy, input_index, offset, section):
        state[0] = mix((state[0] + GOLDEN) ^ np.uint64(word))
    return state


@compiled
def next_u64(state):
    """The stream's next 64 bits; moves the state on."""
    state[0] += GOLDEN
    return mix(state[0])


@compiled
def uniform(state):
    """float64 uniform in [0, 1)."""
    return np.float64(next_u64(state) >> S11) * 2.0**-53


@compiled
def below(state, limit):
    """Integer uniform in [0, limit); its bias is under limit / 2**53."""
    return np.int64(uniform(state) * limit)


@compiled
def mix(bits):
    bits = (bits ^ (bits >> S30)) * MIX_1
    bits = (bits ^ (bits >> S27)) * MIX_2
    return bits ^ (bits >> S31)
