"""Caches vectors on disk by the content of their text, so that no text is encoded twice."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.models.atomic_files import atomic_write

TEXTS_PER_SHARD = 4_096
"""Texts per shard, and the most that an interrupted run loses."""
_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Callback with (texts done, texts in total)."""
Vectors = NDArray[Any]
"""(t, d) the t vectors of one text."""


class VectorCache:
    """A folder of shards. A shard is written atomically and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the vectors of the keys that are cached."""
        wanted = set(keys)
        cached: dict[bytes, Vectors] = {}
        for shard in sorted(self._folder.glob("*.npz")) if wanted else []:
            with np.load(shard, allow_pickle=False) as columns:
                stored = [bytes(key) for key in columns["keys"]]
                hits = [i for i, key in enumerate(stored) if key in wanted]
                if hits:
                    vectors = columns["vectors"]
                    # shards with one vector per text have no bounds
                    bounds = columns["bounds"] if "bounds" in columns.files else np.arange(len(stored) + 1)
                    cached.update((stored[i], vectors[bounds[i] : bounds[i + 1]]) for i in hits)
        return cached

    def add(self, vectors: dict[bytes, Vectors]) -> None:
        """Write the vectors as one shard; if that fails, log it: they can be computed again."""
        if not vectors:
            return
        keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)
        name = hashlib.blake2b(b"".join(vectors) + os.urandom(8), digest_size=12).hexdigest()
        bounds = np.concatenate([[0], np.cumsum([len(matrix) for matrix in vectors.values()])])
        try:
            with atomic_write(self._folder / f"{name}.npz") as temporary:
                np.savez(temporary, keys=keys, vectors=np.concatenate(list(vectors.values())), bounds=bounds)
        except OSError as problem:  # such as a full disk
            _log.warning("%s vectors of texts could not be cached in %s: %s", len(vectors), self._folder, problem)


def encode_cached(
    texts: Sequence[str],
    embed: Callable[[list[str]], Sequence[Vectors]],
    cache: VectorCache | None,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Vectors]:
    """Return the vectors of each text; texts that are not cached go through `embed`, in batches of similar length.

    progress: called after each batch; it counts only the texts that go through `embed`.
    """
    keys = [content_key(text) for text in texts]
    cached = cache.vectors(keys) if cache else {}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in cached}
    # similar lengths in a batch need little padding
    queue = sorted(missing.items(), key=lambda pair: len(pair[1]))
    for start in range(0, len(queue), TEXTS_PER_SHARD):
        fresh: dict[bytes, Vectors] = {}
        for first in range(start, min(start + TEXTS_PER_SHARD, len(queue)), batch_size):
            batch = queue[first : min(first + batch_size, start + TEXTS_PER_SHARD)]
            vectors = embed([text for _, text in batch])
            fresh.update(zip([key for key, _ in batch], vectors, strict=True))
            if progress:
                progress(first + len(batch), len(queue))
        if cache:
            cache.add(fresh)
        cached.update(fresh)
    return [cached[key] for key in keys]


def content_key(text: str) -> bytes:
    """Return the 16-byte cache key (BLAKE2b) of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
