"""The inputs of item models that are the same for all folds and splits, and the item models that are fitted on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.declared.term_statistics import TermStatistics
from feedrank.features.declared.value_vocabulary import ValueVocabulary
from feedrank.features.item_model import ItemModel
from feedrank.features.late_interaction import TokenVectors
from feedrank.models.items.item_model import ItemSettings, fit_item_views
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.reranker_training import RerankerTraining


@dataclass(frozen=True, eq=False, slots=True)
class ItemInputs:
    """The catalogue with its text signals: the inputs of item models that are the same for all folds and splits."""

    catalogue: Catalogue
    text: Matrix
    """(n, d) unit vectors of the documents; (n, 0): no embedder."""
    term_weights: TermWeights
    token_vectors: TokenVectors | None = None
    """Token vectors for late interaction."""
    reranker: RerankerTraining | None = None
    """Cross-encoder for these items; None: ranking has one stage."""
    model_digests: Mapping[str, str] = field(default_factory=dict)
    """Signal -> digest of the model that computes it."""
    vocabularies: Mapping[str, ValueVocabulary] = field(default_factory=dict)
    """Declared feature -> the values that it codes."""
    term_statistics: Mapping[str, TermStatistics] = field(default_factory=dict)
    """Declared feature -> the document frequencies that it scores by."""


def fit_item_model(item_inputs: ItemInputs, histories: UserHistories, settings: ItemSettings) -> ItemModel:
    """Fit the item model on these interactions, and add what the inputs bring: tokens, digests and vocabularies."""
    item_model = fit_item_views(item_inputs.catalogue, item_inputs.text, item_inputs.term_weights, histories, settings)
    names = ("token_vectors", "model_digests", "vocabularies", "term_statistics")
    return replace(item_model, **{name: getattr(item_inputs, name) for name in names})
