"""SentencePiece's compiled table of nmt_nfkc, the normalisation of ALBERT, with one rule changed: U+200C stays.

nmt_nfkc makes a space of the zero-width non-joiner, so that Persian می‌خواهد and Bengali উদ্‌ঘাটন become two words each, and no
model can write them. The joiner U+200D, which it leaves alone, needs no change. The table goes with the vocabulary
(tokenizer.json, spiece.model), so every reader of an exported folder follows it.

Format (sentencepiece, src/normalizer.cc, EncodePrecompiledCharsMap): uint32 bytes of the trie; the trie, a double array of
darts-clone, whose leaves hold byte offsets; UTF-8 strings, each with a NUL, to which they point.
"""

import functools
import io
import struct

import numpy as np

NON_JOINER = "\u200c"

HAS_LEAF, LEAF = 1 << 8, 1 << 31
"""Bits of a unit: beneath this node lies a value; this unit is one."""

BLOCK = 256
"""Units that the children of a node may take."""


@functools.cache
def charsmap() -> bytes:
    """About 240 kB."""
    return with_identity(nmt_nfkc(), NON_JOINER)


@functools.cache
def nmt_nfkc() -> bytes:
    """As SentencePiece has it, taken from a model of six letters (some milliseconds)."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"]),
        model_writer=model,
        vocab_size=32,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=3,
    )
    return sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap


def with_identity(table: bytes, character: str) -> bytes:
    """The table, but that `character`, which it replaces alone, is replaced by itself.

    Equal values share a leaf, so the node of `character` is led to a new one, in a block of its own after all others.

    Raises:
        ValueError: the table has no rule for it, or one for a text that begins with it.
    """
    (trie_size,) = struct.unpack_from("<I", table)
    units = np.frombuffer(table, "<u4", trie_size // 4, 4)
    strings = table[4 + trie_size :]
    node = _find(units, character.encode())
    leaf = -len(units) % BLOCK + len(units)
    units = np.concatenate([units, np.zeros(leaf + BLOCK - len(units), "<u4")])
    units[node] = (node ^ leaf) << 10 | HAS_LEAF | units[node] & 0xFF
    units[leaf] = LEAF | len(strings)
    return struct.pack("<I", units.nbytes) + units.tobytes() + strings + character.encode() + b"\0"


def _find(units: np.ndarray, key: bytes) -> int:
    """The node of `key`, which has a value and no children."""
    node = 0
    for byte in key:
        node ^= _offset(int(units[node])) ^ byte
        if node >= len(units) or units[node] & (LEAF | 0xFF) != byte:
            raise ValueError(f"no rule for {key!r}")
    block = units[(node ^ _offset(int(units[node]))) ^ np.arange(BLOCK)]
    if not units[node] & HAS_LEAF or (block & (LEAF | 0xFF) == np.arange(BLOCK))[1:].any():
        raise ValueError(f"no rule for {key!r} alone")
    return node


def _offset(unit: int) -> int:
    """What leads from a node to its children, by exclusive or."""
    return (unit >> 10) << ((unit & 1 << 9) >> 6)
