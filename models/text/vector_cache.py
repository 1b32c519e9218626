"""Vectors by the content of the text they were made of: on disk, so that nothing is encoded twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.files import written_aside

CHUNK = 4_096
"""Texts between two writes of the cache: what an interrupted run loses at most."""
Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""
Vectors = NDArray[Any]
"""(t, d): the t vectors of one text."""


class VectorCache:
    """Shards that are each written whole and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors of those keys that are there."""
        wanted = set(keys)
        found: dict[bytes, Vectors] = {}
        for shard in sorted(self._folder.glob("*.npz")) if wanted else []:
            with np.load(shard, allow_pickle=False) as columns:
                stored = [bytes(key) for key in columns["keys"]]
                hits = [place for place, key in enumerate(stored) if key in wanted]
                if hits:
                    vectors = columns["vectors"]
                    # shards of one vector a text have no bounds
                    bounds = columns["bounds"] if "bounds" in columns.files else np.arange(len(stored) + 1)
                    found.update((stored[place], vectors[bounds[place] : bounds[place + 1]]) for place in hits)
        return found

    def add(self, vectors: dict[bytes, Vectors]) -> None:
        """Write one more shard."""
        if not vectors:
            return
        keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)
        name = hashlib.blake2b(b"".join(vectors) + os.urandom(8), digest_size=12).hexdigest()
        bounds = np.concatenate([[0], np.cumsum([len(one) for one in vectors.values()])])
        with written_aside(self._folder / f"{name}.npz") as aside:
            np.savez(aside, keys=keys, vectors=np.concatenate(list(vectors.values())), bounds=bounds)


def encoded_by_content(
    texts: Sequence[str],
    embed: Callable[[list[str]], Sequence[Vectors]],
    cache: VectorCache | None,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Vectors]:
    """The vectors of each text; only those that the cache does not know go through `embed`, in batches of like length.

    progress: called after each batch, for the texts that are encoded.
    """
    keys = [content_key(text) for text in texts]
    known = cache.vectors(keys) if cache else {}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    # texts of like length share a batch, so that little is padded
    queue = sorted(missing.items(), key=lambda pair: len(pair[1]))
    for start in range(0, len(queue), CHUNK):
        fresh: dict[bytes, Vectors] = {}
        for first in range(start, min(start + CHUNK, len(queue)), batch_size):
            batch = queue[first : min(first + batch_size, start + CHUNK)]
            vectors = embed([text for _, text in batch])
            fresh.update(zip([key for key, _ in batch], vectors, strict=True))
            if progress:
                progress(first + len(batch), len(queue))
        if cache:
            cache.add(fresh)
        known.update(fresh)
    return [known[key] for key in keys]


def content_key(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
