"""Sentence embeddings, with vectors cached by content: any sentence-transformers model, plain checkpoints, DPR pairs.

A query may go through another tower than the items (DPR, Router models) and may have a prompt of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.space import unit_rows
from engine.types import Matrix, Vector
from models.text.dpr import DprTower, is_dpr
from models.text.vector_cache import Progress, VectorCache, encoded_by_content
from models.text.weights import DEFAULT_EMBEDDER, find_weights, settings_of, weights_digest


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """Which model, and how texts go through it."""

    model: str = DEFAULT_EMBEDDER
    """A sentence-transformers model, a plain BERT or RoBERTa checkpoint or a DPR context encoder: a name, or a folder.
    "none": no embeddings at all."""
    revision: str | None = None
    query_model: str | None = None
    """The model of queries, where it is another one: of a DPR pair, the question encoder."""
    pooling: str | None = None
    """mean or cls: how a plain checkpoint's token vectors become one; by default mean."""
    query_prompt: str | None = None
    """Put before a query; by default what the model itself says."""
    item_prompt: str | None = None
    """Put before an item's text; by default what the model itself says."""
    normalise: bool | None = None
    """Scale vectors to length 1; by default unless the model is made for dot products."""
    batch_size: int = 64
    """Texts that go through the model together."""

    def __post_init__(self) -> None:
        if self.pooling not in (None, "mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}; expected mean or cls")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1")


class SentenceEmbedder:
    """Texts to vectors. A model is loaded at the first text that the cache does not know."""

    def __init__(self, settings: EmbedderSettings, cache: Path | None = None, device: str | None = None) -> None:
        """cache: a folder. device: None takes a GPU where there is one. Raises WeightsNotFoundError."""
        self.settings = settings
        folder = find_weights(settings.model, settings.revision)
        self._items = _Side(folder, settings, "document", settings.item_prompt, device)
        self._queries = self._items.other("query", settings.query_prompt)
        if settings.query_model is not None:
            other = find_weights(settings.query_model)
            self._queries = _Side(other, settings, "query", settings.query_prompt, device)
        self._cache = VectorCache(cache / self._items.digest) if cache else None
        self.query = lru_cache(maxsize=4_096)(self._query)

    @property
    def digest(self) -> str:
        """Equal where texts and queries get the same vectors."""
        return f"{self._items.digest}/{self._queries.digest}"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        """(len(texts), d) vectors of items; a text whose vector is cached is not embedded again."""
        found = encoded_by_content(texts, self._embed, self._cache, self.settings.batch_size, progress)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def _embed(self, texts: list[str]) -> Sequence[Matrix]:
        return [vector[None] for vector in self._items.embed(texts)]

    def _query(self, text: str) -> Vector:
        """(d,) the vector of a request's text."""
        vector: Vector = self._queries.embed([text])[0]
        return vector


class _Side:
    """One tower with a prompt; the sides of a model that is not split share its weights."""

    def __init__(
        self, folder: Path, settings: EmbedderSettings, role: str, prompt: str | None, device: str | None,
        loaded: _Loaded | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._settings, self._role, self._prompt, self._device = folder, settings, role, prompt, device
        self._loaded = loaded or _Loaded(folder, settings.pooling, device)
        self._unit = normalised(folder) if settings.normalise is None else settings.normalise

    def other(self, role: str, prompt: str | None) -> _Side:
        """The same model for the other side."""
        return _Side(self._folder, self._settings, role, prompt, self._device, self._loaded)

    @property
    def digest(self) -> str:
        """Equal where the same texts get the same vectors."""
        asked = (self._settings.pooling, self._prompt, self._unit)
        usual = (None, None, True)
        told = "" if asked == usual else f"-{'-'.join(map(str, asked))}".replace("/", "_").replace(" ", "_")
        return f"{self._loaded.digest}{told}"

    def embed(self, texts: list[str]) -> Matrix:
        """(len(texts), d)."""
        model = self._loaded.model()
        if isinstance(model, DprTower):
            vectors = model.encode([f"{self._prompt or ''}{text}" for text in texts])
        else:
            encode = model.encode_query if self._role == "query" else model.encode_document
            vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, prompt=self._prompt)
        plain = np.asarray(vectors, np.float32)
        return unit_rows(plain) if self._unit else plain


class _Loaded:
    """A model that is loaded when it is first asked for."""

    def __init__(self, folder: Path, pooling: str | None, device: str | None) -> None:
        self.digest = weights_digest(folder)
        self._folder, self._pooling, self._device = folder, pooling, device
        self._model: Any = None
        self._loading = threading.Lock()

    def model(self) -> Any:
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> Any:
        if is_dpr(self._folder):
            return DprTower(self._folder, self._device)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types; our own bar is that of texts
        path = str(self._folder)
        if self._pooling is None or (self._folder / "modules.json").exists():
            return SentenceTransformer(path, device=self._device)
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        tokens = Transformer(path)
        pooled = Pooling(tokens.get_embedding_dimension(), pooling_mode=self._pooling)
        return SentenceTransformer(modules=[tokens, pooled], device=self._device)


def normalised(folder: Path) -> bool:
    """Whether a model's vectors are compared by their angle: not where it says that it is made for dot products."""
    return not is_dpr(folder) and settings_of(folder).get("similarity_fn_name") not in ("dot", "dot_product")
