"""Offline evaluation compares the ranker with recall order, text similarity, popularity and random on held-out data.

There are three protocols. `last-item`: leave each user's last interaction out, and find it among all items that the
user has not interacted with. `temporal`: one cut in time for all users, find the first interaction after it.
`rankings`: the logged rankings, split by time 70/10/20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import Log
from feedrank.engine.protocols import Retriever
from feedrank.engine.retrieval.embedding_space import assemble
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever, PopularRetriever, eligible
from feedrank.engine.types import Candidates, Offsets, Request, Rows, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation.bootstrap import Difference, difference, interval
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.evaluation.report import Row
from feedrank.models.evaluation.trec import Qrels, Run
from feedrank.models.items.user_histories import Sequences
from feedrank.models.training.dataset import Examples, from_rankings, from_recall, groups, read_states
from feedrank.models.training.training import (
    Corpus,
    Progress,
    Settings,
    Trained,
    cut_at,
    learns_from_rankings,
    retriever,
    train_from_rankings,
    train_from_recall,
)

RETRIEVAL_METRICS = ("ndcg@10", "hr@10", "recall@100", "mrr", "map")
RANKING_METRICS = ("auc", "ndcg@10", "ndcg@5", "mrr", "map")
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1
"""Shares of the rankings by time; the rest is the test slice."""
TEMPORAL_CUT = 0.9
"""Share of the interactions before the time split."""


@dataclass(frozen=True, eq=False, slots=True)
class Ordered:
    """The ranking of one method for each test group, best first."""

    rows: Rows
    scores: Scores
    offsets: Offsets


@dataclass(frozen=True, eq=False, slots=True)
class Comparison:
    """The methods' rankings on one test set and their metrics."""

    protocol: str
    methods: Mapping[str, Ordered]
    targets: Qrels
    rows: tuple[Row, ...]
    gain: Difference
    """Paired difference in nDCG@10, ranker minus recall order."""
    trained: Trained


def last_item(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on all but each user's last interaction and find that interaction.

    Later interactions of other users are part of the training data.
    """
    settings = settings or Settings()
    histories = Sequences.of(log)
    is_target = (histories.from_end == 0) & (histories.from_start > 0)
    trainable = np.zeros(len(log.interactions), np.bool_)
    trainable[histories.touch[~is_target]] = True
    trained = train_from_recall(corpus, log, trainable, settings, progress)
    return _compare_recall("last-item", dataset, corpus, log, histories, np.flatnonzero(is_target), trained, settings)


def temporal(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on the interactions before one cut in time and find each known user's first interaction after it.

    Raises ValueError if no user has interactions on both sides of the cut.
    """
    settings = settings or Settings()
    histories = Sequences.of(log)
    cut = cut_at(log, TEMPORAL_CUT)
    is_past = histories.at < cut
    past_counts = np.concatenate([[0], np.cumsum(is_past)])
    first_after = histories.offsets[:-1] + (past_counts[histories.offsets[1:]] - past_counts[histories.offsets[:-1]])
    has_target = (first_after > histories.offsets[:-1]) & (first_after < histories.offsets[1:])
    if not has_target.any():
        raise ValueError("found no user with interactions before and after the cut; import a longer log")
    trained = train_from_recall(corpus, log, log.interactions.at < cut, settings, progress)
    return _compare_recall("temporal", dataset, corpus, log, histories, first_after[has_target], trained, settings)


def rankings(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on the first 70 % of the rankings, stop early on the next 10 %, rank the last 20 %.

    Raises ValueError if there are too few rankings to split.
    """
    settings = settings or Settings()
    total = len(log.rankings)
    validation_start, test_start = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
    if not 0 < validation_start < test_start < total:
        raise ValueError(f"found {total} rankings, too few for a time split; import a longer log")
    trained = train_from_rankings(corpus, log, validation_start, test_start, settings, progress)
    test = from_rankings(log, test_start, total, settings.labels)
    test = test.only(test.found)
    batch = read_states(log, corpus.catalogue, settings.state, test)
    columns = FeatureBuilder(trained.knowledge, settings.state).columns(batch)  # of all families
    scores = {
        "lambdarank": trained.score(groups(log, trained.builder, test)),
        "recall": columns["recall_score"],
        "text": columns["text_1"],
        "popularity": columns["popularity_all"],
        "click-through": columns["ctr_24h"],
        "random": np.random.default_rng(settings.training.seed).random(len(batch.rows)).astype(np.float32),
    }
    methods: dict[str, Ordered] = {}
    for name, column in scores.items():
        ranking = order(column, batch.offsets)
        methods[name] = Ordered(batch.rows[ranking], column[ranking].astype(np.float32), batch.offsets)
    relevant = test.labels > 0
    targets = _qrels(corpus, batch.rows[relevant], batch.groups[relevant], len(test))
    return _compared("rankings", dataset, corpus, methods, targets, RANKING_METRICS, trained, settings)


PROTOCOLS: dict[str, Callable[..., Comparison]] = {"last-item": last_item, "temporal": temporal, "rankings": rankings}


def protocols_for(log: Log, settings: Settings) -> tuple[str, ...]:
    """Return the protocols that fit a log: `rankings` if it has enough of them, otherwise those based on recall."""
    return ("rankings",) if learns_from_rankings(log, settings) else ("last-item", "temporal")


def runs(corpus: Corpus, comparison: Comparison) -> dict[str, Run]:
    """Return each method's rankings as a TREC run."""
    runs_by_method: dict[str, Run] = {}
    for name, ranked in comparison.methods.items():
        documents = corpus.catalogue.ids.names(ranked.rows)
        runs_by_method[name] = Run(comparison.targets.queries, documents, ranked.scores, ranked.offsets)
    return runs_by_method


def _compare_recall(
    protocol: str, dataset: str, corpus: Corpus, log: Log, sequences: Sequences, targets: NDArray[np.int64],
    trained: Trained, settings: Settings,
) -> Comparison:  # fmt: skip
    def candidates_of(source: Retriever) -> Examples:
        return from_recall(log, sequences, targets, source, settings.training.candidates, settings.state.depth)

    candidates = candidates_of(retriever(trained.knowledge))
    query_groups = groups(log, trained.builder, candidates)
    scores = trained.score(query_groups)
    ranking = order(scores, query_groups.offsets)
    queries = candidates.moments
    methods = {"lambdarank": Ordered(queries.rows[ranking], scores[ranking], queries.offsets)}
    for name, source in _baselines(corpus, trained, settings).items():
        retrieved = candidates if name == "recall" else candidates_of(source)
        rows, offsets = retrieved.moments.rows, retrieved.moments.offsets
        ranks = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
        methods[name] = Ordered(rows, -ranks.astype(np.float32), offsets)
    target_items = sequences.items[targets][np.argsort(log.places()[sequences.touch[targets]], kind="stable")]
    qrels = _qrels(corpus, target_items, np.arange(len(target_items)), len(target_items))
    return _compared(protocol, dataset, corpus, methods, qrels, RETRIEVAL_METRICS, trained, settings)


def _baselines(corpus: Corpus, trained: Trained, settings: Settings) -> dict[str, Retriever]:
    item_model = trained.knowledge
    counts = np.nan_to_num(item_model.statistics["touch_count"])
    space = assemble({"text": (corpus.text, corpus.text)}, {"text": 1.0}, 1.0, settings.items.depth)
    return {
        "recall": retriever(item_model),
        "text": EmbeddingRetriever(corpus.catalogue, space, ExactIndex(space.targets, "dot")),
        "popularity": PopularRetriever(corpus.catalogue, lambda _: counts),
        "random": _Random(corpus, settings.training.seed),
    }


class _Random:
    """Retrieves random items among those that pass the filters."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._catalogue = corpus.catalogue
        self._random = np.random.default_rng(seed)

    def retrieve(self, request: Request, k: int) -> Candidates:
        mask = eligible(self._catalogue, request)
        rows = np.arange(len(self._catalogue)) if mask is None else np.flatnonzero(mask)
        chosen = self._random.permutation(rows)[:k].astype(np.int32)
        return Candidates(chosen, np.zeros(len(chosen), np.float32), "random")


def _qrels(corpus: Corpus, rows: Rows, owners: NDArray[np.int64] | NDArray[np.int32], queries: int) -> Qrels:
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=queries))]).astype(np.int64)
    names = [str(query) for query in range(queries)]
    return Qrels(names, corpus.catalogue.ids.names(rows), np.ones(len(rows), np.int64), offsets)


def _compared(
    protocol: str, dataset: str, corpus: Corpus, methods: Mapping[str, Ordered], targets: Qrels,
    metrics: Sequence[str], trained: Trained, settings: Settings,
) -> Comparison:  # fmt: skip
    relevant_rows = corpus.catalogue.ids.rows(list(targets.documents)).astype(np.int64)
    width = len(corpus.catalogue) + 1
    keys = np.repeat(np.arange(len(targets.offsets) - 1), np.diff(targets.offsets)) * width + relevant_rows
    relevant = np.diff(targets.offsets)
    rows: list[Row] = []
    values: dict[str, NDArray[np.float64]] = {}
    for name, ranked in methods.items():
        group_of = np.repeat(np.arange(len(ranked.offsets) - 1), np.diff(ranked.offsets))
        labels = np.isin(group_of * width + ranked.rows, keys).astype(np.float32)
        metric_values = evaluate(metrics, labels, ranked.offsets, relevant=relevant, scores=ranked.scores)
        values[name] = metric_values["ndcg@10"]
        rows += [
            Row.of(dataset, name, metric, interval(column, seed=settings.training.seed))
            for metric, column in metric_values.items()
        ]
    gain = difference(values["lambdarank"], values["recall"], seed=settings.training.seed)
    return Comparison(protocol, dict(methods), targets, tuple(rows), gain, trained)
