"""Ablation measures what each group of features adds to the ranker and what it costs.

The ranker is trained again without each group and measured on the same test groups. Groups are the signals, the
families of your own, the declared features that read one field, and each declared feature alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.declared_batch import FAMILY as DECLARED
from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.evaluation import TRAIN_SHARE, VALIDATION_SHARE, before_targets
from feedrank.models.evaluation.feature_groups import FeatureGroup, feature_groups
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

SEED_STEP = 1_000
"""Distance of the seed of the second full ranker."""
MAX_TRAININGS = 40
"""Number of rankers that an ablation trains by default."""


@dataclass(frozen=True, slots=True)
class AblationRow:
    """The result of training the ranker without one group of features."""

    signal: str
    """Name of the group."""
    kind: str
    """signal, family, field or feature, as in `FeatureGroup`."""
    features: int
    value: float
    """Mean metric without the group."""
    gain: Difference
    """Full rankers, the mean of two seeds, minus the ablated ranker, paired by test group."""


@dataclass(frozen=True, eq=False, slots=True)
class Ablation:
    """The ablation results of the groups of features."""

    metric: str
    value: float
    """Mean metric of the full ranker, over two seeds."""
    groups: int
    rows: tuple[AblationRow, ...]
    costs: Mapping[str, float]
    """Feature family, `cross-encoder, first-stage top k`, or declared feature -> milliseconds per request, in bulk."""
    noise: Difference
    """The full ranker less one of another seed: what a training alone changes, which no interval of a row covers."""
    seconds: float = 0.0
    """What the trainings took."""
    not_measured: tuple[str, ...] = ()
    """Groups beyond the limit of trainings: the declared features of the least gain in the full ranker."""


def ablate(
    item_inputs: ItemInputs,
    log: EventTable,
    protocol: str,
    settings: ModelSettings,
    metric: str,
    progress: Progress = lambda *_: None,
    max_trainings: int = MAX_TRAININGS,
) -> Ablation:
    """Train the ranker with all features and without each group, on the training data of the evaluation protocol.

    protocol: rankings or last-item. Early stopping on the validation slice chooses the number of rounds each time.
    max_trainings: two full rankers included, whose mean stands for all features; signals and families come first, then
    fields, then the declared features with the most gain.
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
        return _compare(data, query_groups, test, metric, costs, settings, progress, max_trainings)


def _compare(
    data: TrainingData,
    query_groups: QueryGroups,
    test: LabeledGroups,
    metric: str,
    costs: Mapping[str, float],
    settings: ModelSettings,
    progress: Progress,
    max_trainings: int,
) -> Ablation:
    labels, seed = settings.labels, settings.training.seed
    started = time.perf_counter()
    ranker = data.fit_ranker(progress)
    per_training = time.perf_counter() - started
    full = _evaluate_ranker(ranker, query_groups, test, metric, labels)
    if np.isnan(full).all():
        raise ValueError(
            f"{metric} is undefined in all {len(full):,} test groups, which need clicked and other items; "
            "import a longer log"
        )
    reseeded = replace(data, ranker=replace(data.ranker, seed=data.ranker.seed + SEED_STEP)).fit_ranker()
    other = _evaluate_ranker(reseeded, query_groups, test, metric, labels)
    noise, full = difference(full, other, seed=seed), (full + other) / 2
    groups = _by_priority(feature_groups(data.builder), ranker.importance(), data.builder.names)
    measured, rest = groups[: max_trainings - 2], groups[max_trainings - 2 :]
    rows = []
    for number, group in enumerate(measured, 1):
        left_s = per_training * (len(measured) - number + 1)
        progress(f"without a group: {group.name}, {_duration(left_s)} left", number - 1, len(measured))
        without = _evaluate_ranker(data.without(group.columns).fit_ranker(), query_groups, test, metric, labels)
        gain = difference(full, without, seed=seed)
        rows.append(AblationRow(group.name, group.kind, len(group.columns), float(np.nanmean(without)), gain))
    seconds = time.perf_counter() - started
    not_measured = tuple(group.name for group in rest)
    return Ablation(metric, float(np.nanmean(full)), len(test), tuple(rows), costs, noise, seconds, not_measured)


def _by_priority(
    groups: Sequence[FeatureGroup], importance: Mapping[str, float], names: Sequence[str]
) -> list[FeatureGroup]:  # fmt: skip
    """Sort single declared features by their gain, the greatest first, behind all other groups in their order."""
    others = [group for group in groups if group.kind != "feature"]
    single = [group for group in groups if group.kind == "feature"]
    return others + sorted(single, key=lambda group: -sum(importance[names[column]] for column in group.columns))


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {max(seconds, 1):.0f} s"


def _evaluate_ranker(
    ranker: LambdaRanker, query_groups: QueryGroups, test: LabeledGroups, metric: str, labels: LabelSettings
) -> Values:
    scores = ranker.score(query_groups.features())
    ranking = order(scores, query_groups.offsets)
    found = test.evaluate((metric,), query_groups.labels[ranking], query_groups.offsets, labels, scores[ranking])
    return found[metric]


def _family_costs_ms(log: EventTable, builder: FeatureBuilder, test: LabeledGroups) -> dict[str, float]:
    """Measure milliseconds per request of each family with columns, and of each declared feature: all at once, twice.

    Only the second run counts.
    """
    batch = point_in_time_batch(log, builder.item_model.catalogue, builder.spec, test)
    costs: dict[str, float] = {}
    for _ in range(2):  # the first run may compile functions
        started = time.perf_counter()
        for name, columns in builder.family_columns(batch):
            if columns:
                costs[name] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
            started = time.perf_counter()
        for name, _ in builder.declared_columns(batch):
            costs[f"{DECLARED} {name}"] = 1000 * (time.perf_counter() - started) / max(len(test), 1)
            started = time.perf_counter()
    return costs
