"""Honest comparisons: the ranker beside recall order, text similarity, popularity and chance, on data none learnt from.

Three protocols. `last-item`: each person's last touch, found among all items they have not touched. `temporal`: one cut
in time for all; the first touch after it. `rankings`: the lists that were really shown, split by time 70/10/20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.indexes import ExactIndex
from engine.log import Log
from engine.protocols import Retriever
from engine.recall import EmbeddingRetriever, PopularRetriever, eligible
from engine.space import assemble
from engine.types import Candidates, Offsets, Request, Rows, Scores
from features.builder import FeatureBuilder
from models.bootstrap import Difference, difference, interval
from models.dataset import Examples, from_rankings, from_recall, groups, read_states
from models.metrics import evaluate, order
from models.report import Row
from models.sequences import Sequences
from models.training import (
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
from models.trec import Qrels, Run

RETRIEVAL_METRICS = ("ndcg@10", "hr@10", "recall@100", "mrr", "map")
RANKING_METRICS = ("auc", "ndcg@10", "ndcg@5", "mrr", "map")
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1
"""Of the rankings, by time; the rest is the test slice."""
TEMPORAL_CUT = 0.9
"""Share of the interactions before the cut of the temporal split."""


@dataclass(frozen=True, eq=False, slots=True)
class Ordered:
    """What one method shows for each test group, best first."""

    rows: Rows
    scores: Scores
    offsets: Offsets


@dataclass(frozen=True, eq=False, slots=True)
class Comparison:
    """The methods' orders on one test set, and what they measure."""

    protocol: str
    methods: Mapping[str, Ordered]
    targets: Qrels
    rows: tuple[Row, ...]
    gain: Difference
    """Paired difference in nDCG@10 of the ranker over recall order."""
    trained: Trained


def last_item(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on all but each person's last touch; find the last touch. Other people's later behaviour is known."""
    settings = settings or Settings()
    sequences = Sequences.of(log)
    asked = (sequences.from_end == 0) & (sequences.from_start > 0)
    usable = np.zeros(len(log.interactions), np.bool_)
    usable[sequences.touch[~asked]] = True
    trained = train_from_recall(corpus, log, usable, settings, progress)
    return _compare_recall("last-item", dataset, corpus, log, sequences, np.flatnonzero(asked), trained, settings)


def temporal(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on what came before one cut in time; find each known person's first touch after it."""
    settings = settings or Settings()
    sequences = Sequences.of(log)
    cut = cut_at(log, TEMPORAL_CUT)
    past = sequences.at < cut
    before = np.concatenate([[0], np.cumsum(past)])
    first_after = sequences.offsets[:-1] + (before[sequences.offsets[1:]] - before[sequences.offsets[:-1]])
    asked = (first_after > sequences.offsets[:-1]) & (first_after < sequences.offsets[1:])
    if not asked.any():
        raise ValueError("nobody touched anything both before and after the cut; a temporal split needs a longer log")
    trained = train_from_recall(corpus, log, log.interactions.at < cut, settings, progress)
    return _compare_recall("temporal", dataset, corpus, log, sequences, first_after[asked], trained, settings)


def rankings(
    corpus: Corpus, log: Log, dataset: str, settings: Settings | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Train on the first 70 % of the rankings, stop early on the next 10 %, order the last 20 %."""
    settings = settings or Settings()
    total = len(log.rankings)
    cut, stop = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
    if not 0 < cut < stop < total:
        raise ValueError(f"{total} rankings are too few to split by time into training, validation and test")
    trained = train_from_rankings(corpus, log, cut, stop, settings, progress)
    test = from_rankings(log, stop, total, settings.labels)
    test = test.only(test.found)
    batch = read_states(log, corpus.catalogue, settings.state, test)
    columns = FeatureBuilder(trained.knowledge, settings.state).columns(batch)  # whatever families the ranker reads
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
        by = order(column, batch.offsets)
        methods[name] = Ordered(batch.rows[by], column[by].astype(np.float32), batch.offsets)
    relevant = test.labels > 0
    targets = _qrels(corpus, batch.rows[relevant], batch.groups[relevant], len(test))
    return _compared("rankings", dataset, corpus, methods, targets, RANKING_METRICS, trained, settings)


PROTOCOLS: dict[str, Callable[..., Comparison]] = {"last-item": last_item, "temporal": temporal, "rankings": rankings}


def protocols_for(log: Log, settings: Settings) -> tuple[str, ...]:
    """The protocols that fit a log: its own rankings where it has enough, or else what recall finds."""
    return ("rankings",) if learns_from_rankings(log, settings) else ("last-item", "temporal")


def runs(corpus: Corpus, comparison: Comparison) -> dict[str, Run]:
    """Each method's order as a TREC run."""
    found: dict[str, Run] = {}
    for name, shown in comparison.methods.items():
        documents = corpus.catalogue.ids.names(shown.rows)
        found[name] = Run(comparison.targets.queries, documents, shown.scores, shown.offsets)
    return found


def _compare_recall(
    protocol: str, dataset: str, corpus: Corpus, log: Log, sequences: Sequences, targets: NDArray[np.int64],
    trained: Trained, settings: Settings,
) -> Comparison:  # fmt: skip
    def found_by(source: Retriever) -> Examples:
        return from_recall(log, sequences, targets, source, settings.training.candidates, settings.state.depth)

    candidates = found_by(retriever(trained.knowledge))
    made = groups(log, trained.builder, candidates)
    scores = trained.score(made)
    by = order(scores, made.offsets)
    moments = candidates.moments
    methods = {"lambdarank": Ordered(moments.rows[by], scores[by], moments.offsets)}
    for name, source in _baselines(corpus, trained, settings).items():
        found = candidates if name == "recall" else found_by(source)
        rows, offsets = found.moments.rows, found.moments.offsets
        places = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
        methods[name] = Ordered(rows, -places.astype(np.float32), offsets)
    wanted = sequences.items[targets][np.argsort(log.places()[sequences.touch[targets]], kind="stable")]
    qrels = _qrels(corpus, wanted, np.arange(len(wanted)), len(wanted))
    return _compared(protocol, dataset, corpus, methods, qrels, RETRIEVAL_METRICS, trained, settings)


def _baselines(corpus: Corpus, trained: Trained, settings: Settings) -> dict[str, Retriever]:
    knowledge = trained.knowledge
    counts = np.nan_to_num(knowledge.statistics["touch_count"])
    space = assemble({"text": (corpus.text, corpus.text)}, {"text": 1.0}, 1.0, settings.items.depth)
    return {
        "recall": retriever(knowledge),
        "text": EmbeddingRetriever(corpus.catalogue, space, ExactIndex(space.targets, "dot")),
        "popularity": PopularRetriever(corpus.catalogue, lambda _: counts),
        "random": _Random(corpus, settings.training.seed),
    }


class _Random:
    """Any items that the filters let through."""

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
    wanted = corpus.catalogue.ids.rows(list(targets.documents)).astype(np.int64)
    width = len(corpus.catalogue) + 1
    keys = np.repeat(np.arange(len(targets.offsets) - 1), np.diff(targets.offsets)) * width + wanted
    relevant = np.diff(targets.offsets)
    rows: list[Row] = []
    values: dict[str, NDArray[np.float64]] = {}
    for name, shown in methods.items():
        owners = np.repeat(np.arange(len(shown.offsets) - 1), np.diff(shown.offsets))
        labels = np.isin(owners * width + shown.rows, keys).astype(np.float32)
        measured = evaluate(metrics, labels, shown.offsets, relevant=relevant, scores=shown.scores)
        values[name] = measured["ndcg@10"]
        rows += [
            Row.of(dataset, name, metric, interval(column, seed=settings.training.seed))
            for metric, column in measured.items()
        ]
    gain = difference(values["lambdarank"], values["recall"], seed=settings.training.seed)
    return Comparison(protocol, dict(methods), targets, tuple(rows), gain, trained)
