"""Text signals: runs the embedder, token encoder and cross-encoder of the config on items and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, QueryVectors
from feedrank.features.late_interaction import TokenVectors
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.text.cross_encoder_export import export_cached
from feedrank.models.text.cross_encoder_model import CrossEncoderModel
from feedrank.models.text.embedder import EmbedderSettings, SentenceEmbedder
from feedrank.models.text.token_encoder import LateInteractionSettings, TokenEncoder
from feedrank.models.text.vector_cache import Progress
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.reranker_training import RerankerTraining

NO_MODEL = "none"
"""The config value of `embedder.model` that disables the embedder."""
T = TypeVar("T")


class TextSignals(NamedTuple):
    """Outputs of the text models for all items."""

    text: Matrix
    """(n, d) embeddings with norm 1, or mean norm 1 if the norm carries meaning; (n, 0): no embedder."""
    tokens: TokenVectors | None
    reranking: RerankerTraining | None
    model_digests: dict[str, str]
    """Signal -> digest of its model."""


def compute_text_signals(
    home: HomePaths, config: Config, catalogue: Catalogue, progress: Progress | None = None
) -> TextSignals:
    """Run the text models of the config on the catalogue; cached outputs are not computed again."""
    documents = catalogue.documents(config.embedder.document)
    text, digests = np.zeros((len(documents), 0), np.float32), {}
    if config.embedder.model != NO_MODEL:
        embedder = SentenceEmbedder(config.embedder, home.embedding_cache)
        text = _scale_to_unit_mean_norm(embedder.encode(documents, progress))
        digests["text"] = embedder.digest
    tokens = None
    if config.late_interaction.model:
        encoder = TokenEncoder(config.late_interaction, home.embedding_cache)
        tokens = encoder.encode_items(documents, progress)
        digests["late_interaction"] = encoder.digest
    reranking = None
    settings = config.cross_encoder
    if settings.model:
        model = CrossEncoderModel(export_cached(settings, home.cross_encoder_models), settings.threads)
        model = model.with_items(model.tokenize(documents, settings.item_tokens))
        reranking = RerankerTraining(model, settings.top_k, settings.precomputed_share)
        digests["cross_encoder"] = model.digest
    return TextSignals(text, tokens, reranking, digests)


class TextEncoders:
    """Encodes queries and new items with the text models of a bundle."""

    def __init__(self, home: HomePaths, opened: Bundle, other: TextEncoders | None = None) -> None:
        """other: encoders of another bundle, whose loaded models are used if this bundle was made with the same."""
        config: Mapping[str, Any] = opened.manifest["config"]
        has_embedder = config["embedder"]["model"] != NO_MODEL
        self._embedder_settings = settings_from(EmbedderSettings, config["embedder"]) if has_embedder else None
        tokens = opened.item_model.token_vectors
        self._late_settings = (
            None if tokens is None else settings_from(LateInteractionSettings, config["late_interaction"])
        )
        self._projection = None if tokens is None else tokens.projection
        self._home = home
        if other is not None:
            self._share_models(other, opened.manifest["model_digests"])

    def __bool__(self) -> bool:
        return self._embedder_settings is not None or self._late_settings is not None

    def encode_query(self, text: str) -> QueryVectors:
        """Encode a query; the models are loaded on first use."""
        vector = None if self._embedder is None else self._embedder.encode_query(text)
        return QueryVectors(vector, None if self._token_encoder is None else self._token_encoder.encode_query(text))

    def encode_items(self, documents: Sequence[str]) -> tuple[Matrix, TokenVectors | None]:
        """Encode item documents: (n, d) vectors with norm 1, and token vectors in the bundle's projection."""
        text = np.zeros((len(documents), 0), np.float32)
        if self._embedder is not None:
            text = unit_rows(self._embedder.encode(list(documents)))
        return text, None if self._token_encoder is None else self._token_encoder.encode_items(
            documents, None, self._projection
        )

    def _share_models(self, other: TextEncoders, digests: Mapping[str, str]) -> None:
        """Take over the loaded models of another bundle that have the same settings, and the digests of this one."""
        loaded = vars(other)
        embedder, token_encoder = loaded.get("_embedder"), loaded.get("_token_encoder")
        if embedder and self._embedder_settings == other._embedder_settings and embedder.digest == digests.get("text"):
            self._embedder = embedder
        late = self._late_settings
        if token_encoder and late == other._late_settings and token_encoder.digest == digests.get("late_interaction"):
            self._token_encoder = token_encoder

    @cached_property
    def _embedder(self) -> SentenceEmbedder | None:
        return (
            None
            if self._embedder_settings is None
            else SentenceEmbedder(self._embedder_settings, self._home.embedding_cache)
        )

    @cached_property
    def _token_encoder(self) -> TokenEncoder | None:
        return None if self._late_settings is None else TokenEncoder(self._late_settings, self._home.embedding_cache)


def settings_from(settings_type: type[T], values: Mapping[str, Any]) -> T:
    """Build settings from a mapping; keys that `kind` has no field for are ignored."""
    names = {field.name for field in fields(settings_type)}  # type: ignore[arg-type]  # every kind here is a dataclass
    return settings_type(**{name: value for name, value in values.items() if name in names})


def item_inputs(catalogue: Catalogue, signals: TextSignals, terms: Any) -> ItemInputs:
    """Combine the catalogue, its text signals and its BM25 terms into the item inputs of training."""
    return ItemInputs(catalogue, signals.text, terms, signals.tokens, signals.reranking, signals.model_digests)


def item_documents(opened: Bundle) -> Sequence[str]:
    """Return the item documents that the bundle's text models read."""
    return opened.item_model.catalogue.documents(document_fields(opened))


def document_fields(opened: Bundle) -> tuple[str, ...]:
    """Return the item fields that make up a document."""
    return tuple(opened.manifest["config"]["embedder"]["document"])


def _scale_to_unit_mean_norm(vectors: Matrix) -> Matrix:
    """Scale vectors to mean norm 1, so that the blocks of the embedding space are comparable."""
    lengths = np.linalg.norm(vectors, axis=1)
    mean = float(lengths[lengths > 0].mean()) if np.any(lengths > 0) else 1.0
    return vectors if abs(mean - 1) < 1e-3 else vectors / np.float32(mean)
