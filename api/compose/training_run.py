"""Trains a ranker on the journal and writes its bundle: what `feedrank train` and `Home.train` do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from feedrank.api.bundle_names import timestamped_name
from feedrank.api.compose.training_inputs import (
    check_bundle_name,
    check_shuffled_labels,
    load_training_inputs,
    save_trained_bundle,
    train,
    with_tuned_parameters,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress, embedding_progress
from feedrank.models.training.shuffled_check import ShuffledCheck
from feedrank.models.training.training import TrainedRanker


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRun:
    """A finished training whose bundle serves now."""

    bundle: str
    """Name of the bundle."""
    trained: TrainedRanker
    seconds: float
    warnings: tuple[str, ...] = ()
    """What was done with the log, and what is wrong with the ranker, one sentence each."""
    shuffled: ShuffledCheck | None = None
    """Whether shuffled labels score as chance; None: the log is too short to tell."""


def train_bundle(home: HomePaths, config: Config, name: str | None, tuned: bool, progress: ShowProgress) -> TrainingRun:
    """Train a ranker on the whole journal, write it as a bundle and make that the current one.

    name: of the bundle; None: a timestamp. tuned: use the parameters that `feedrank tune` found. Raises BundleError
    for an invalid or taken name before the training, and ValueError if the journal has no items or interactions, or if
    shuffled labels can be predicted.
    """
    started = time.perf_counter()
    name = name or timestamped_name("lambdarank")
    check_bundle_name(home, name)
    config = with_tuned_parameters(home, config) if tuned else config
    inputs = load_training_inputs(home, config, embedding_progress(progress))
    progress("shuffled labels", 0, 0)
    shuffled = check_shuffled_labels(inputs, config)
    trained = train(inputs, config, progress)
    progress("writing the bundle", 0, 0)
    seconds = round(time.perf_counter() - started, 1)
    save_trained_bundle(home, config, name, inputs, trained, {}, seconds)
    return TrainingRun(name, trained, seconds, (*inputs.notes, *trained.warnings), shuffled)
