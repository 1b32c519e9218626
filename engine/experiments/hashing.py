"""MurmurHash3 (x86, 32 bits; Austin Appleby, public domain): the same number for the same text in any language."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]
_C1, _C2, _ALL = 0xCC9E2D51, 0x1B873593, 0xFFFFFFFF
_UTF8 = ("utf-8", "surrogatepass")
_CHUNK = 1 << 16
"""Texts that are hashed together: their columns stay in the processor's cache."""


def hash32(text: str, seed: int = 0) -> int:
    """The hash of a text in UTF-8, 0 to 2^32 - 1."""
    data = text.encode(*_UTF8)
    h = seed
    whole = len(data) & ~3
    for first in range(0, whole, 4):
        h ^= _mixed(int.from_bytes(data[first : first + 4], "little"))
        h = (h << 13 | h >> 19) & _ALL
        h = (h * 5 + 0xE6546B64) & _ALL
    if whole < len(data):
        h ^= _mixed(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = ((h ^ h >> 16) * 0x85EBCA6B) & _ALL
    h = ((h ^ h >> 13) * 0xC2B2AE35) & _ALL
    return h ^ h >> 16


def hashes32(texts: Sequence[str], seed: int = 0) -> Hashes:
    """(len(texts),) the same for many at once."""
    found = np.empty(len(texts), np.uint32)
    for first in range(0, len(texts), _CHUNK):
        part = texts[first : first + _CHUNK]
        found[first : first + len(part)] = _hashes(part, seed)
    return found


def _hashes(texts: Sequence[str], seed: int) -> Hashes:
    joined = "".join(texts)
    data = joined.encode(*_UTF8)
    same = len(data) == len(joined)  # one byte a character
    lengths = np.fromiter(map(len, texts) if same else (len(one.encode(*_UTF8)) for one in texts), np.int64, len(texts))
    held = np.frombuffer(data + b"\0\0\0\0", np.uint8)
    # the four bytes from each place on, as one little-endian word that need not be aligned
    words = np.ndarray(len(held) - 3, "<u4", held, strides=(1,))
    starts = np.cumsum(lengths) - lengths
    h = np.full(len(texts), seed, np.uint32)
    blocks = lengths >> 2
    shortest = int(blocks.min()) if len(texts) else 0
    with np.errstate(over="ignore"):
        for block in range(int(blocks.max()) if len(texts) else 0):
            if block < shortest:
                h = _step(h, words[starts + 4 * block])
            else:
                some = np.flatnonzero(blocks > block)
                h[some] = _step(h[some], words[starts[some] + 4 * block])
        rest = (lengths & 3).astype(np.uint32)
        tail = words[starts + 4 * blocks] & ((np.uint32(1) << (rest * np.uint32(8))) - np.uint32(1))
        h ^= _mixed_all(tail)  # of a text without a rest the tail is 0, and so is what is made of it
        h ^= lengths.astype(np.uint32)
        h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
        h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
        return h ^ h >> np.uint32(16)


def _mixed(word: int) -> int:
    word = word * _C1 & _ALL
    return ((word << 15 | word >> 17) & _ALL) * _C2 & _ALL


def _mixed_all(words: Hashes) -> Hashes:
    words = words * np.uint32(_C1)
    return (words << np.uint32(15) | words >> np.uint32(17)) * np.uint32(_C2)


def _step(h: Hashes, words: Hashes) -> Hashes:
    h = h ^ _mixed_all(words)
    return (h << np.uint32(13) | h >> np.uint32(19)) * np.uint32(5) + np.uint32(0xE6546B64)
