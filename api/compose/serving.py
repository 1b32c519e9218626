"""Builds a recommender from a bundle: snapshot, pipeline, ranker, reranker and vector index."""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np

from feedrank.api.clock import clock_ms
from feedrank.api.compose.text_signals import TextEncoders, item_documents
from feedrank.api.compose.vector_index import build_exact_index, build_vector_index, with_custom_index
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.interaction_types import unlisted_warning
from feedrank.engine.journal.journal import Journal
from feedrank.engine.retrieval.retrievers import (
    EmbeddingRetriever,
    FallbackRetriever,
    HybridRetriever,
    PopularRetriever,
)
from feedrank.engine.serving.deadline import unlimited_budget
from feedrank.engine.serving.pipeline import FULL, UNSHARED, FallbackChain, Pipeline, Reading, StateChangedError
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.reranking import CrossEncoderReranker
from feedrank.engine.serving.serving_snapshot import PlainRequest, ServingSnapshot
from feedrank.features.bm25 import Bm25Retriever
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle, registry, snapshot
from feedrank.models.bundles.bundle import BundleError
from feedrank.models.bundles.item_cutoff import ItemCutoff
from feedrank.models.bundles.snapshot import RestoredState
from feedrank.models.text.cross_encoder_export import CrossEncoderSettings
from feedrank.models.text.score_cache import SqliteScoreCache
from feedrank.models.training.ranker import IdentityRanker, QueryAwareRanker

TRY_OUT_USERS = 2
"""Known users for whom a bundle ranks before it serves."""


def build_recommender(home: HomePaths, config: Config, journal: Journal | None = None) -> Recommender:
    """Build a recommender from the current bundle and the state of the whole journal.

    journal: the open journal, which the caller closes; None: it is opened here.
    """
    journal = journal or home.existing_journal(config.journal.url)
    opened = registry.load_current(home.bundles, warn)
    restored = restore_state(home, journal, opened, clock_ms())
    warn_of_types(config, opened, restored)
    return Recommender(
        build_snapshot(home, config, opened, restored),
        journal,
        config.cross_encoder.prefetch_queue_size,
    )


def build_snapshot(
    home: HomePaths,
    config: Config,
    opened: bundle.Bundle,
    restored: RestoredState,
    encoders: TextEncoders | None = None,
) -> ServingSnapshot:
    """Build a serving snapshot from a bundle and the restored state."""
    opened = with_custom_index(opened, config.index)
    encoders = encoders or TextEncoders(home, opened)
    return ServingSnapshot(
        catalogue=opened.item_model.catalogue,
        users=restored.users,
        state=restored.state,
        pipeline=build_pipeline(opened, config, restored.state, build_reranker(home, opened, config.cross_encoder)),
        item_vectors=opened.item_model.space.item_side,
        encode_query=encoders.encode_query if encoders else None,
        offset=restored.offset,
        items_offset=bundle.journal_offset_of(opened),
        latest_ms=max(restored.high_watermark_ms, 0),
        high_watermark_ms=max(restored.high_watermark_ms, 0),
        meanings=opened.builder.spec.interactions,
        future=restored.future,
    )


def save_state_snapshot(home: HomePaths, config: Config) -> RestoredState:
    """Write a snapshot of the state of the whole journal for the current bundle, however few events are new."""
    opened = registry.load_current(home.bundles, warn)
    catalogue = opened.item_model.catalogue
    journal = home.existing_journal(config.journal.url)
    cutoff = ItemCutoff.of(opened)
    restored = snapshot.restore(
        home.snapshot, journal, catalogue, opened.builder.spec, now_ms=clock_ms(), cutoff=cutoff
    )
    _save(home, journal, restored, opened)
    return restored


def restore_state(home: HomePaths, journal: Journal, opened: bundle.Bundle, now_ms: int) -> RestoredState:
    """Restore the state of the whole journal; writes a new snapshot if many events came after the last one.

    now_ms: the clock, in epoch milliseconds. Events that are more than a day ahead of it are left out, with a warning,
    until their time has come.
    """
    catalogue, spec = opened.item_model.catalogue, opened.builder.spec
    cutoff = ItemCutoff.of(opened)
    restored = snapshot.restore(home.snapshot, journal, catalogue, spec, now_ms=now_ms, cutoff=cutoff)
    for note in restored.future.notes:
        warn(note)
    if restored.events_read >= snapshot.MIN_EVENTS_TO_SAVE:
        try:
            _save(home, journal, restored, opened)
        except OSError as problem:  # such as a full disk: the next start replays these events again
            warn(f"the state could not be saved to {home.snapshot}: {problem}")
    return restored


def _save(home: HomePaths, journal: Journal, restored: RestoredState, opened: bundle.Bundle) -> None:
    """Write a snapshot, but not of a user who was erased meanwhile."""
    snapshot.save(home.snapshot, restored, opened.item_model.catalogue, ItemCutoff.of(opened))
    if journal.erasure_log.latest_offset() > restored.offset:
        home.snapshot.unlink(missing_ok=True)


def try_out(snapshot: ServingSnapshot, at: float, state_lock: Reading = UNSHARED) -> None:
    """Rank for a few users, with and without a query, before a bundle serves. at: unix seconds.

    state_lock: held while the state is read, where other threads change it. No event is applied to the state. Raises
    BundleError if a feed needs a fallback: the bundle's files have the right checksums, and can't be used.
    """
    name, users = snapshot.pipeline.bundle, snapshot.users
    for user in (None, *(users.name(row) for row in range(min(TRY_OUT_USERS, len(users))))):
        for query in ("", snapshot.catalogue.titles[0] if len(snapshot.catalogue) else ""):
            record = _rank_once(snapshot, at, RecommendationRequest(user, query=query), state_lock)
            if record.fallback != FULL:
                raise BundleError(f"the bundle {name} can't rank: its feeds fall back to {record.fallback}")
            if not np.isfinite([score for score in record.scores if score is not None]).all():
                raise BundleError(f"the bundle {name} can't rank: it gives scores that are not finite")


def _rank_once(
    snapshot: ServingSnapshot, at: float, request: RecommendationRequest, state_lock: Reading
) -> RankingRecord:
    """Rank for one request, which is not logged; again while the user's history changes meanwhile."""
    job, budget = PlainRequest("try-out", request, snapshot), unlimited_budget()
    vectors = job.embed_queries(budget)
    while True:
        with state_lock:
            ranking_jobs = job.resolve(round(at * 1000), vectors, state_lock)
        with suppress(StateChangedError):
            return job.rank(ranking_jobs, FallbackChain(), budget, lambda features, scores: None)


def build_pipeline(
    opened: bundle.Bundle,
    config: Config,
    state: BehaviouralState,
    reranker: CrossEncoderReranker | None,
) -> Pipeline:
    """Build the pipeline: BM25, embedding or popularity recall, then the bundle's features, ranker and reranker.

    Without a trained ranker, requests without a query keep recall order.
    """
    knowledge = opened.item_model
    by_embedding = EmbeddingRetriever(
        knowledge.catalogue,
        knowledge.space,
        build_exact_index(opened, config.index),
        build_vector_index(opened, config.index),
        config.recall.query_weight,
    )
    by_terms = Bm25Retriever(knowledge.catalogue, knowledge.term_weights)
    popular = PopularRetriever(knowledge.catalogue, state.popularity)
    retriever = FallbackRetriever([HybridRetriever(by_terms, by_embedding), by_embedding])
    ranker = QueryAwareRanker(opened.ranker or IdentityRanker(), opened.builder.names, config.recall.query_weight)
    return Pipeline(retriever, state, opened.builder, ranker, config.recall.candidates, opened.name, reranker, popular)


def build_reranker(
    home: HomePaths, opened: bundle.Bundle, settings: CrossEncoderSettings
) -> CrossEncoderReranker | None:
    """Build the cross-encoder reranker; None if the bundle has none."""
    model = bundle.load_cross_encoder(opened, settings.threads)
    if model is None or opened.first_stage is None:
        return None
    cache = SqliteScoreCache(home.cross_encoder_scores, model.digest, item_documents(opened), settings.cache_size)
    return CrossEncoderReranker(opened.first_stage, model, cache, opened.item_model.catalogue.titles, settings.top_k)


def warn_of_types(config: Config, opened: bundle.Bundle, restored: RestoredState) -> None:
    """Warn of interaction types of the journal that nothing lists, and of meanings that the bundle does not have."""
    meanings = opened.builder.spec.interactions
    if meanings != config.interactions:
        warn(f"the bundle {opened.name} has other [interactions] than the config; they hold after the next training")
    if message := unlisted_warning(restored.type_counts, meanings):
        warn(message)


def warn(message: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {message}", file=sys.stderr)
