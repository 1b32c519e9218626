"""Ablation measures what each signal group adds to the ranker and what it costs.

The ranker is trained again without each group and measured on the same test groups.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.events.event_table import Log
from feedrank.features.builder import FAMILIES, FeatureBuilder
from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.evaluation import TRAIN_SHARE, VALIDATION_SHARE
from feedrank.models.evaluation.metrics import Values, evaluate, order
from feedrank.models.items.user_histories import Sequences
from feedrank.models.training.dataset import Examples, from_rankings, from_recall, groups, read_states
from feedrank.models.training.query_groups import Groups
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.training import (
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
"""Signal group -> prefixes of its feature names; all other features count as behaviour."""
BEHAVIOUR = "behaviour"
TOGETHER = ("late interaction", "cross-encoder")
"""The optional signal groups; they are also ablated together."""


@dataclass(frozen=True, slots=True)
class Ablated:
    """The result of training the ranker without one signal group."""

    signal: str
    features: int
    value: float
    """Mean metric without the group."""
    gain: Difference
    """Full ranker minus the ablated ranker, paired by test group."""


@dataclass(frozen=True, eq=False, slots=True)
class Ablation:
    """The ablation results of all signal groups that have features."""

    metric: str
    value: float
    """Mean metric of the full ranker."""
    groups: int
    rows: tuple[Ablated, ...]
    costs: Mapping[str, float]
    """Feature family, or `cross-encoder, live` -> milliseconds per request, measured in bulk."""


def ablate(
    corpus: Corpus, log: Log, protocol: str, settings: Settings, metric: str, progress: Progress = lambda *_: None
) -> Ablation:
    """Train the ranker with all signals and without each group, on the training data of the evaluation protocol.

    protocol: rankings or last-item. Early stopping on the validation slice chooses the number of rounds each time.
    """
    with settings.training.store() as store:
        if protocol == "rankings":
            total = len(log.rankings)
            cut, stop = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
            data = prepare_from_rankings(corpus, log, cut, stop, settings, store, progress)
            test = from_rankings(log, stop, total, settings.labels)
            test = test.only(test.found)
        else:
            histories = Sequences.of(log)
            is_target = (histories.from_end == 0) & (histories.from_start > 0)
            usable = np.zeros(len(log.interactions), np.bool_)
            usable[histories.touch[~is_target]] = True
            data = prepare_from_recall(corpus, log, usable, settings, store, progress)
            exact = retriever(data.builder.knowledge)
            depth, k = settings.state.depth, settings.training.candidates
            test = from_recall(log, histories, np.flatnonzero(is_target), exact, k, depth)
        query_groups = groups(log, data.builder, test)
        costs = _costs(log, data.builder, test)
        first_stage, data = data.with_pairs(progress)
        if first_stage is not None and corpus.pairs is not None:
            started = time.perf_counter()
            query_groups = corpus.pairs.live(query_groups, first_stage)
            costs["cross-encoder, live"] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
        return _compared(data, query_groups, test, metric, costs, settings.training.seed, progress)


def columns_of(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Map each signal group to its feature columns, listwise columns included; groups without columns are left out.

    Where all optional groups (`JOINT_GROUPS`) are present, one more entry joins their columns.
    """
    by_signal: dict[str, list[int]] = {signal: [] for signal in (*SIGNALS, BEHAVIOUR)}
    for column, name in enumerate(names):
        signal = next((group for group, begins in SIGNALS.items() if name.startswith(begins)), BEHAVIOUR)
        by_signal[signal].append(column)
    by_signal = {signal: columns for signal, columns in by_signal.items() if columns}
    if all(signal in by_signal for signal in TOGETHER):
        by_signal[" and ".join(TOGETHER)] = [column for signal in TOGETHER for column in by_signal[signal]]
    return by_signal


def _compared(
    prepared: Prepared, made: Groups, test: Examples, metric: str, costs: Mapping[str, float], seed: int,
    progress: Progress,
) -> Ablation:  # fmt: skip
    names = prepared.builder.names
    signals = columns_of(names)
    full = _measured(prepared.fit(progress).ranker, made, test, metric)
    rows = []
    for number, (signal, columns) in enumerate(signals.items(), 1):
        progress(f"without a signal: {signal}", number, len(signals))
        blind = {"feature_contri": [0.0 if column in columns else 1.0 for column in range(len(names))]}
        ranker_settings = replace(prepared.ranker, parameters=dict(prepared.ranker.parameters) | blind)
        without = _measured(replace(prepared, ranker=ranker_settings).fit().ranker, made, test, metric)
        rows.append(Ablated(signal, len(columns), float(np.nanmean(without)), difference(full, without, seed=seed)))
    return Ablation(metric, float(np.nanmean(full)), len(test), tuple(rows), costs)


def _measured(ranker: LambdaRanker, made: Groups, test: Examples, metric: str) -> Values:
    scores = ranker.score(made.features())
    ranking = order(scores, made.offsets)
    return evaluate((metric,), made.labels[ranking], made.offsets, relevant=test.relevant, scores=scores[ranking])[
        metric
    ]


def _costs(log: Log, builder: FeatureBuilder, test: Examples) -> dict[str, float]:
    """Measure milliseconds per request of each feature family with columns: all test requests at once, second run."""
    batch = read_states(log, builder.knowledge.catalogue, builder.spec, test)
    costs: dict[str, float] = {}
    for _ in range(2):  # the first run may compile functions
        columns: dict[str, np.ndarray] = {}
        for name in builder.settings.families:
            started = time.perf_counter()
            family_columns = FAMILIES[name](builder, batch, columns)
            costs[name] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
            columns |= family_columns
            if not family_columns:
                del costs[name]
    return costs
