"""Token vectors for late interaction: by ColBERT checkpoints, or the token vectors of any sentence-transformers model.

ColBERT in Stanford's, PyLate's or sentence-transformers' format (Khattab & Zaharia 2020; Santhanam et al., ColBERTv2,
2022) goes through `MultiVectorEncoder`. Of another model the token vectors before pooling are taken as they are,
without the tokens that mark a text's ends: on WikiQA that orders better than the same model's pooled vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.space import unit_rows
from engine.types import Matrix
from features.late import STEPS, Projection, TokenVectors, quantised
from models.text.vector_cache import Progress, VectorCache, Vectors, encoded_by_content
from models.text.weights import architecture, find_weights, settings_of, weights_digest

SAMPLE = 200_000
"""Token vectors that the projection is fitted on."""


@dataclass(frozen=True, slots=True)
class LateSettings:
    """[late_interaction] Token vectors of items: which model, and how compactly they are kept."""

    model: str = ""
    """A ColBERT checkpoint or any sentence-transformers model, by name or folder; empty: no late interaction."""
    revision: str | None = None
    dimensions: int = 64
    """Vectors that are wider are projected on so many principal components; 0: never."""
    precision: str = "int8"
    """int8, or float32 for scores that are those of the model to the last digits."""
    item_tokens: int = 32
    """Tokens kept of an item, from its beginning; 0: as many as the model reads."""
    pool_factor: int = 1
    """Tokens of an item that are merged into one by hierarchical clustering (Clavié et al. 2024); 1: none."""
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.precision not in ("int8", "float32"):
            raise ValueError(f"precision is {self.precision!r}; expected int8 or float32")
        for name, least in (("dimensions", 0), ("item_tokens", 0), ("pool_factor", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")


class TokenEncoder:
    """Texts to token vectors of length 1, cached by content."""

    def __init__(self, settings: LateSettings, cache: Path | None = None, device: str | None = None) -> None:
        """cache: a folder. device: None takes a GPU where there is one. Raises WeightsNotFoundError."""
        self._settings = settings
        self._folder = find_weights(settings.model, settings.revision)
        self._device = device
        self.digest = weights_digest(self._folder)
        kept = f"{self.digest}-{settings.precision}-{settings.item_tokens}-{settings.pool_factor}"
        self._cache = VectorCache(cache / f"tokens-{kept}") if cache else None
        self._colbert = is_colbert(self._folder)
        self._model: Any = None
        self._loading = threading.Lock()
        self.query = lru_cache(maxsize=1_024)(self._query)

    def items(
        self, texts: Sequence[str], progress: Progress | None = None, projection: Projection | None = None
    ) -> TokenVectors:
        """Of every text, compactly. projection: that of other items, which these are to be compared with."""

        def embed(batch: list[str]) -> Sequence[Vectors]:
            vectors = self._encode(batch, query=False)
            return [quantised(one) for one in vectors] if self._settings.precision == "int8" else vectors

        found = encoded_by_content(texts, embed, self._cache, self._settings.batch_size, progress)
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in found])]).astype(np.int64)
        width = found[0].shape[1] if found else 1
        dimensions = self._settings.dimensions
        exact = self._settings.precision == "float32"
        if projection is None and (not dimensions or width <= dimensions or not offsets[-1]):
            kind = np.float32 if exact else np.int8
            return TokenVectors(np.concatenate([np.empty((0, width), kind), *found]), offsets)
        if projection is None:
            step = max(1, int(offsets[-1]) // SAMPLE)
            projection = Projection.fit(_plain(np.concatenate(found)[::step]), dimensions)
        codes = np.empty((int(offsets[-1]), dimensions), np.float32 if exact else np.int8)
        for place, one in enumerate(found):
            small = projection.of(_plain(one))
            codes[offsets[place] : offsets[place + 1]] = small if exact else quantised(small)
        return TokenVectors(codes, offsets, projection)

    def _query(self, text: str) -> Matrix:
        """(tokens, width) of a request's text."""
        return self._encode([text], query=True)[0]

    def load(self) -> None:
        """Load the model now rather than at the first text."""
        with self._loading:
            if self._model is None:
                from transformers.utils import logging

                logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
                if self._colbert:
                    from sentence_transformers import MultiVectorEncoder as Model
                else:
                    from sentence_transformers import SentenceTransformer as Model  # type: ignore[assignment]
                self._model = Model(str(self._folder), device=self._device)

    def _encode(self, texts: list[str], query: bool) -> list[Matrix]:
        self.load()
        if self._colbert:
            encode: Callable[..., Any] = self._model.encode_query if query else self._model.encode_document
            vectors = encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        else:
            encode = self._model.encode_query if query else self._model.encode_document
            found = encode(texts, batch_size=len(texts), show_progress_bar=False, output_value="token_embeddings")
            vectors = [unit_rows(one[1:-1].float().cpu().numpy()) for one in found]
        if query:
            return [np.asarray(one, np.float32) for one in vectors]
        most = self._settings.item_tokens or None
        return self._pooled([np.asarray(one[:most], np.float32) for one in vectors])

    def _pooled(self, vectors: list[Matrix]) -> list[Matrix]:
        if self._settings.pool_factor == 1:
            return vectors
        import torch
        from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling

        pool = HierarchicalTokenPooling(pool_factor=self._settings.pool_factor)
        some = [torch.from_numpy(one) for one in vectors if len(one)]
        pooled = iter(pool.pool(some) if some else [])
        return [unit_rows(next(pooled).numpy()) if len(one) else one for one in vectors]


def is_colbert(folder: Path) -> bool:
    """Whether a model folder holds a late-interaction checkpoint, in any of the three formats."""
    told = settings_of(folder)
    named = told.get("model_type") in ("ColBERT", "MultiVectorEncoder")
    return named or "query_prefix" in told or architecture(folder) == "HF_ColBERT"  # PyLate was slow to name itself


def _plain(vectors: Vectors) -> Matrix:
    return np.asarray(vectors, np.float32) / np.float32(STEPS if vectors.dtype == np.int8 else 1)
