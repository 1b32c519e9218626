"""Text signals: runs the embedder, token encoder and cross-encoder of the config on items and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from feedrank.api.config import Config
from feedrank.api.home import Home
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, QueryVectors
from feedrank.features.late_interaction import TokenVectors
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.text.cross_encoder_export import exported
from feedrank.models.text.cross_encoder_model import PairModel
from feedrank.models.text.embedder import EmbedderSettings, SentenceEmbedder
from feedrank.models.text.token_encoder import LateSettings, TokenEncoder
from feedrank.models.text.vector_cache import Progress
from feedrank.models.training.reranker_training import SecondPhase
from feedrank.models.training.training import Corpus

NONE = "none"
"""The config value of `embedder.model` that disables the embedder."""
T = TypeVar("T")


class Signals(NamedTuple):
    """Outputs of the text models for all items."""

    text: Matrix
    """(n, d) embeddings with norm 1, or mean norm 1 if the norm carries meaning; (n, 0): no embedder."""
    tokens: TokenVectors | None
    pairs: SecondPhase | None
    made_by: dict[str, str]
    """Signal -> digest of its model."""


def of_items(home: Home, config: Config, catalogue: Catalogue, progress: Progress | None = None) -> Signals:
    """Run the text models of the config on the catalogue; cached outputs are not computed again."""
    documents = catalogue.documents(config.embedder.document)
    text, digests = np.zeros((len(documents), 0), np.float32), {}
    if config.embedder.model != NONE:
        embedder = SentenceEmbedder(config.embedder, home.vectors)
        text = _of_length_one(embedder.encode(documents, progress))
        digests["text"] = embedder.digest
    tokens = None
    if config.late_interaction.model:
        encoder = TokenEncoder(config.late_interaction, home.vectors)
        tokens = encoder.items(documents, progress)
        digests["late"] = encoder.digest
    reranking = None
    settings = config.cross_encoder
    if settings.model:
        model = PairModel(exported(settings, home.pair_models), settings.threads)
        model = model.with_items(model.tokens(documents, settings.item_tokens))
        reranking = SecondPhase(model, settings.best, settings.ready_share)
        digests["pair"] = model.digest
    return Signals(text, tokens, reranking, digests)


class TextModels:
    """Encodes queries and new items with the text models of a bundle."""

    def __init__(self, home: Home, opened: Bundle) -> None:
        config: Mapping[str, Any] = opened.manifest["config"]
        has_embedder = config["embedder"]["model"] != NONE
        self._text = known(EmbedderSettings, config["embedder"]) if has_embedder else None
        tokens = opened.knowledge.tokens
        self._late = None if tokens is None else known(LateSettings, config["late_interaction"])
        self._projection = None if tokens is None else tokens.projection
        self._home = home

    def __bool__(self) -> bool:
        return self._text is not None or self._late is not None

    def query(self, text: str) -> QueryVectors:
        """Encode a query; the models are loaded on first use."""
        vector = None if self._embedder is None else self._embedder.query(text)
        return QueryVectors(vector, None if self._encoder is None else self._encoder.query(text))

    def items(self, documents: Sequence[str]) -> tuple[Matrix, TokenVectors | None]:
        """Encode item documents: (n, d) vectors with norm 1, and token vectors in the bundle's projection."""
        text = np.zeros((len(documents), 0), np.float32)
        if self._embedder is not None:
            text = unit_rows(self._embedder.encode(list(documents)))
        return text, None if self._encoder is None else self._encoder.items(documents, None, self._projection)

    @cached_property
    def _embedder(self) -> SentenceEmbedder | None:
        return None if self._text is None else SentenceEmbedder(self._text, self._home.vectors)

    @cached_property
    def _encoder(self) -> TokenEncoder | None:
        return None if self._late is None else TokenEncoder(self._late, self._home.vectors)


def known(kind: type[T], found: Mapping[str, Any]) -> T:
    """Build settings from a mapping; keys that `kind` has no field for are ignored."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    return kind(**{name: value for name, value in found.items() if name in names})


def corpus(catalogue: Catalogue, signals: Signals, terms: Any) -> Corpus:
    """Combine the catalogue, its text signals and its BM25 terms into the item inputs of training."""
    return Corpus(catalogue, signals.text, terms, signals.tokens, signals.pairs, signals.made_by)


def documents_of(opened: Bundle) -> Sequence[str]:
    """Return the item documents that the bundle's text models read."""
    return opened.knowledge.catalogue.documents(parts_of(opened))


def parts_of(opened: Bundle) -> tuple[str, ...]:
    """Return the item fields that make up a document."""
    return tuple(opened.manifest["config"]["embedder"]["document"])


def _of_length_one(vectors: Matrix) -> Matrix:
    """Scale vectors to mean norm 1, so that the blocks of the embedding space are comparable."""
    lengths = np.linalg.norm(vectors, axis=1)
    mean = float(lengths[lengths > 0].mean()) if np.any(lengths > 0) else 1.0
    return vectors if abs(mean - 1) < 1e-3 else vectors / np.float32(mean)
