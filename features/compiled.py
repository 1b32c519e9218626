"""The one place that knows numba: compiled once, kept on disk, free of the interpreter lock."""

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


def _cache() -> Path:
    """A folder of machine code for these very sources: numba alone does not notice that a function it calls changed."""
    here = Path(__file__).parent
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.glob("*.py")))).hexdigest()[:12]
    beside = here / "__pycache__"
    base = beside if os.access(beside if beside.exists() else here, os.W_OK) else Path.home() / ".cache" / "feedrank"
    return base / f"kernels-{sources}"


numba.config.CACHE_DIR = str(_cache())  # type: ignore[attr-defined]  # numba sets its options by name


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function over arrays; the machine code is cached beside the module, or in the user's cache."""
    return cast(Callable[P, T], numba.njit(cache=True, nogil=True)(function))


def compiled_sums(function: Callable[P, T]) -> Callable[P, T]:
    """As `compiled`, and float sums may be reordered into vector lanes.

    The order depends on the length of the sum alone, so the same numbers give the same bits in any batch.
    """
    return cast(Callable[P, T], numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})(function))


def grown(array: NDArray[Any], length: int) -> NDArray[Any]:
    """A copy with zeros after it, which take no memory until something is written to them."""
    larger = np.zeros((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
