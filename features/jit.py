"""Numba adapter: compiles functions once, caches the machine code on disk, and releases the GIL."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")


def _cache_folder() -> Path:
    """Return the cache folder for the current sources; numba does not detect changes in called functions."""
    here = Path(__file__).parent
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.rglob("*.py")))).hexdigest()[:12]
    local = here / "__pycache__"
    base = local if os.access(local if local.exists() else here, os.W_OK) else Path.home() / ".cache" / "feedrank"
    return base / f"kernels-{sources}"


numba.config.CACHE_DIR = str(_cache_folder())  # type: ignore[attr-defined]  # numba sets its options by name


def jit(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function over arrays; the machine code is cached next to the module or in the user's cache folder."""
    return cast(Callable[P, T], numba.njit(cache=True, nogil=True)(function))


def jit_fastmath(function: Callable[P, T]) -> Callable[P, T]:
    """Compile as `jit` does, but allow reordering of float sums for SIMD.

    The order depends only on the length of the sum, so the same numbers give the same bits in any batch.
    """
    return cast(Callable[P, T], numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})(function))


def zero_padded(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Return a copy padded with zero rows up to `length`. The padding takes no memory until it is written."""
    larger = np.zeros((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
