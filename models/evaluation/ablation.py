"""Ablation measures what each signal group adds to the ranker and what it costs.

The ranker is trained again without each group and measured on the same test groups.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.evaluation import TRAIN_SHARE, VALIDATION_SHARE, before_targets
from feedrank.models.evaluation.metrics import Values, order
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import (
    LabeledGroups,
    build_query_groups,
    from_rankings,
    from_recall,
    point_in_time_batch,
)
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.training import (
    Progress,
    TrainingData,
    exact_retriever,
    prepare_from_rankings,
    prepare_from_recall,
)
from feedrank.models.training.training_settings import ModelSettings

SIGNAL_PREFIXES: dict[str, tuple[str, ...]] = {
    "bm25": ("bm25",),
    "embedding": ("text_", "content_", "cca_", "query_cosine"),
    "late interaction": ("maxsim_",),
    "cross-encoder": ("ce_",),
}
"""Signal group -> prefixes of its feature names; all other features count as behaviour."""
BEHAVIOUR = "behaviour"
JOINT_GROUPS = ("late interaction", "cross-encoder")
"""The optional signal groups; they are also ablated together."""


@dataclass(frozen=True, slots=True)
class AblationRow:
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
    rows: tuple[AblationRow, ...]
    costs: Mapping[str, float]
    """Feature family, or `cross-encoder, first-stage top k` -> milliseconds per request, measured in bulk."""


def ablate(
    item_inputs: ItemInputs,
    log: EventTable,
    protocol: str,
    settings: ModelSettings,
    metric: str,
    progress: Progress = lambda *_: None,
) -> Ablation:
    """Train the ranker with all signals and without each group, on the training data of the evaluation protocol.

    protocol: rankings or last-item. Early stopping on the validation slice chooses the number of rounds each time.
    """
    with settings.training.matrix_store() as store:
        if protocol == "rankings":
            total = len(log.rankings)
            cut, stop = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
            data = prepare_from_rankings(item_inputs, log, cut, stop, settings, store, progress)
            test = from_rankings(log, stop, total, settings.labels)
            test = test.select(test.has_relevant)
        else:
            histories = UserHistories.from_log(log, with_unknown_items=True).in_history
            targets = histories.last_targets()
            usable = before_targets(log, histories, targets)
            data = prepare_from_recall(item_inputs, log, usable, settings, store, progress)
            exact = exact_retriever(data.builder.item_model)
            depth, k = settings.state.history_length, settings.training.candidates
            test = from_recall(log, histories, targets, exact, k, depth)
        test = test.in_id_order(item_inputs.catalogue.ids)
        query_groups = build_query_groups(log, data.builder, test)
        costs = _family_costs_ms(log, data.builder, test)
        first_stage, data = data.with_cross_encoder_scores(progress)
        if first_stage is not None and item_inputs.reranker is not None:
            started = time.perf_counter()
            query_groups = item_inputs.reranker.score_top_k(query_groups, first_stage)
            costs["cross-encoder, first-stage top k"] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
        return _compare(data, query_groups, test, metric, costs, settings, progress)


def signal_columns(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Map each signal group to its feature columns, listwise columns included; groups without columns are left out.

    Where all optional groups (`JOINT_GROUPS`) are present, one more entry joins their columns.
    """
    by_signal: dict[str, list[int]] = {signal: [] for signal in (*SIGNAL_PREFIXES, BEHAVIOUR)}
    for column, name in enumerate(names):
        signal = next((group for group, begins in SIGNAL_PREFIXES.items() if name.startswith(begins)), BEHAVIOUR)
        by_signal[signal].append(column)
    by_signal = {signal: columns for signal, columns in by_signal.items() if columns}
    if all(signal in by_signal for signal in JOINT_GROUPS):
        by_signal[" and ".join(JOINT_GROUPS)] = [column for signal in JOINT_GROUPS for column in by_signal[signal]]
    return by_signal


def _compare(
    data: TrainingData,
    query_groups: QueryGroups,
    test: LabeledGroups,
    metric: str,
    costs: Mapping[str, float],
    settings: ModelSettings,
    progress: Progress,
) -> Ablation:
    names = data.builder.names
    signals = signal_columns(names)
    labels, seed = settings.labels, settings.training.seed
    full = _evaluate_ranker(data.fit_ranker(progress), query_groups, test, metric, labels)
    if np.isnan(full).all():
        raise ValueError(
            f"{metric} is undefined in all {len(full):,} test groups, which need clicked and other items; "
            "import a longer log"
        )
    rows = []
    for number, (signal, columns) in enumerate(signals.items(), 1):
        progress(f"without a signal: {signal}", number, len(signals))
        blind = {"feature_contri": [0.0 if column in columns else 1.0 for column in range(len(names))]}
        ranker_settings = replace(data.ranker, parameters=dict(data.ranker.parameters) | blind)
        ranker = replace(data, ranker=ranker_settings).fit_ranker()
        without = _evaluate_ranker(ranker, query_groups, test, metric, labels)
        rows.append(AblationRow(signal, len(columns), float(np.nanmean(without)), difference(full, without, seed=seed)))
    return Ablation(metric, float(np.nanmean(full)), len(test), tuple(rows), costs)


def _evaluate_ranker(
    ranker: LambdaRanker, query_groups: QueryGroups, test: LabeledGroups, metric: str, labels: LabelSettings
) -> Values:
    scores = ranker.score(query_groups.features())
    ranking = order(scores, query_groups.offsets)
    found = test.evaluate((metric,), query_groups.labels[ranking], query_groups.offsets, labels, scores[ranking])
    return found[metric]


def _family_costs_ms(log: EventTable, builder: FeatureBuilder, test: LabeledGroups) -> dict[str, float]:
    """Measure milliseconds per request of each feature family with columns: all test requests at once, second run."""
    batch = point_in_time_batch(log, builder.item_model.catalogue, builder.spec, test)
    costs: dict[str, float] = {}
    for _ in range(2):  # the first run may compile functions
        started = time.perf_counter()
        for name, columns in builder.family_columns(batch):
            if columns:
                costs[name] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
            started = time.perf_counter()
    return costs
