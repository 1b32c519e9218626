"""Builds a recommender from a bundle: snapshot, pipeline, ranker, reranker and vector index."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np

from feedrank.api.compose.text_signals import TextModels, documents_of
from feedrank.api.config import Config, IndexConfig
from feedrank.api.home import Home
from feedrank.engine.journal.journal import Journal
from feedrank.engine.protocols import Ranker, VectorIndex, WholeIndex
from feedrank.engine.retrieval.indexes import SegmentedIndex
from feedrank.engine.retrieval.pca_index import ScanIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever, FirstOf, PopularRetriever
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.reranking import Rescoring
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.engine.types import Matrix, Scores
from feedrank.features.bm25 import Bm25Retriever
from feedrank.features.listwise import standings
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle, registry, snapshot
from feedrank.models.bundles.snapshot import Living
from feedrank.models.text.cross_encoder_export import PairSettings
from feedrank.models.text.score_cache import PairScores
from feedrank.models.training.ranker import LambdaRanker


class QueriesInRecallOrder:
    """Wraps a ranker that was trained without queries; it would rank a query's candidates by the user alone.

    Requests with a query keep recall order, which mixes query and user. If token vectors or a cross-encoder scored the
    query, the order is the mean listwise z-score of the query features.
    """

    def __init__(self, ranker: LambdaRanker, names: tuple[str, ...]) -> None:
        self._ranker = ranker
        self._query = names.index("query_text") if "query_text" in names else None
        readers = ("query_text", "late_query", "pair_score")
        self._readers = [names.index(name) for name in readers if name in names]

    def contributions(self, features: Matrix) -> Matrix | None:
        """Return the ranker's TreeSHAP contributions; None for requests with a query."""
        no_query = self._query is None or bool(np.isnan(features[:, self._query]).all())
        return self._ranker.contributions(features) if no_query else None

    def score(self, features: Matrix) -> Scores:
        """Return the ranker's scores; for requests with a query, the mean z-score or minus the recall position."""
        if self._query is not None and np.isnan(features[:, self._query]).all():
            return self._ranker.score(features)
        columns = np.ascontiguousarray(features[:, self._readers])
        if np.isnan(columns[:, 1:]).all():
            return RecallOrder().score(features)
        z_scores = standings(columns, np.array([0, len(columns)], np.int64))
        return np.asarray(np.nan_to_num(z_scores, nan=-1.0).mean(axis=1), np.float32)


class RecallOrder:
    """A ranker that keeps the candidates in recall order."""

    def score(self, features: Matrix) -> Scores:
        """Return minus the position of each row, from 1."""
        return -np.arange(1, len(features) + 1, dtype=np.float32)


def recommender(home: Home, config: Config) -> Recommender:
    """Build a recommender from the current bundle and the state of the whole journal."""
    journal = home.journal(config.journal.url)
    opened = registry.load_current(home.bundles, warn)
    return Recommender(
        live(home, config, opened, living_state(home, journal, opened)), journal, config.cross_encoder.ahead
    )


def live(home: Home, config: Config, opened: bundle.Bundle, living: Living, texts: TextModels | None = None) -> Live:
    """Build a serving snapshot from a bundle and the restored state."""
    texts = texts or TextModels(home, opened)
    return Live(
        opened.knowledge.catalogue,
        living.people,
        living.state,
        pipeline(opened, config, living.state, ranker_of(opened), rescoring(home, opened, config.cross_encoder)),
        opened.knowledge.space.targets,
        texts.query if texts else None,
        living.offset,
        bundle.read_for(opened),
        max(living.latest, 0),
    )


def ranker_of(opened: bundle.Bundle) -> Ranker:
    """Build the ranker of a bundle; without a trained one, recall order is kept."""
    return QueriesInRecallOrder(opened.ranker, opened.builder.names) if opened.ranker else RecallOrder()


def take_snapshot(home: Home, config: Config) -> Living:
    """Write a snapshot of the state of the whole journal for the current bundle, however few events are new."""
    opened = registry.load_current(home.bundles, warn)
    catalogue = opened.knowledge.catalogue
    restored = snapshot.restore(home.snapshot, home.journal(config.journal.url), catalogue, opened.builder.spec)
    snapshot.save(home.snapshot, restored, catalogue)
    return restored


def living_state(home: Home, journal: Journal, opened: bundle.Bundle) -> Living:
    """Restore the state of the whole journal; writes a new snapshot if many events came after the last one."""
    restored = snapshot.restore(home.snapshot, journal, opened.knowledge.catalogue, opened.builder.spec)
    if restored.read >= snapshot.WORTH_SAVING:
        snapshot.save(home.snapshot, restored, opened.knowledge.catalogue)
    return restored


def pipeline(
    opened: bundle.Bundle, config: Config, state: BehaviouralState, ranker: Ranker, second: Rescoring | None
) -> Pipeline:
    """Build the pipeline: BM25, embedding or popularity recall, then the bundle's features, ranker and reranker."""
    knowledge = opened.knowledge
    by_embedding = EmbeddingRetriever(
        knowledge.catalogue,
        knowledge.space,
        _whole(opened, config.index),
        vector_index(opened, config.index),
        config.recall.query_share,
    )
    by_terms = Bm25Retriever(knowledge.catalogue, knowledge.terms)
    popular = PopularRetriever(knowledge.catalogue, state.popularity)
    retriever = FirstOf([by_terms, by_embedding, popular])
    return Pipeline(retriever, state, opened.builder, ranker, config.recall.candidates, opened.name, second, popular)


def rescoring(home: Home, opened: bundle.Bundle, chosen: PairSettings) -> Rescoring | None:
    """Build the cross-encoder reranker; None if the bundle has none."""
    model = bundle.pair_model_of(opened, chosen.threads)
    if model is None or opened.first is None:
        return None
    cache = PairScores(home.pair_scores, model.digest, documents_of(opened), chosen.cache)
    return Rescoring(opened.first, model, cache, opened.knowledge.catalogue.titles, chosen.best)


def vector_index(opened: bundle.Bundle, chosen: IndexConfig) -> VectorIndex | None:
    """Build the approximate vector index; None: all vectors are scanned. Raises ValueError for an unknown kind."""
    targets = opened.knowledge.space.targets
    if chosen.kind == "annoy":
        if len(targets) <= chosen.whole_up_to:
            return None
        n_indexed = opened.manifest["items"]
        if n_indexed == len(targets):
            return opened.index
        return SegmentedIndex(opened.index, targets[n_indexed:], n_indexed, opened.index.metric)
    if chosen.kind == "exact":
        return None
    module, _, name = chosen.kind.partition(":")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise ValueError(f"can't find the index.kind {chosen.kind!r}: {problem}") from None
    index: VectorIndex = kind(targets, opened.index.metric)
    return index


def _whole(opened: bundle.Bundle, chosen: IndexConfig) -> WholeIndex:
    """Return the bundle's scan index; with kind "exact", its exact index without the PCA filter."""
    index = opened.whole
    return index.exact if chosen.kind == "exact" and isinstance(index, ScanIndex) else index


def warn(message: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {message}", file=sys.stderr)
