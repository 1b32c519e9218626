"""Implements MurmurHash3 (x86, 32 bits; Austin Appleby, public domain), which has ports in most languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]
_C1, _C2, _MASK32 = 0xCC9E2D51, 0x1B873593, 0xFFFFFFFF
_UTF8 = ("utf-8", "surrogatepass")
_CHUNK_SIZE = 1 << 16
"""Texts hashed at a time, so that their columns stay in the CPU cache."""


def hash32(text: str, seed: int = 0) -> int:
    """Return the hash of a text in UTF-8, 0 to 2^32 - 1."""
    data = text.encode(*_UTF8)
    h = seed
    whole = len(data) & ~3
    for first in range(0, whole, 4):
        h ^= _mix_word(int.from_bytes(data[first : first + 4], "little"))
        h = (h << 13 | h >> 19) & _MASK32
        h = (h * 5 + 0xE6546B64) & _MASK32
    if whole < len(data):
        h ^= _mix_word(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = ((h ^ h >> 16) * 0x85EBCA6B) & _MASK32
    h = ((h ^ h >> 13) * 0xC2B2AE35) & _MASK32
    return h ^ h >> 16


def hashes32(texts: Sequence[str], seed: int = 0) -> Hashes:
    """Return the hashes (len(texts),) of many texts, as `hash32`; vectorized."""
    hashes = np.empty(len(texts), np.uint32)
    for first in range(0, len(texts), _CHUNK_SIZE):
        part = texts[first : first + _CHUNK_SIZE]
        hashes[first : first + len(part)] = _hash_chunk(part, seed)
    return hashes


def _hash_chunk(texts: Sequence[str], seed: int) -> Hashes:
    joined = "".join(texts)
    data = joined.encode(*_UTF8)
    one_byte = len(data) == len(joined)  # one byte per character
    sizes = map(len, texts) if one_byte else (len(text.encode(*_UTF8)) for text in texts)
    lengths = np.fromiter(sizes, np.int64, len(texts))
    padded = np.frombuffer(data + b"\0\0\0\0", np.uint8)
    # the four bytes at each offset as one unaligned little-endian word
    words = np.ndarray(len(padded) - 3, "<u4", padded, strides=(1,))
    starts = np.cumsum(lengths) - lengths
    h = np.full(len(texts), seed, np.uint32)
    blocks = lengths >> 2
    shortest = int(blocks.min()) if len(texts) else 0
    with np.errstate(over="ignore"):
        for block in range(int(blocks.max()) if len(texts) else 0):
            if block < shortest:
                h = _mix_block(h, words[starts + 4 * block])
            else:
                longer = np.flatnonzero(blocks > block)
                h[longer] = _mix_block(h[longer], words[starts[longer] + 4 * block])
        rest = (lengths & 3).astype(np.uint32)
        tail = words[starts + 4 * blocks] & ((np.uint32(1) << (rest * np.uint32(8))) - np.uint32(1))
        h ^= _mix_words(tail)  # without remaining bytes the tail is 0, which mixes to 0
        h ^= lengths.astype(np.uint32)
        h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
        h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
        return h ^ h >> np.uint32(16)


def _mix_word(word: int) -> int:
    word = word * _C1 & _MASK32
    return ((word << 15 | word >> 17) & _MASK32) * _C2 & _MASK32


def _mix_words(words: Hashes) -> Hashes:
    words = words * np.uint32(_C1)
    return (words << np.uint32(15) | words >> np.uint32(17)) * np.uint32(_C2)


def _mix_block(h: Hashes, words: Hashes) -> Hashes:
    h = h ^ _mix_words(words)
    return (h << np.uint32(13) | h >> np.uint32(19)) * np.uint32(5) + np.uint32(0xE6546B64)
