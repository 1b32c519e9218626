"""Prunes declared features on the journal: what `feedrank features prune` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from feedrank.api.compose.training_inputs import TrainingInputs, load_training_inputs, prepare_training_data
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress, embedding_progress
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation import pruning
from feedrank.models.evaluation.pruning import PruneOptions, Pruning
from feedrank.models.training.dataset import from_rankings, point_in_time_batch

TIMED_RANKINGS = 300
"""The latest rankings, for which the features are timed."""


@dataclass(frozen=True, eq=False, slots=True)
class PruneRun:
    """A finished pruning."""

    pruning: Pruning
    costs_ms: Mapping[str, float]
    """Declared feature -> milliseconds per request, in bulk; empty without rankings."""
    notes: tuple[str, ...]
    seconds: float


def prune_features(home: HomePaths, config: Config, options: PruneOptions, progress: ShowProgress) -> PruneRun:
    """Prune the declared features of a config on the validation groups of its journal.

    Raises ValueError if the config declares none, or if the journal is too small to train on.
    """
    if not config.features.declared:
        raise ValueError("the config declares no features; start with `feedrank features suggest`")
    started = time.perf_counter()
    inputs = load_training_inputs(home, config, embedding_progress(progress))
    with config.training.matrix_store() as store:
        _, data = prepare_training_data(inputs, config, store, progress).with_cross_encoder_scores(progress)
        costs = _costs_ms(inputs, data.builder)
        result = pruning.prune(data, options, progress)
    return PruneRun(result, costs, (*inputs.notes, *data.notes), time.perf_counter() - started)


def _costs_ms(inputs: TrainingInputs, builder: FeatureBuilder) -> dict[str, float]:
    """Measure milliseconds per request of each declared feature, over the latest rankings at once; the second run."""
    total = len(inputs.log.rankings)
    if not total:
        return {}
    groups = from_rankings(inputs.log, max(0, total - TIMED_RANKINGS), total)
    batch = point_in_time_batch(inputs.log, builder.item_model.catalogue, builder.spec, groups)
    costs: dict[str, float] = {}
    for _ in range(2):  # the first run may compile functions
        started = time.perf_counter()
        for name, _columns in builder.declared_columns(batch):
            costs[name] = 1000 * (time.perf_counter() - started) / len(groups)
            started = time.perf_counter()
    return costs
