"""Encodes texts to token vectors for late interaction, with ColBERT or any sentence-transformers model.

ColBERT checkpoints in Stanford's, PyLate's or sentence-transformers' format (Khattab & Zaharia 2020; Santhanam et al.,
ColBERTv2, 2022) run in `MultiVectorEncoder`. Other models give their token vectors before pooling, without the first
and last special token: on WikiQA that ranks better than the same model's pooled vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix
from feedrank.features.late_interaction import SCALE, Projection, TokenVectors, quantize
from feedrank.models.text.model_weights import architecture, find_weights, read_model_json, weights_digest
from feedrank.models.text.vector_cache import Progress, VectorCache, Vectors, encode_cached

PROJECTION_SAMPLE = 200_000
"""Number of token vectors on which the projection is fitted."""


@dataclass(frozen=True, slots=True)
class LateInteractionSettings:
    """[late_interaction] Which model encodes the items' token vectors, and how they are compressed."""

    model: str = ""
    """A ColBERT checkpoint or any sentence-transformers model, by name or folder; empty: no late interaction."""
    revision: str | None = None
    """Revision of the model on the Hugging Face hub. Not set: the latest."""
    dimensions: int = 64
    """Wider token vectors are projected on this many principal components; 0: no projection. Unit: dimensions."""
    precision: Literal["int8", "float32"] = "int8"
    """How token vectors are stored: int8, or float32 for the exact scores of the model."""
    item_tokens: int = 32
    """Maximum number of tokens of an item, from its beginning; 0: the model's maximum. Unit: tokens."""
    pool_factor: int = 1
    """Token pooling: mean number of tokens merged into one (Clavié et al. 2024); 1: no pooling. Unit: tokens."""
    batch_size: int = 64
    """Number of texts per forward pass of the model. Unit: texts."""

    def __post_init__(self) -> None:
        if self.precision not in ("int8", "float32"):
            raise ValueError(f"precision is {self.precision!r}; expected int8 or float32")
        for name, least in (("dimensions", 0), ("item_tokens", 0), ("pool_factor", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")


class TokenEncoder:
    """Encodes texts to token vectors of length 1, cached by content."""

    def __init__(self, settings: LateInteractionSettings, cache: Path | None = None, device: str | None = None) -> None:
        """Find the weights. cache: a folder. device: None uses a GPU if there is one. Raises WeightsNotFoundError."""
        self._settings = settings
        self._folder = find_weights(settings.model, settings.revision)
        self._device = device
        self.digest = weights_digest(self._folder)
        cache_key = f"{self.digest}-{settings.precision}-{settings.item_tokens}-{settings.pool_factor}"
        self._cache = VectorCache(cache / f"tokens-{cache_key}") if cache else None
        self._is_colbert = is_colbert(self._folder)
        self._model: Any = None
        self._lock = threading.Lock()
        self.encode_query = lru_cache(maxsize=1_024)(self._encode_query)

    def encode_items(
        self, texts: Sequence[str], progress: Progress | None = None, projection: Projection | None = None
    ) -> TokenVectors:
        """Encode item texts to compressed token vectors. projection: that of existing items; None: fit one."""

        def embed(batch: list[str]) -> Sequence[Vectors]:
            vectors = self._encode(batch, is_query=False)
            return [quantize(matrix) for matrix in vectors] if self._settings.precision == "int8" else vectors

        encoded = encode_cached(texts, embed, self._cache, self._settings.batch_size, progress)
        offsets = np.concatenate([[0], np.cumsum([len(matrix) for matrix in encoded])]).astype(np.int64)
        width = encoded[0].shape[1] if encoded else 1
        dimensions = self._settings.dimensions
        exact = self._settings.precision == "float32"
        if projection is None and (not dimensions or width <= dimensions or not offsets[-1]):
            dtype = np.float32 if exact else np.int8
            return TokenVectors(np.concatenate([np.empty((0, width), dtype), *encoded]), offsets)
        if projection is None:
            step = max(1, int(offsets[-1]) // PROJECTION_SAMPLE)
            projection = Projection.fit(_dequantize(np.concatenate(encoded)[::step]), dimensions)
        codes = np.empty((int(offsets[-1]), dimensions), np.float32 if exact else np.int8)
        for i, matrix in enumerate(encoded):
            projected = projection.project(_dequantize(matrix))
            codes[offsets[i] : offsets[i + 1]] = projected if exact else quantize(projected)
        return TokenVectors(codes, offsets, projection)

    def _encode_query(self, text: str) -> Matrix:
        """Encode a query to (tokens, width) vectors."""
        return self._encode([text], is_query=True)[0]

    def load(self) -> None:
        """Load the model, if it is not loaded yet."""
        with self._lock:
            if self._model is None:
                from transformers.utils import logging

                logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped
                if self._is_colbert:
                    from sentence_transformers import MultiVectorEncoder as Model
                else:
                    from sentence_transformers import SentenceTransformer as Model  # type: ignore[assignment]
                self._model = Model(str(self._folder), device=self._device)

    def _encode(self, texts: list[str], is_query: bool) -> list[Matrix]:
        self.load()
        if self._is_colbert:
            encode: Callable[..., Any] = self._model.encode_query if is_query else self._model.encode_document
            vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        else:
            encode = self._model.encode_query if is_query else self._model.encode_document
            tensors = encode(texts, batch_size=len(texts), show_progress_bar=False, output_value="token_embeddings")
            vectors = [unit_rows(tensor[1:-1].float().cpu().numpy()) for tensor in tensors]
        if is_query:
            return [np.asarray(matrix, np.float32) for matrix in vectors]
        max_tokens = self._settings.item_tokens or None
        return self._pool_tokens([np.asarray(matrix[:max_tokens], np.float32) for matrix in vectors])

    def _pool_tokens(self, vectors: list[Matrix]) -> list[Matrix]:
        if self._settings.pool_factor == 1:
            return vectors
        import torch
        from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling

        pool = HierarchicalTokenPooling(pool_factor=self._settings.pool_factor)
        tensors = [torch.from_numpy(matrix) for matrix in vectors if len(matrix)]
        pooled = iter(pool.pool(tensors) if tensors else [])
        return [unit_rows(next(pooled).numpy()) if len(matrix) else matrix for matrix in vectors]


def is_colbert(folder: Path) -> bool:
    """Return whether a model folder holds a late-interaction checkpoint, in any of the three formats."""
    settings = read_model_json(folder)
    named = settings.get("model_type") in ("ColBERT", "MultiVectorEncoder")
    # older PyLate versions write no model type
    return named or "query_prefix" in settings or architecture(folder) == "HF_ColBERT"


def _dequantize(vectors: Vectors) -> Matrix:
    return np.asarray(vectors, np.float32) / np.float32(SCALE if vectors.dtype == np.int8 else 1)
