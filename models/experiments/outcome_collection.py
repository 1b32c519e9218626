"""Collects the outcomes of an experiment from the journal: what each unit was shown, and how it interacted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.experiments.analysis_plan import CustomMetric
from feedrank.engine.experiments.bucketing import INTERLEAVED
from feedrank.engine.experiments.interleaving import balanced_credit
from feedrank.engine.experiments.spec import HOLDOUT, ExperimentSpec
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.types import UNKNOWN_ROW
from feedrank.models.experiments.click_join import CLICK, match_impressions
from feedrank.models.experiments.outcomes import Outcomes

DAY_S = 86_400.0
PRE_PERIOD_DAYS = 28
"""CUPED's covariate is the behaviour in this many days before the start."""


@dataclass(frozen=True, eq=False, slots=True)
class Impressions:
    """Holds the R rankings of an experiment and their S impressions, flattened, in order of time."""

    unit: NDArray[np.int32]
    """(R,) index of the unit; -1 for a ranking from before the experiment."""
    variant: NDArray[np.int32]
    """(R,) code of the variant; -1 before the experiment."""
    at: NDArray[np.float64]
    """(R,) unix seconds."""
    offsets: NDArray[np.int64]
    """(R + 1,) bounds of each ranking's impressions."""
    clicked: NDArray[np.bool_]
    """(S,)"""
    team: NDArray[np.int32]
    """(S,) code of the arm that gets the credit for the item; -1: none."""
    credit: NDArray[np.float64]
    """(R, arms) click credit of interleaved rankings; (0, 0) for other experiments."""


@dataclass(frozen=True, eq=False, slots=True)
class CollectedOutcomes:
    """Holds everything that a readout is computed from."""

    outcomes: Outcomes
    """Outcomes by arm; an interleaving has all units in one arm."""
    holdout: Outcomes | None
    """Outcomes of two arms: held-out units, then all units in the experiment; None: there is no holdout."""
    impressions: Impressions
    units: Vocabulary
    first_seen: NDArray[np.float64]
    """(U,) unix seconds of the first ranking of each unit in `outcomes`."""
    reassigned_units: int
    """Number of units seen in more than one arm, as after a change of weights; each counts for its first arm."""
    last_ranking_at: float
    """Unix seconds of the latest ranking; NaN: there is none."""
    notes: tuple[str, ...] = ()
    """What was done with the log, one sentence each."""


def collect_outcomes(events: Iterable[Event], experiment: ExperimentSpec, started: float) -> CollectedOutcomes:
    """Collect the outcomes of an experiment from the journal's events, which come in order.

    started: unix seconds. Events older than `PRE_PERIOD_DAYS` before the start are not needed. Clicks are matched to
    rankings as in training: to the ranking they name, or to the last one that showed the user the item within 30
    minutes.
    """
    tap = _RankingCollector(experiment, started)
    log = sorted_events_to_table(tap.pass_through(events), tap.items)
    return tap.to_outcomes(log)


class _RankingCollector:
    """Records per ranking what the event table does not hold: variant, unit, interleaving teams."""

    def __init__(self, experiment: ExperimentSpec, started: float) -> None:
        self._experiment, self._started = experiment, started
        self._is_interleaved = experiment.kind == "interleave"
        self._known_variants = {INTERLEAVED} if self._is_interleaved else set(experiment.arms)
        self._known_variants |= {HOLDOUT} if experiment.holdout else set()
        self._n_unknown = 0
        self.items, self._units, self._variants = Vocabulary(), Vocabulary(), Vocabulary(experiment.arms)
        self._unit: list[int] = []
        self._variant: list[int] = []
        self._surface: dict[int, str] = {}
        self._teams: list[tuple[str, ...] | None] = []
        self._arm_ranks: list[tuple[tuple[int, ...], ...]] = []

    def pass_through(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the ranking and interaction events unchanged, and record each ranking."""
        for event in events:
            if isinstance(event, RankingEvent):
                self._record_ranking(event)
            if isinstance(event, RankingEvent | InteractionEvent):
                yield event

    def _record_ranking(self, event: RankingEvent) -> None:
        for item in event.items:
            self.items.add(item)
        record, unit = RankingRecord.from_event(event), UNKNOWN_ROW
        variant = record.variant_of(self._experiment.name) if event.timestamp / 1000 >= self._started else None
        if variant is not None and variant not in self._known_variants:
            self._n_unknown, variant = self._n_unknown + 1, None
        name = {"user": event.user, "session": event.session, "request": event.id}[self._experiment.unit]
        if name is not None and variant is not None:
            unit = self._units.add(name)
            self._surface.setdefault(unit, event.surface or "")
        self._unit.append(unit)
        self._variant.append(UNKNOWN_ROW if variant is None else self._variants.add(variant))
        is_mixed = self._is_interleaved and variant == INTERLEAVED
        self._teams.append(event.team if is_mixed else None)
        self._arm_ranks.append(record.ranks if is_mixed and self._experiment.interleaving == "balanced" else ())

    def to_outcomes(self, log: EventTable) -> CollectedOutcomes:
        rankings = log.rankings
        unit, variant = np.array(self._unit, np.int32), np.array(self._variant, np.int32)
        columns, clicked = _ranking_columns(log, self._experiment)
        arm_of, moved = _first_arms(unit, variant, len(self._units))
        within = unit >= 0
        within[within] = variant[within] == arm_of[unit[within]]
        day = np.floor((rankings.at - self._started) / DAY_S).astype(np.int32)
        keys, rows = np.unique(
            np.stack([day[within], unit[within]], axis=1) if within.any() else np.empty((0, 2), np.int32), axis=0,
            return_inverse=True,
        )  # fmt: skip
        summed = {name: _sum_by_index(rows.ravel(), column[within], len(keys)) for name, column in columns.items()}
        arms = [INTERLEAVED] if self._is_interleaved and INTERLEAVED in self._variants else [*self._experiment.arms]
        arm_codes = np.array([arms.index(name) if name in arms else UNKNOWN_ROW for name in self._variants], np.int32)
        segments = {"surface": np.array([self._surface.get(n, "") for n in range(len(self._units))], np.str_)}
        before = self._pre_period_totals(log, columns)
        if before:
            segments["user_type"] = np.where(before["rankings"] + before["clicks"] > 0, "returning", "new")
        # A segment with one value is the same as all units.
        segments = {name: values for name, values in segments.items() if len(np.unique(values)) > 1}
        arm = np.where(arm_of >= 0, arm_codes[arm_of], UNKNOWN_ROW).astype(np.int32) if len(arm_of) else arm_of
        unit_of, day_of = keys[:, 1].astype(np.int32), keys[:, 0].astype(np.int32)
        outcomes = _drop_unassigned(Outcomes(tuple(arms), arm, unit_of, day_of, summed, before, segments))
        holdout = None
        if self._experiment.holdout:
            code = self._variants.row(HOLDOUT)
            inside = np.where(arm_of == code, 0, 1).astype(np.int32)
            holdout = Outcomes((HOLDOUT, "exposed"), inside, unit_of, day_of, summed, before, segments)
        team = self._team_codes(rankings.offsets)
        credit = self._credit(rankings.offsets, clicked, team)
        impressions = Impressions(unit, variant, rankings.at, rankings.offsets, clicked, team, credit)
        first_seen = np.full(len(self._units), np.inf)
        np.minimum.at(first_seen, unit[unit >= 0], rankings.at[unit >= 0])
        first_seen = first_seen[arm >= 0]
        last = float(rankings.at[unit >= 0].max()) if (unit >= 0).any() else float("nan")
        notes = (*log.notes, *self._notes())
        return CollectedOutcomes(outcomes, holdout, impressions, self._units, first_seen, moved, last, notes)

    def _notes(self) -> tuple[str, ...]:
        if not self._n_unknown:
            return ()
        expected = ", ".join(sorted(self._known_variants))
        return (f"left out {self._n_unknown:,} rankings of unknown variants, expected one of {expected}",)

    def _pre_period_totals(
        self, log: EventTable, columns: dict[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        """(U,) sums of each column over the days before the start; empty where units are not users."""
        if self._experiment.unit != "user" or not len(self._units):
            return {}
        unit_of = np.full(len(log.users) + 1, UNKNOWN_ROW, np.int32)
        for index, name in enumerate(self._units):
            unit_of[log.users.row(name)] = index
        earlier = (log.rankings.at < self._started) & (log.rankings.at >= self._started - PRE_PERIOD_DAYS * DAY_S)
        unit = np.where(log.rankings.user >= 0, unit_of[log.rankings.user], UNKNOWN_ROW)
        chosen = earlier & (unit >= 0)
        return {name: _sum_by_index(unit[chosen], column[chosen], len(self._units)) for name, column in columns.items()}

    def _team_codes(self, offsets: NDArray[np.int64]) -> NDArray[np.int32]:
        team = np.full(int(offsets[-1]), UNKNOWN_ROW, np.int32)
        codes = {name: code for code, name in enumerate(self._experiment.arms)}
        for index, names in enumerate(self._teams):
            if names is not None and len(names) == offsets[index + 1] - offsets[index]:
                team[offsets[index] : offsets[index + 1]] = [codes.get(name, UNKNOWN_ROW) for name in names]
        return team

    def _credit(
        self, offsets: NDArray[np.int64], clicked: NDArray[np.bool_], team: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """(R, arms) clicks on the items that each arm contributed."""
        if not self._is_interleaved or INTERLEAVED not in self._variants:
            return np.empty((0, 0))
        arms = len(self._experiment.arms)
        ranking = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        is_credited = clicked & (team >= 0)
        credit = np.zeros((len(offsets) - 1, arms))
        np.add.at(credit, (ranking[is_credited], team[is_credited]), 1.0)
        for index, ranks in enumerate(self._arm_ranks):
            if len(ranks) == arms:
                clicks = clicked[offsets[index] : offsets[index + 1]].tolist()
                credit[index] = balanced_credit(ranks, clicks)
        return credit


def _drop_unassigned(outcomes: Outcomes) -> Outcomes:
    """Drop the units that are in none of the arms."""
    kept = outcomes.arm_of >= 0
    number = np.cumsum(kept) - 1
    rows = kept[outcomes.unit]
    return Outcomes(
        outcomes.arms, outcomes.arm_of[kept], number[outcomes.unit[rows]].astype(np.int32), outcomes.day[rows],
        {name: column[rows] for name, column in outcomes.columns.items()},
        {name: column[kept] for name, column in outcomes.pre_period.items()},
        {name: column[kept] for name, column in outcomes.segments.items()},
    )  # fmt: skip


def _first_arms(unit: NDArray[np.int32], variant: NDArray[np.int32], units: int) -> tuple[NDArray[np.int32], int]:
    """(U,) the variant that each unit was first seen in, and how many units were later seen in another one."""
    arm_of = np.full(units, UNKNOWN_ROW, np.int32)
    assigned = np.flatnonzero(unit >= 0)
    arm_of[unit[assigned][::-1]] = variant[assigned][::-1]
    changed = assigned[variant[assigned] != arm_of[unit[assigned]]]
    return arm_of, len(np.unique(unit[changed]))


def _ranking_columns(
    log: EventTable, experiment: ExperimentSpec
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """(R,) columns of counts per ranking, by name, and (S,) which impressions were clicked."""
    rankings, interactions = log.rankings, log.interactions
    count, sizes = len(rankings), np.diff(rankings.offsets)
    ranking = np.repeat(np.arange(count), sizes)
    impression, is_matched = match_impressions(log)
    click = is_matched & (interactions.type == log.types.row(CLICK))
    clicked = np.zeros(len(rankings.items), np.bool_)
    clicked[impression[click]] = True
    position = np.arange(len(rankings.items)) - np.repeat(rankings.offsets[:-1], sizes) + 1
    first_click = np.full(count, np.inf)
    np.minimum.at(first_click, ranking[clicked], position[clicked])
    dwell = np.where(np.isnan(interactions.dwell_s), 0.0, interactions.dwell_s)
    columns = {
        "rankings": np.ones(count),
        "impressions": sizes.astype(np.float64),
        "clicks": np.bincount(ranking[clicked], minlength=count).astype(np.float64),
        "clicked_rankings": np.isfinite(first_click).astype(np.float64),
        "reciprocal_rank": np.where(np.isfinite(first_click), 1 / first_click, 0.0),
        "dwell_s": _sum_by_index(interactions.ranking[click], dwell[click], count),
    }
    for name, metric in experiment.plan.metrics.items():
        columns[name] = _custom_metric_column(log, metric, is_matched, count)
    return columns, clicked


def _custom_metric_column(
    log: EventTable, metric: CustomMetric, is_matched: NDArray[np.bool_], count: int
) -> NDArray[np.float64]:
    interactions = log.interactions
    chosen = is_matched & (interactions.type == log.types.row(metric.type))
    values = np.ones(len(interactions))
    if metric.value == "sum":
        values = np.where(np.isnan(interactions.value), 0.0, interactions.value)
    return _sum_by_index(interactions.ranking[chosen], values[chosen], count)


def _sum_by_index(index: NDArray[Any], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,) sums of the values at each index."""
    return np.bincount(index, values, minlength=count).astype(np.float64)
