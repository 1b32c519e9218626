"""What each signal group adds to the ranker, and what it costs: trained without it, on the same test groups."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.log import Log
from features.builder import FAMILIES, FeatureBuilder
from models.bootstrap import Difference, difference
from models.dataset import Examples, from_rankings, from_recall, groups, read_states
from models.evaluation import TRAIN_SHARE, VALIDATION_SHARE
from models.groups import Groups
from models.metrics import Values, evaluate, order
from models.ranker import LambdaRanker
from models.sequences import Sequences
from models.training import (
    Corpus,
    Prepared,
    Progress,
    Settings,
    prepare_from_rankings,
    prepare_from_recall,
    retriever,
)

SIGNALS: dict[str, tuple[str, ...]] = {
    "bm25": ("bm25",),
    "embedding": ("text_", "content_", "taste_", "query_text"),
    "late interaction": ("late_",),
    "cross-encoder": ("pair_",),
}
"""Signal group -> how the names of its features begin; all others are behaviour."""
BEHAVIOUR = "behaviour"
TOGETHER = ("late interaction", "cross-encoder")
"""Signals that are also left out at once: all that is optional."""


@dataclass(frozen=True, slots=True)
class Ablated:
    """The ranker without one signal group."""

    signal: str
    features: int
    value: float
    """The metric without it."""
    gain: Difference
    """Of the ranker with all signals over the one without this, paired by test group."""


@dataclass(frozen=True, eq=False, slots=True)
class Ablation:
    """All signal groups that the features have."""

    metric: str
    value: float
    """With all signals."""
    groups: int
    rows: tuple[Ablated, ...]
    costs: Mapping[str, float]
    """Feature family, and `cross-encoder, live` -> milliseconds a request, in bulk."""


def ablate(
    corpus: Corpus, log: Log, protocol: str, settings: Settings, metric: str, progress: Progress = lambda *_: None
) -> Ablation:
    """Train with all signals and without each, on what `models.evaluation` trains this protocol on.

    protocol: rankings or last-item. The validation slice chooses the rounds each time.
    """
    with settings.training.store() as store:
        if protocol == "rankings":
            total = len(log.rankings)
            cut, stop = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
            prepared = prepare_from_rankings(corpus, log, cut, stop, settings, store, progress)
            test = from_rankings(log, stop, total, settings.labels)
            test = test.only(test.found)
        else:
            sequences = Sequences.of(log)
            asked = (sequences.from_end == 0) & (sequences.from_start > 0)
            usable = np.zeros(len(log.interactions), np.bool_)
            usable[sequences.touch[~asked]] = True
            prepared = prepare_from_recall(corpus, log, usable, settings, store, progress)
            found = retriever(prepared.builder.knowledge)
            depth, k = settings.state.depth, settings.training.candidates
            test = from_recall(log, sequences, np.flatnonzero(asked), found, k, depth)
        made = groups(log, prepared.builder, test)
        costs = _costs(log, prepared.builder, test)
        first, prepared = prepared.with_pairs(progress)
        if first is not None and corpus.pairs is not None:
            started = time.perf_counter()
            made = corpus.pairs.live(made, first)
            costs["cross-encoder, live"] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
        return _compared(prepared, made, test, metric, costs, settings.training.seed, progress)


def columns_of(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Signal group -> the columns that are its own, standings included; without those that have none.

    Of the optional ones, where there is more than one, also all at once.
    """
    found: dict[str, list[int]] = {signal: [] for signal in (*SIGNALS, BEHAVIOUR)}
    for place, name in enumerate(names):
        signal = next((one for one, begins in SIGNALS.items() if name.startswith(begins)), BEHAVIOUR)
        found[signal].append(place)
    found = {signal: columns for signal, columns in found.items() if columns}
    if all(signal in found for signal in TOGETHER):
        found[" and ".join(TOGETHER)] = [place for signal in TOGETHER for place in found[signal]]
    return found


def _compared(
    prepared: Prepared, made: Groups, test: Examples, metric: str, costs: Mapping[str, float], seed: int,
    progress: Progress,
) -> Ablation:  # fmt: skip
    names = prepared.builder.names
    signals = columns_of(names)
    whole = _measured(prepared.fit(progress).ranker, made, test, metric)
    rows = []
    for number, (signal, columns) in enumerate(signals.items(), 1):
        progress(f"without a signal: {signal}", number, len(signals))
        blind = {"feature_contri": [0.0 if place in columns else 1.0 for place in range(len(names))]}
        asked = replace(prepared.ranker, parameters=dict(prepared.ranker.parameters) | blind)
        without = _measured(replace(prepared, ranker=asked).fit().ranker, made, test, metric)
        rows.append(Ablated(signal, len(columns), float(np.nanmean(without)), difference(whole, without, seed=seed)))
    return Ablation(metric, float(np.nanmean(whole)), len(test), tuple(rows), costs)


def _measured(ranker: LambdaRanker, made: Groups, test: Examples, metric: str) -> Values:
    scores = ranker.score(made.features())
    by = order(scores, made.offsets)
    return evaluate((metric,), made.labels[by], made.offsets, relevant=test.relevant, scores=scores[by])[metric]


def _costs(log: Log, builder: FeatureBuilder, test: Examples) -> dict[str, float]:
    """Milliseconds a request of each feature family that makes anything, all test requests at once, second run."""
    batch = read_states(log, builder.knowledge.catalogue, builder.spec, test)
    costs: dict[str, float] = {}
    for _ in range(2):  # in the first, functions may be compiled
        columns: dict[str, np.ndarray] = {}
        for name in builder.settings.families:
            started = time.perf_counter()
            made = FAMILIES[name](builder, batch, columns)
            costs[name] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
            columns |= made
            if not made:
                del costs[name]
    return costs
