"""Retraining: a candidate on a new window, measured beside the incumbent on the newest groups.

The window is cut by time into training, validation and test. The incumbent answers the same test groups with its own
item knowledge, its own features and its own recall. Where its data window reaches into the test slice it is favoured,
and the outcome says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.log import Log
from engine.types import Scores
from features.builder import FeatureBuilder
from features.replay import Moments
from models.bootstrap import interval
from models.dataset import Examples, from_rankings, from_recall, groups, read_states
from models.drift import Sketch
from models.gate import GateSettings, Verdict, judge
from models.groups import scored
from models.metrics import Values, evaluate, order
from models.ranker import LambdaRanker
from models.report import Row
from models.second_phase import SecondPhase
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

METRICS = ("ndcg@10", "mrr", "map", "hr@10")
NEW, HEAVY = 5, 50
"""Touches below which a person is new, and from which on heavy."""
ENOUGH = 200
"""Test groups after the incumbent's last event that make a test slice of their own."""


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """[retrain] How the window is cut, and what the candidate must show."""

    validation_share: float = 0.1
    test_share: float = 0.1
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        if min(self.validation_share, self.test_share) <= 0 or self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must be above 0, and leave something to train on")


@dataclass(frozen=True, eq=False, slots=True)
class Incumbent:
    """What serves now."""

    name: str
    builder: FeatureBuilder
    ranker: LambdaRanker | None
    sketch: Sketch | None
    until: float
    """Unix seconds of the last event that it was trained on; NaN: not known."""
    first: LambdaRanker | None = None
    """The ranker of the first phase, where there are two."""
    pairs: SecondPhase | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """A candidate, what it measures, and what the gate says of it."""

    trained: Trained
    verdict: Verdict
    rows: tuple[Row, ...]
    drift: Mapping[str, float]
    """Feature -> PSI against the incumbent's training rows; empty where that is not known."""
    test_from: float
    """Unix seconds."""
    cautions: tuple[str, ...]


def retrain(
    corpus: Corpus,
    log: Log,
    incumbent: Incumbent | None,
    settings: Settings,
    retraining: RetrainSettings,
    progress: Progress = lambda *_: None,
    warm_start: bool = False,
) -> Outcome:
    """Train a candidate and judge it; nothing is written. Raises ValueError where there is nothing to learn from.

    warm_start: keep the incumbent's trees and add to them; its features must be the same.
    """
    start = None
    if warm_start:
        if incumbent is None or incumbent.ranker is None:
            raise ValueError("there is no incumbent ranker to start from; retrain without warm start")
        start = incumbent.ranker
    by_rankings = learns_from_rankings(log, settings)
    run = _by_rankings if by_rankings else _by_recall
    trained, examples, test_from, answers = run(corpus, log, incumbent, settings, retraining, progress, start)
    batch = read_states(log, corpus.catalogue, settings.state, examples)
    new, heavy = batch.touches < NEW, batch.touches >= HEAVY
    segments = {"new": new, "usual": ~(new | heavy), "heavy": heavy}
    gate = retraining.gate
    metrics = tuple(dict.fromkeys((gate.metric, *METRICS)))
    values = {name: _measured(metrics, labels, offsets) for name, (labels, offsets) in answers.items()}
    seed = settings.training.seed
    rows = [
        Row.of(segment, name, metric, interval(found[metric][chosen], seed=seed))
        for segment, chosen in {"all": np.ones(len(examples), np.bool_), **segments}.items()
        for name, found in values.items()
        for metric in metrics
    ]
    before = values["incumbent"][gate.metric] if "incumbent" in values else None
    verdict = judge(values["candidate"][gate.metric], before, segments, gate)
    moved = {}
    if incumbent is not None and incumbent.sketch is not None:
        moved = incumbent.sketch.drift(trained.sample, trained.builder.names)
    return Outcome(trained, verdict, tuple(rows), moved, test_from, tuple(_cautions(incumbent, test_from)))


def seen_by(log: Log, catalogue: Catalogue, builder: FeatureBuilder) -> tuple[Log, NDArray[np.int32]]:
    """The log in the item rows of another catalogue, and the row there of each item here; NOBODY where it has none."""
    rows = builder.knowledge.catalogue.ids.rows(list(catalogue.ids))
    rows = np.append(rows, np.int32(-1))  # NOBODY stays NOBODY
    interactions = replace(log.interactions, item=rows[log.interactions.item])
    rankings = replace(log.rankings, rows=rows[log.rankings.rows])
    return replace(log, interactions=interactions, rankings=rankings), rows[:-1]


Answers = dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Who answered -> the labels of what they show, best first, and the bounds of the groups."""


def _by_rankings(
    corpus: Corpus, log: Log, incumbent: Incumbent | None, settings: Settings, retraining: RetrainSettings,
    progress: Progress, start: LambdaRanker | None,
) -> tuple[Trained, Examples, float, Answers]:  # fmt: skip
    total = len(log.rankings)
    stop = round(total * (1 - retraining.test_share))
    cut = round(total * (1 - retraining.test_share - retraining.validation_share))
    unseen = 0 if incumbent is None else int(np.searchsorted(log.rankings.at, incumbent.until, side="right"))
    if stop < unseen <= total - ENOUGH:  # later than need be, so that the incumbent has not seen the test slice either
        cut, stop = cut + unseen - stop, unseen
    if not 0 < cut < stop < total:
        raise ValueError(f"{total} rankings are too few to split by time into training, validation and test")
    trained = train_from_rankings(corpus, log, cut, stop, settings, progress, start)
    test = from_rankings(log, stop, total, settings.labels)
    test = test.only(test.found)
    moments = test.moments

    def answered(scores: Scores) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return test.labels[order(scores, moments.offsets)], moments.offsets

    answers = {"candidate": answered(trained.score(groups(log, trained.builder, test)))}
    if incumbent is not None:
        theirs, rows = seen_by(log, corpus.catalogue, incumbent.builder)
        asked = Moments(moments.before, moments.at, moments.person, moments.offsets, rows[moments.rows])
        known = Examples(asked, test.labels, test.relevant)
        answers["incumbent"] = answered(_incumbent_scores(incumbent, theirs, known))
    return trained, test, float(log.rankings.at[stop]), answers


def _by_recall(
    corpus: Corpus, log: Log, incumbent: Incumbent | None, settings: Settings, retraining: RetrainSettings,
    progress: Progress, start: LambdaRanker | None,
) -> tuple[Trained, Examples, float, Answers]:  # fmt: skip
    """Validation is a fold of people, as in training; the test slice is each person's first touch after the cut."""
    sequences = Sequences.of(log)
    cut = cut_at(log, 1 - retraining.test_share)
    if incumbent is not None and cut <= incumbent.until and len(_first_after(sequences, incumbent.until + 1)) >= ENOUGH:
        cut = incumbent.until + 1  # so that the incumbent has not seen the test slice either
    trained = train_from_recall(corpus, log, log.interactions.at < cut, settings, progress, start)
    targets = _first_after(sequences, cut)
    if not len(targets):
        raise ValueError("nobody touched anything both before and after the cut; the window is too short")
    depth, k = settings.state.depth, settings.training.candidates
    ours = from_recall(log, sequences, targets, retriever(trained.knowledge), k, depth)
    made = groups(log, trained.builder, ours)
    answers = {"candidate": (ours.labels[order(trained.score(made), made.offsets)], made.offsets)}
    if incumbent is not None:
        theirs, rows = seen_by(log, corpus.catalogue, incumbent.builder)
        items = rows[sequences.items]
        known = replace(sequences, items=items)
        recalled = from_recall(theirs, known, targets, retriever(incumbent.builder.knowledge), k, depth)
        scores = _incumbent_scores(incumbent, theirs, recalled)
        offsets = recalled.moments.offsets
        answers["incumbent"] = (recalled.labels[order(scores, offsets)], offsets)
    return trained, ours, cut, answers


def _incumbent_scores(incumbent: Incumbent, log: Log, examples: Examples) -> Scores:
    """Its ranker's scores, or recall's order; items that it does not know come last, as it could not show them."""
    if incumbent.ranker is None:
        batch = read_states(log, incumbent.builder.knowledge.catalogue, incumbent.builder.spec, examples)
        scores = np.nan_to_num(incumbent.builder.columns(batch)["recall_score"], nan=-np.inf)
    else:
        made = groups(log, incumbent.builder, examples)
        if incumbent.pairs is not None and incumbent.first is not None:
            made = incumbent.pairs.live(made, incumbent.first)
        scores = scored(made, incumbent.ranker.score)
    return np.where(examples.moments.rows < 0, np.float32(-np.inf), scores).astype(np.float32)


def _first_after(sequences: Sequences, cut: float) -> NDArray[np.int64]:
    before = np.concatenate([[0], np.cumsum(sequences.at < cut)])
    first = sequences.offsets[:-1] + (before[sequences.offsets[1:]] - before[sequences.offsets[:-1]])
    chosen: NDArray[np.int64] = first[(first > sequences.offsets[:-1]) & (first < sequences.offsets[1:])]
    return chosen


def _measured(metrics: tuple[str, ...], labels: NDArray[np.float32], offsets: NDArray[np.int64]) -> dict[str, Values]:
    relevant = np.ones(len(offsets) - 1, np.int64)
    found = np.add.reduceat(np.append(labels > 0, False), offsets[:-1]) * (np.diff(offsets) > 0)
    return evaluate(list(metrics), labels, offsets, relevant=np.maximum(relevant, found))


def _cautions(incumbent: Incumbent | None, test_from: float) -> list[str]:
    if incumbent is None:
        return []
    if np.isnan(incumbent.until):
        return ["it is not known up to when the incumbent was trained; it may have learnt from the test slice"]
    if incumbent.until >= test_from:
        return ["the incumbent was trained on part of the test slice, which favours it: its figures are too good"]
    return []
