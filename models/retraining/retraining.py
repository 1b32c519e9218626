"""Retraining trains a candidate on a new data window and compares it with the incumbent on the newest groups.

The window is split by time into training, validation and test. The test slice holds only what came after the last event
that the incumbent has learnt, so no comparison favours it. The incumbent ranks the same test groups with its own item
model, features and recall. If it can't be compared, the candidate must beat recall order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Batch, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.features.feature_settings import FeatureSettings
from feedrank.models.evaluation.bootstrap import difference, interval
from feedrank.models.evaluation.metrics import Values
from feedrank.models.evaluation.report import Row
from feedrank.models.retraining.gate import (
    GateDecision,
    GateSettings,
    decide,
    decide_against_recall,
    refuse_leaks,
    too_little_new_data,
)
from feedrank.models.retraining.held_out_slice import HeldOutSlice
from feedrank.models.retraining.incumbent import Incumbent
from feedrank.models.retraining.time_split import TimeSplit, ranked_labels
from feedrank.models.training.dataset import build_query_groups, point_in_time_batch
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.shuffled_check import ShuffledCheck, check_shuffled
from feedrank.models.training.training import Progress, TrainedRanker
from feedrank.models.training.training_settings import ModelSettings

METRICS = ("ndcg@10", "mrr", "map", "hr@10")
NEW_USER_BELOW, HEAVY_USER_FROM = 5, 50
"""A user with fewer interactions than the first is new; one with at least the second is heavy."""
MIN_RECALL_GROUPS = 30
"""Minimum number of test groups for a comparison with recall order; a bootstrap of fewer is too narrow."""


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """[retrain] How the data window is split, and what the gate requires."""

    validation_share: float = 0.1
    """Share of the window's rankings, just before the test slice, that early stopping uses; 0 to 1."""
    test_share: float = 0.1
    """Share of the window, its newest part, on which the candidate is compared with the current bundle; 0 to 1. It
    grows up to half of the window if it has too few groups. What the current bundle has learnt is left out."""
    min_test_groups: int = 100
    """Minimum number of groups that are newer than what the current bundle has learnt; with fewer nothing is trained,
    and `feedrank retrain` ends with the exit code 4. Unit: groups."""
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        if min(self.validation_share, self.test_share) <= 0 or self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must be above 0, and their sum below 1")
        if self.min_test_groups < 1:
            raise ValueError(f"min_test_groups is {self.min_test_groups}; expected at least 1")


@dataclass(frozen=True, eq=False, slots=True)
class RetrainResult:
    """A candidate, its metrics and the decision of the gate."""

    trained: TrainedRanker | None
    """None: there is too little new data, and nothing was trained."""
    decision: GateDecision
    test: HeldOutSlice
    rows: tuple[Row, ...] = ()
    drift: Mapping[str, float] = field(default_factory=dict)
    """Feature -> PSI against the incumbent's training rows; empty if unknown."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the candidate, and which options could not be followed, one sentence each."""
    shuffled: ShuffledCheck | None = None
    """Whether shuffled labels score as chance; None: the log is too short for the check."""
    notes: tuple[str, ...] = ()
    """What was done with the log and its labels, and what was left out, one sentence each."""


@dataclass(frozen=True, slots=True)
class RetrainContext:
    """How a candidate is trained, and what is known besides the log and the incumbent."""

    warm_start: bool = False
    """Keep the incumbent's trees and add to them; if that is impossible, train from the start and say so."""
    incumbent_problem: str = ""
    """Why there is a current bundle but no incumbent, in a sentence."""
    models_learnt_until: float = float("nan")
    """Unix seconds of the last event that the text models were fine-tuned on; NaN: none of this journal."""


def retrain(
    item_inputs: ItemInputs,
    log: EventTable,
    incumbent: Incumbent | None,
    settings: ModelSettings,
    retrain_settings: RetrainSettings,
    progress: Progress = lambda *_: None,
    context: RetrainContext | None = None,
) -> RetrainResult:
    """Train a candidate and decide on its promotion; no file is written.

    The gate refuses a candidate whose features see their own labels: if shuffled labels can be predicted, or a single
    feature ranks too well. Raises ValueError if there is too little data to train on.
    """
    context = context or RetrainContext()
    why = _why_not_comparable(incumbent, context.incumbent_problem)
    comparable = None if why else incumbent
    minimum = MIN_RECALL_GROUPS if comparable is None else retrain_settings.min_test_groups
    shares = retrain_settings.validation_share, retrain_settings.test_share
    own = float("nan") if comparable is None else comparable.trained_until
    learnt = float(np.fmax(own, context.models_learnt_until))  # NaN only if both are
    split = TimeSplit.choose(item_inputs, log, settings, learnt, shares, minimum)
    if len(split.test) < minimum:
        is_own = comparable is not None and learnt == own
        whose = f"the incumbent {comparable.name} has" if comparable and is_own else "the text models have"
        return RetrainResult(None, too_little_new_data(split.too_little(f"{whose} learnt", minimum)), split.test)
    shuffled = check_shuffled(item_inputs, log, settings)
    trained, caveats = split.train(progress, incumbent, context.warm_start)
    groups = split.groups_of(trained.item_model)
    batch = point_in_time_batch(log, item_inputs.catalogue, settings.state, groups)
    ranked = {"candidate": ranked_labels(groups, trained.score(build_query_groups(log, trained.builder, groups)))}
    if comparable is not None:
        try:
            ranked["incumbent"] = split.rank(comparable)
        except MemoryError:
            raise
        except Exception as problem:  # features of the user's own raise anything, and the nightly retraining goes on
            why = f"the incumbent {comparable.name} can't be compared ({type(problem).__name__}: {problem})"
    ranked["recall"] = ranked_labels(groups, _recall_scores(trained, settings, batch))
    segments = _segments(batch)
    metrics = tuple(dict.fromkeys((retrain_settings.gate.metric, *METRICS)))
    values = {name: groups.evaluate(metrics, *ranking, settings.labels) for name, ranking in ranked.items()}
    decision, more = _decide(values, segments, retrain_settings.gate, why)
    leaks = [suspect.sentence() for suspect in trained.suspects]
    leaks += [shuffled.sentence()] if shuffled is not None and shuffled.leaks else []
    drift = {}
    if incumbent is not None and incumbent.histogram is not None:
        drift = incumbent.histogram.psi(trained.drift_sample, trained.builder.names)
    rows = tuple(
        Row.from_interval(segment, name, metric, interval(metric_values[metric][chosen], seed=settings.training.seed))
        for segment, chosen in {"all": np.ones(len(groups), np.bool_), **segments}.items()
        for name, metric_values in values.items()
        for metric in metrics
    )
    warnings = (*caveats, *more, *trained.warnings)
    decision = refuse_leaks(decision, leaks)
    return RetrainResult(trained, decision, split.test, rows, drift, warnings, shuffled, trained.notes)


def _why_not_comparable(incumbent: Incumbent | None, problem: str) -> str:
    """Return why no incumbent can be compared with, in a sentence; empty if one can."""
    if incumbent is None:
        return problem or "there is no incumbent to compare with"
    if incumbent.ranker is None:
        return f"the incumbent {incumbent.name} has no ranker"
    if np.isnan(incumbent.trained_until):
        return f"it is unknown until when the incumbent {incumbent.name} has learnt"
    return ""


def _recall_scores(trained: TrainedRanker, settings: ModelSettings, batch: Batch) -> Scores:
    builder = FeatureBuilder(trained.item_model, settings.state, FeatureSettings(("recall",)))
    return np.nan_to_num(builder.columns(batch)["recall_score"], nan=-np.inf)


def _segments(batch: Batch) -> dict[str, NDArray[np.bool_]]:
    new, heavy = batch.interaction_count < NEW_USER_BELOW, batch.interaction_count >= HEAVY_USER_FROM
    return {"new": new, "regular": ~(new | heavy), "heavy": heavy}


def _decide(
    values: Mapping[str, Mapping[str, Values]], segments: Mapping[str, NDArray[np.bool_]], gate: GateSettings, why: str
) -> tuple[GateDecision, tuple[str, ...]]:
    """Return the decision, and a warning if a candidate that was compared with an incumbent does not beat recall."""
    candidate, recall = values["candidate"][gate.metric], values["recall"][gate.metric]
    if why:
        return decide_against_recall(candidate, recall, segments, gate, why), ()
    gain = difference(candidate, recall, seed=gate.seed)
    if gain.low > 0:
        warnings: tuple[str, ...] = ()
    else:
        found = f"{gate.metric} {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over {gain.groups:,} test groups"
        warnings = (f"the candidate is not clearly better than recall order: {found}",)
    return decide(candidate, values["incumbent"][gate.metric], segments, gate), warnings
