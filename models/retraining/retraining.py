"""Retraining trains a candidate on a new data window and compares it with the incumbent on the newest groups.

The window is split by time into training, validation and test. The incumbent ranks the same test groups with its own
item model, features and recall. If its training window overlaps the test slice, the comparison favours it, and the
result carries a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Scores, Times
from feedrank.features.builder import FeatureBuilder
from feedrank.features.replay import PointInTimeQueries
from feedrank.models.evaluation.bootstrap import interval
from feedrank.models.evaluation.metrics import order
from feedrank.models.evaluation.report import Row
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining.drift import FeatureHistogram
from feedrank.models.retraining.gate import GateDecision, GateSettings, decide, refuse_leaks
from feedrank.models.training.dataset import (
    LabeledGroups,
    build_query_groups,
    from_rankings,
    from_recall,
    point_in_time_batch,
)
from feedrank.models.training.query_groups import score_in_chunks
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.reranker_training import RerankerTraining
from feedrank.models.training.shuffled_check import ShuffledCheck, check_shuffled
from feedrank.models.training.training import (
    ItemInputs,
    Progress,
    TrainedRanker,
    exact_retriever,
    has_enough_rankings,
    train_from_rankings,
    train_from_recall,
)
from feedrank.models.training.training_settings import ModelSettings

METRICS = ("ndcg@10", "mrr", "map", "hr@10")
NEW_USER_BELOW, HEAVY_USER_FROM = 5, 50
"""A user with fewer interactions than the first is new; one with at least the second is heavy."""
MIN_TEST_GROUPS = 200
"""Minimum number of groups after the incumbent's last training event to test on those only."""


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """[retrain] How the data window is split, and what the gate requires."""

    validation_share: float = 0.1
    """Share of the window's rankings, just before the test slice, that early stopping uses; 0 to 1."""
    test_share: float = 0.1
    """Share of the window, its newest part, on which the candidate is compared with the current bundle; 0 to 1."""
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        if min(self.validation_share, self.test_share) <= 0 or self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must be above 0, and their sum below 1")


@dataclass(frozen=True, eq=False, slots=True)
class Incumbent:
    """The bundle that serves now."""

    name: str
    builder: FeatureBuilder
    ranker: LambdaRanker | None
    histogram: FeatureHistogram | None
    trained_until: float
    """Unix seconds of the last training event; NaN: unknown."""
    first_stage: LambdaRanker | None = None
    """First-stage ranker; None without a cross-encoder."""
    reranker: RerankerTraining | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RetrainResult:
    """A candidate, its metrics and the decision of the gate."""

    trained: TrainedRanker
    decision: GateDecision
    rows: tuple[Row, ...]
    drift: Mapping[str, float]
    """Feature -> PSI against the incumbent's training rows; empty if unknown."""
    test_start: float
    """Start of the test slice, unix seconds."""
    warnings: tuple[str, ...]
    """What is wrong with the ranker or the comparison, one sentence each."""
    shuffled: ShuffledCheck | None
    """Whether shuffled labels score as chance; None: the log is too short to tell."""
    notes: tuple[str, ...] = ()
    """What was done with the labels of the log, and what was left out, one sentence each."""


def retrain(
    item_inputs: ItemInputs,
    log: EventTable,
    incumbent: Incumbent | None,
    settings: ModelSettings,
    retrain_settings: RetrainSettings,
    progress: Progress = lambda *_: None,
    warm_start: bool = False,
) -> RetrainResult:
    """Train a candidate and decide on its promotion; no file is written.

    The gate refuses a candidate whose features see their own labels: if shuffled labels can be predicted, or a single
    feature ranks too well. warm_start: keep the incumbent's trees and add to them; its features must be the same.
    Raises ValueError if there is too little data, or no incumbent ranker for a warm start.
    """
    init_model = None
    if warm_start:
        if incumbent is None or incumbent.ranker is None:
            raise ValueError("found no incumbent ranker to start from; retrain without warm start")
        init_model = incumbent.ranker
    on_rankings = has_enough_rankings(log, settings)
    shuffled = check_shuffled(item_inputs, log, settings)
    train_and_rank = _on_rankings if on_rankings else _on_recall
    trained, test_groups, test_start, ranked = train_and_rank(
        item_inputs, log, incumbent, settings, retrain_settings, progress, init_model
    )
    batch = point_in_time_batch(log, item_inputs.catalogue, settings.state, test_groups)
    new, heavy = batch.interaction_count < NEW_USER_BELOW, batch.interaction_count >= HEAVY_USER_FROM
    segments = {"new": new, "regular": ~(new | heavy), "heavy": heavy}
    gate = retrain_settings.gate
    metrics = tuple(dict.fromkeys((gate.metric, *METRICS)))
    values = {
        name: test_groups.evaluate(metrics, role_labels, offsets, settings.labels)
        for name, (role_labels, offsets) in ranked.items()
    }
    seed = settings.training.seed
    rows = [
        Row.from_interval(segment, name, metric, interval(metric_values[metric][chosen], seed=seed))
        for segment, chosen in {"all": np.ones(len(test_groups), np.bool_), **segments}.items()
        for name, metric_values in values.items()
        for metric in metrics
    ]
    incumbent_values = values["incumbent"][gate.metric] if "incumbent" in values else None
    leaks = [suspect.sentence() for suspect in trained.suspects]
    leaks += [shuffled.sentence()] if shuffled is not None and shuffled.leaks else []
    decision = refuse_leaks(decide(values["candidate"][gate.metric], incumbent_values, segments, gate), leaks)
    drift = {}
    if incumbent is not None and incumbent.histogram is not None:
        drift = incumbent.histogram.psi(trained.drift_sample, trained.builder.names)
    warnings = (*_warnings(incumbent, test_start), *trained.warnings)
    return RetrainResult(trained, decision, tuple(rows), drift, test_start, warnings, shuffled, trained.notes)


def reindex_log(log: EventTable, catalogue: Catalogue, builder: FeatureBuilder) -> tuple[EventTable, NDArray[np.int32]]:
    """Map a log to another catalogue's item rows; return it and (n,) the new rows, `UNKNOWN_ROW` if missing there."""
    rows = builder.item_model.catalogue.ids.rows(list(catalogue.ids))
    rows = np.append(rows, np.int32(-1))  # UNKNOWN_ROW (-1) maps to itself
    interactions = replace(log.interactions, item=rows[log.interactions.item])
    rankings = replace(log.rankings, items=rows[log.rankings.items])
    return replace(log, interactions=interactions, rankings=rankings), rows[:-1]


RankedLabels = dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Bundle role -> labels in ranked order, best first, and the group offsets."""


def _on_rankings(
    item_inputs: ItemInputs,
    log: EventTable,
    incumbent: Incumbent | None,
    settings: ModelSettings,
    retrain_settings: RetrainSettings,
    progress: Progress,
    init_model: LambdaRanker | None,
) -> tuple[TrainedRanker, LabeledGroups, float, RankedLabels]:
    total = len(log.rankings)
    test_start = round(total * (1 - retrain_settings.test_share))
    validation_start = round(total * (1 - retrain_settings.test_share - retrain_settings.validation_share))
    first_unseen = 0 if incumbent is None else _first_unseen(log.rankings.at, incumbent.trained_until)
    if test_start < first_unseen <= total - MIN_TEST_GROUPS:  # a later test that the incumbent has not seen
        validation_start, test_start = validation_start + first_unseen - test_start, first_unseen
    if not 0 < validation_start < test_start < total:
        raise ValueError(f"found {total} rankings, too few for a time split; use a longer window")
    trained = train_from_rankings(item_inputs, log, validation_start, test_start, settings, progress, init_model)
    test = from_rankings(log, test_start, total, settings.labels).in_id_order(item_inputs.catalogue.ids)
    test = test.select(test.has_relevant)
    if not len(test):
        raise ValueError(
            f"found no relevant item in the {total - test_start:,} newest rankings, on which a candidate is tested; "
            "use a longer window, or retrain when newer rankings have clicks"
        )
    queries = test.queries

    def sorted_labels(scores: Scores) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return test.labels[order(scores, queries.offsets)], queries.offsets

    ranked = {"candidate": sorted_labels(trained.score(build_query_groups(log, trained.builder, test)))}
    if incumbent is not None:
        incumbent_log, rows = reindex_log(log, item_inputs.catalogue, incumbent.builder)
        incumbent_queries = PointInTimeQueries(
            queries.before_event, queries.at, queries.user, queries.offsets, rows[queries.rows]
        )
        incumbent_groups = LabeledGroups(incumbent_queries, test.labels, test.ideal, test.ideal_index)
        ranked["incumbent"] = sorted_labels(_incumbent_scores(incumbent, incumbent_log, incumbent_groups))
    return trained, test, float(log.rankings.at[test_start]), ranked


def _on_recall(
    item_inputs: ItemInputs,
    log: EventTable,
    incumbent: Incumbent | None,
    settings: ModelSettings,
    retrain_settings: RetrainSettings,
    progress: Progress,
    init_model: LambdaRanker | None,
) -> tuple[TrainedRanker, LabeledGroups, float, RankedLabels]:
    """Validate on a fold of users, as in training; test on each user's first interaction after the cut."""
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    cut = log.time_quantile(1 - retrain_settings.test_share)
    if (
        incumbent is not None
        and cut <= incumbent.trained_until
        and len(histories.first_targets_after(log.first_interaction_from(incumbent.trained_until + 1)))
        >= MIN_TEST_GROUPS
    ):
        cut = incumbent.trained_until + 1  # so that the incumbent has not seen the test slice
    end = log.first_interaction_from(cut)
    trainable = np.arange(len(log.interactions)) < end
    trained = train_from_recall(item_inputs, log, trainable, settings, progress, init_model)
    targets = histories.first_targets_after(end)
    if not len(targets):
        raise ValueError("found no user with interactions before and after the cut; use a longer window")
    depth, k = settings.state.history_length, settings.training.candidates
    test = from_recall(log, histories, targets, exact_retriever(trained.item_model), k, depth)
    test = test.in_id_order(item_inputs.catalogue.ids)
    candidate = build_query_groups(log, trained.builder, test)
    ranked = {"candidate": (test.labels[order(trained.score(candidate), candidate.offsets)], candidate.offsets)}
    if incumbent is not None:
        their_log, rows = reindex_log(log, item_inputs.catalogue, incumbent.builder)
        their_histories = histories.with_items(np.append(rows, np.int32(-1)))
        their_model = incumbent.builder.item_model
        their_groups = from_recall(their_log, their_histories, targets, exact_retriever(their_model), k, depth)
        their_groups = their_groups.in_id_order(their_model.catalogue.ids)
        scores = _incumbent_scores(incumbent, their_log, their_groups)
        offsets = their_groups.queries.offsets
        ranked["incumbent"] = (their_groups.labels[order(scores, offsets)], offsets)
    return trained, test, cut, ranked


def _incumbent_scores(incumbent: Incumbent, log: EventTable, labeled_groups: LabeledGroups) -> Scores:
    """Return the incumbent's ranker or recall scores; items that it does not know get -inf, it can't recommend them."""
    if incumbent.ranker is None:
        batch = point_in_time_batch(log, incumbent.builder.item_model.catalogue, incumbent.builder.spec, labeled_groups)
        scores = np.nan_to_num(incumbent.builder.columns(batch)["recall_score"], nan=-np.inf)
    else:
        query_groups = build_query_groups(log, incumbent.builder, labeled_groups)
        if incumbent.reranker is not None and incumbent.first_stage is not None:
            query_groups = incumbent.reranker.score_top_k(query_groups, incumbent.first_stage)
        scores = score_in_chunks(query_groups, incumbent.ranker.score)
    return np.where(labeled_groups.queries.rows < 0, np.float32(-np.inf), scores).astype(np.float32)


def _first_unseen(ranking_at: Times, trained_until: float) -> int:
    """Return the index after the last ranking that is not later than `trained_until`; 0 if it is NaN."""
    seen = np.flatnonzero(ranking_at <= trained_until)
    return int(seen[-1]) + 1 if len(seen) else 0


def _warnings(incumbent: Incumbent | None, test_start: float) -> list[str]:
    if incumbent is None:
        return []
    if np.isnan(incumbent.trained_until):
        return ["the end of the incumbent's training data is unknown; it may have been trained on the test slice"]
    if incumbent.trained_until >= test_start:
        return ["the incumbent was trained on part of the test slice; its metrics are biased upwards"]
    return []
