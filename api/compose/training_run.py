"""Trains a ranker on the journal and writes its bundle: what `feedrank train` and `Home.train` do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from feedrank.api.bundle_names import timestamped_name
from feedrank.api.compose.training_inputs import (
    check_bundle_name,
    check_shuffled_labels,
    load_training_inputs,
    save_recall_bundle,
    save_trained_bundle,
    train,
    with_tuned_parameters,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress, embedding_progress
from feedrank.api.training_lock import training_lock
from feedrank.models.training.ranker_warnings import weaknesses
from feedrank.models.training.shuffled_check import ShuffledCheck
from feedrank.models.training.training import TrainedRanker


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRun:
    """A finished training."""

    bundle: str
    """Name of the bundle."""
    trained: TrainedRanker
    seconds: float
    notes: tuple[str, ...] = ()
    """What was done with the log and its labels, and what was left out, one sentence each."""
    shuffled: ShuffledCheck | None = None
    """Whether shuffled labels score as chance; None: the log is too short for the check."""
    promoted: bool = True
    """Whether the bundle serves now; False: its ranker should not replace recall order, or the caller only keeps it."""
    weaknesses: tuple[str, ...] = ()
    """Why its ranker should not replace recall order, one sentence each."""
    recall_bundle: str | None = None
    """Name of the bundle in recall order that serves now, as nothing else did; None: none was made."""


def train_bundle(
    home: HomePaths, config: Config, name: str | None, tuned: bool, progress: ShowProgress, promote: bool | None = None
) -> TrainingRun:
    """Train a ranker on the whole journal, write it as a bundle and make that the current one.

    If the ranker learnt nothing, or is no better than recall order, the bundle is not made current. If there is no
    current bundle then, one in recall order is made.

    name: of the bundle; None: a timestamp. tuned: use the parameters that `feedrank tune` found. promote: make the
    bundle current in any case, or in no case; None: as above. Raises BundleError for an invalid or taken name before
    the training, ValueError if the journal has no items or interactions, or if shuffled labels can be predicted, and
    TrainingBusyError if another training runs.
    """
    with training_lock(home):
        return _train_bundle(home, config, name or timestamped_name("lambdarank"), tuned, progress, promote)


def _train_bundle(
    home: HomePaths, config: Config, name: str, tuned: bool, progress: ShowProgress, promote: bool | None
) -> TrainingRun:
    started = time.perf_counter()
    check_bundle_name(home, name)
    config = with_tuned_parameters(home, config) if tuned else config
    inputs = load_training_inputs(home, config, embedding_progress(progress))
    progress("shuffled labels", 0, 0)
    shuffled = check_shuffled_labels(inputs, config)
    trained = train(inputs, config, progress)
    progress("writing the bundle", 0, 0)
    seconds = round(time.perf_counter() - started, 1)
    found = weaknesses(trained)
    promoted = not found if promote is None else promote
    save_trained_bundle(home, config, name, inputs, trained, {}, seconds, promoted)
    recall_bundle = None if promoted or promote is False else save_recall_bundle(home, config, inputs)
    notes = (*inputs.notes, *trained.notes)
    return TrainingRun(name, trained, seconds, notes, shuffled, promoted, found, recall_bundle)
