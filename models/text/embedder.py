"""Computes sentence embeddings and caches them by content.

It runs sentence-transformers models, plain BERT checkpoints and DPR pairs. Queries may use another tower than items
(DPR, Router models) and another prompt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Vector
from feedrank.models.text.dpr import DprTower, is_dpr
from feedrank.models.text.model_weights import DEFAULT_EMBEDDER, find_weights, read_model_json, weights_digest
from feedrank.models.text.vector_cache import Progress, VectorCache, encode_cached


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """Which embedding model is used, and how it encodes texts."""

    model: str = DEFAULT_EMBEDDER
    """A sentence-transformers model, a plain BERT or RoBERTa checkpoint or a DPR context encoder: a name, or a folder.
    "none": no embeddings at all."""
    revision: str | None = None
    """Revision of the model on the Hugging Face hub. Not set: the latest."""
    query_model: str | None = None
    """Query model, such as the question encoder of a DPR pair. Not set: the same model."""
    pooling: Literal["mean", "cls"] | None = None
    """Pooling of the token vectors of a plain checkpoint. Not set: mean."""
    query_prompt: str | None = None
    """Prefix of a query. Not set: the model's own prompt."""
    item_prompt: str | None = None
    """Prefix of an item's text. Not set: the model's own prompt."""
    normalise: bool | None = None
    """Whether vectors are scaled to length 1. Not set: yes, unless the model is trained for dot products."""
    batch_size: int = 64
    """Number of texts per forward pass of the model. Unit: texts."""

    def __post_init__(self) -> None:
        if self.pooling not in (None, "mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}; expected mean or cls")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1")


class SentenceEmbedder:
    """Encodes texts to vectors. The model is loaded at the first text that is not cached."""

    def __init__(self, settings: EmbedderSettings, cache: Path | None = None, device: str | None = None) -> None:
        """Find the weights. cache: a folder. device: None uses a GPU if there is one. Raises WeightsNotFoundError."""
        self.settings = settings
        folder = find_weights(settings.model, settings.revision)
        self._item_tower = _Tower(folder, settings, "document", settings.item_prompt, device)
        self._query_tower = self._item_tower.with_role("query", settings.query_prompt)
        if settings.query_model is not None:
            query_folder = find_weights(settings.query_model)
            self._query_tower = _Tower(query_folder, settings, "query", settings.query_prompt, device)
        self._cache = VectorCache(cache / self._item_tower.digest) if cache else None
        self.encode_query = lru_cache(maxsize=4_096)(self._encode_query)

    @property
    def digest(self) -> str:
        """Digest of weights and settings: equal if texts and queries get the same vectors."""
        return f"{self._item_tower.digest}/{self._query_tower.digest}"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        """Encode item texts to (len(texts), d) vectors; only texts that are not cached go through the model."""
        vectors = encode_cached(texts, self._embed_items, self._cache, self.settings.batch_size, progress)
        return np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)

    def _embed_items(self, texts: list[str]) -> Sequence[Matrix]:
        return [vector[None] for vector in self._item_tower.embed(texts)]

    def _encode_query(self, text: str) -> Vector:
        """Encode a query to a (d,) vector."""
        vector: Vector = self._query_tower.embed([text])[0]
        return vector


class _Tower:
    """One tower with its role and prompt; query and item tower share one model unless there are two."""

    def __init__(
        self, folder: Path, settings: EmbedderSettings, role: str, prompt: str | None, device: str | None,
        lazy_model: _LazyModel | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._settings, self._role, self._prompt, self._device = folder, settings, role, prompt, device
        self._lazy_model = lazy_model or _LazyModel(folder, settings.pooling, device)
        self._normalise = normalises_vectors(folder) if settings.normalise is None else settings.normalise

    def with_role(self, role: str, prompt: str | None) -> _Tower:
        """Return a tower with the same model and another role and prompt."""
        return _Tower(self._folder, self._settings, role, prompt, self._device, self._lazy_model)

    @property
    def digest(self) -> str:
        """Digest of weights and settings: equal if the same texts get the same vectors."""
        settings = (self._settings.pooling, self._prompt, self._normalise)
        default = (None, None, True)
        suffix = "" if settings == default else f"-{'-'.join(map(str, settings))}".replace("/", "_").replace(" ", "_")
        return f"{self._lazy_model.digest}{suffix}"

    def embed(self, texts: list[str]) -> Matrix:
        """Encode texts to (len(texts), d) vectors."""
        model = self._lazy_model.get()
        if isinstance(model, DprTower):
            vectors = model.encode([f"{self._prompt or ''}{text}" for text in texts])
        else:
            encode = model.encode_query if self._role == "query" else model.encode_document
            vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, prompt=self._prompt)
        matrix = np.asarray(vectors, np.float32)
        return unit_rows(matrix) if self._normalise else matrix


class _LazyModel:
    """A model that is loaded at its first use; thread-safe."""

    def __init__(self, folder: Path, pooling: str | None, device: str | None) -> None:
        self.digest = weights_digest(folder)
        self._folder, self._pooling, self._device = folder, pooling, device
        self._model: Any = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> Any:
        if is_dpr(self._folder):
            return DprTower(self._folder, self._device)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped; the texts have a progress bar of their own
        path = str(self._folder)
        if self._pooling is None or (self._folder / "modules.json").exists():
            return SentenceTransformer(path, device=self._device)
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        tokens = Transformer(path)
        pooling = Pooling(tokens.get_embedding_dimension(), pooling_mode=self._pooling)
        return SentenceTransformer(modules=[tokens, pooling], device=self._device)


def import_text_libraries() -> None:
    """Import the libraries of text models, without a model, as importing them takes seconds."""
    import sentence_transformers  # noqa: F401


def normalises_vectors(folder: Path) -> bool:
    """Return whether vectors are scaled to length 1 by default: not if the model is trained for dot products."""
    return not is_dpr(folder) and read_model_json(folder).get("similarity_fn_name") not in ("dot", "dot_product")
