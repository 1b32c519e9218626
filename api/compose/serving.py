"""From a bundle to answers."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np

from api.compose.signals import TextModels, documents_of
from api.config import Config, IndexConfig
from api.home import Home
from engine.indexes import SegmentedIndex
from engine.journal import Journal
from engine.live import Live
from engine.pipeline import Pipeline
from engine.protocols import Ranker, VectorIndex, WholeIndex
from engine.recall import EmbeddingRetriever, FirstOf, PopularRetriever
from engine.recommender import Recommender
from engine.rescoring import Rescoring
from engine.scan import ScanIndex
from engine.types import Matrix, Scores
from features.bm25 import Bm25Retriever
from features.context import standings
from features.state import BehaviouralState
from models import bundle, registry, snapshot
from models.ranker import LambdaRanker
from models.snapshot import Living
from models.text.pair_export import PairSettings
from models.text.score_cache import PairScores


class QueriesInRecallOrder:
    """A ranker that has never seen a query does not order requests that have one: it would order by the person alone.

    They stay in recall's order, which mixes query and person; where token vectors or a cross-encoder read the query,
    in the order of the mean standing of what read it.
    """

    def __init__(self, ranker: LambdaRanker, names: tuple[str, ...]) -> None:
        self._ranker = ranker
        self._query = names.index("query_text") if "query_text" in names else None
        readers = ("query_text", "late_query", "pair_score")
        self._readers = [names.index(name) for name in readers if name in names]

    def contributions(self, features: Matrix) -> Matrix | None:
        """The ranker's, of requests that it orders; None of others."""
        by_ranker = self._query is None or bool(np.isnan(features[:, self._query]).all())
        return self._ranker.contributions(features) if by_ranker else None

    def score(self, features: Matrix) -> Scores:
        """The ranker's scores, or minus the places where the request has a query."""
        if self._query is not None and np.isnan(features[:, self._query]).all():
            return self._ranker.score(features)
        read = np.ascontiguousarray(features[:, self._readers])
        if np.isnan(read[:, 1:]).all():
            return RecallOrder().score(features)
        within = standings(read, np.array([0, len(read)], np.int64))
        return np.asarray(np.nan_to_num(within, nan=-1.0).mean(axis=1), np.float32)


class RecallOrder:
    """A ranker that leaves the candidates of a request in the order recall found them in."""

    def score(self, features: Matrix) -> Scores:
        """Minus the place of each row, from 1."""
        return -np.arange(1, len(features) + 1, dtype=np.float32)


def recommender(home: Home, config: Config) -> Recommender:
    """The current bundle, with the state of the whole journal, ready to answer."""
    journal = home.journal(config.journal.url)
    opened = registry.load_current(home.bundles, warn)
    return Recommender(
        live(home, config, opened, living_state(home, journal, opened)), journal, config.cross_encoder.ahead
    )


def live(home: Home, config: Config, opened: bundle.Bundle, living: Living, texts: TextModels | None = None) -> Live:
    """One generation of what serves: a bundle, and the state of the journal as far as that was read."""
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
    """What orders a bundle's candidates."""
    return QueriesInRecallOrder(opened.ranker, opened.builder.names) if opened.ranker else RecallOrder()


def take_snapshot(home: Home, config: Config) -> Living:
    """Write the state of the whole journal for the current bundle, whatever was read for it."""
    opened = registry.load_current(home.bundles, warn)
    catalogue = opened.knowledge.catalogue
    living = snapshot.restore(home.snapshot, home.journal(config.journal.url), catalogue, opened.builder.spec)
    snapshot.save(home.snapshot, living, catalogue)
    return living


def living_state(home: Home, journal: Journal, opened: bundle.Bundle) -> Living:
    """The state of the whole journal; a new snapshot is written where much came after the last one."""
    living = snapshot.restore(home.snapshot, journal, opened.knowledge.catalogue, opened.builder.spec)
    if living.read >= snapshot.WORTH_SAVING:
        snapshot.save(home.snapshot, living, opened.knowledge.catalogue)
    return living


def pipeline(
    opened: bundle.Bundle, config: Config, state: BehaviouralState, ranker: Ranker, second: Rescoring | None
) -> Pipeline:
    """Recall through the bundle's index, popularity for strangers, then the bundle's features and ranker."""
    knowledge = opened.knowledge
    found = EmbeddingRetriever(
        knowledge.catalogue,
        knowledge.space,
        _whole(opened, config.index),
        vector_index(opened, config.index),
        config.recall.query_share,
    )
    by_words = Bm25Retriever(knowledge.catalogue, knowledge.terms)
    popular = PopularRetriever(knowledge.catalogue, state.popularity)
    retriever = FirstOf([by_words, found, popular])
    return Pipeline(retriever, state, opened.builder, ranker, config.recall.candidates, opened.name, second, popular)


def rescoring(home: Home, opened: bundle.Bundle, chosen: PairSettings) -> Rescoring | None:
    """The second phase, where the bundle has one."""
    model = bundle.pair_model_of(opened, chosen.threads)
    if model is None or opened.first is None:
        return None
    cache = PairScores(home.pair_scores, model.digest, documents_of(opened), chosen.cache)
    return Rescoring(opened.first, model, cache, opened.knowledge.catalogue.titles, chosen.best)


def vector_index(opened: bundle.Bundle, chosen: IndexConfig) -> VectorIndex | None:
    """What is asked before the whole catalogue is looked through; None: nothing is."""
    targets = opened.knowledge.space.targets
    if chosen.kind == "annoy":
        if len(targets) <= chosen.whole_up_to:
            return None
        first = opened.manifest["items"]
        if first == len(targets):
            return opened.index
        return SegmentedIndex(opened.index, targets[first:], first, opened.index.metric)
    if chosen.kind == "exact":
        return None
    module, _, name = chosen.kind.partition(":")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise ValueError(f"can't find the index.kind {chosen.kind!r}: {problem}") from None
    made: VectorIndex = kind(targets, opened.index.metric)
    return made


def _whole(opened: bundle.Bundle, chosen: IndexConfig) -> WholeIndex:
    """The bundle's own, or its second look alone where nothing is to be missed."""
    whole = opened.whole
    return whole.exact if chosen.kind == "exact" and isinstance(whole, ScanIndex) else whole


def warn(message: str) -> None:
    """Say what went wrong and was got round."""
    print(f"warning: {message}", file=sys.stderr)
