"""Sentence embeddings, by any sentence-transformers model, with vectors cached by content."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.types import Matrix, Vector
from models.files import written_aside
from models.weights import DEFAULT_EMBEDDER, find_weights, weights_digest

CHUNK = 4_096
"""Texts between two writes of the cache: what an interrupted run loses at most."""
Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""


class SentenceEmbedder:
    """Texts to unit vectors. The model is loaded at the first text that the cache does not know."""

    def __init__(
        self,
        model: str = DEFAULT_EMBEDDER,
        cache: Path | None = None,
        batch_size: int = 64,
        revision: str | None = None,
        device: str | None = None,
    ) -> None:
        """model: a sentence-transformers name or a folder. device: None takes a GPU where there is one."""
        self.name = model
        self._folder = find_weights(model, revision)
        self._batch_size = batch_size
        self._device = device
        self._cache = VectorCache(cache / weights_digest(self._folder)) if cache else None
        self._model: Any = None
        self._loading = threading.Lock()
        self.query = lru_cache(maxsize=4_096)(self._query)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        """(len(texts), d) unit vectors; a text whose vector is cached is not embedded again."""
        keys = [content_key(text) for text in texts]
        known = self._cache.vectors(keys) if self._cache else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        # texts of like length share a batch, so that little is padded
        queue = sorted(missing.items(), key=lambda pair: len(pair[1]))
        for start in range(0, len(queue), CHUNK):
            chunk = queue[start : start + CHUNK]
            vectors = self._embed([text for _, text in chunk], start, len(queue), progress)
            fresh = dict(zip([key for key, _ in chunk], vectors, strict=True))
            if self._cache:
                self._cache.add(fresh)
            known.update(fresh)
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, 0), np.float32)

    def load(self) -> None:
        """Load the model now rather than at the first text."""
        with self._loading:
            if self._model is None:
                from sentence_transformers import SentenceTransformer
                from transformers.utils import logging

                logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types; our own bar is that of texts
                self._model = SentenceTransformer(str(self._folder), device=self._device)

    def _query(self, text: str) -> Vector:
        vector: Vector = self.encode([text])[0]
        return vector

    def _embed(self, texts: list[str], done: int, total: int, progress: Progress | None) -> Matrix:
        self.load()
        out: list[Matrix] = []
        for start in range(0, len(texts), self._batch_size):
            batch = texts[start : start + self._batch_size]
            vectors = self._model.encode(
                batch, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            out.append(np.asarray(vectors, np.float32))
            if progress:
                progress(done + start + len(batch), total)
        return np.concatenate(out)


class VectorCache:
    """Vectors on disk by content key: shards that are each written whole and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors of those keys that are there."""
        wanted = set(keys)
        found: dict[bytes, Vector] = {}
        for shard in sorted(self._folder.glob("*.npz")) if wanted else []:
            with np.load(shard, allow_pickle=False) as columns:
                stored = [bytes(key) for key in columns["keys"]]
                hits = [place for place, key in enumerate(stored) if key in wanted]
                if hits:
                    found.update(zip([stored[place] for place in hits], columns["vectors"][hits], strict=True))
        return found

    def add(self, vectors: dict[bytes, Vector]) -> None:
        """Write one more shard."""
        if not vectors:
            return
        keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)
        name = hashlib.blake2b(b"".join(vectors) + os.urandom(8), digest_size=12).hexdigest()
        with written_aside(self._folder / f"{name}.npz") as aside:
            np.savez(aside, keys=keys, vectors=np.stack(list(vectors.values())))


def content_key(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
