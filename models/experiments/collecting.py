"""From the journal to outcomes: what the units of an experiment were shown, and what they did with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, InteractionEvent, RankingEvent
from engine.experiments.declared import HOLDOUT, DeclaredMetric, Experiment
from engine.experiments.enrolment import INTERLEAVED
from engine.experiments.interleaving import balanced_credit
from engine.ids import Ids
from engine.log import Log, in_order
from engine.types import NOBODY
from models.experiments.answers import CLICK, answered
from models.experiments.outcomes import COUNTS, METRICS, Metric, Outcomes

DAY_S = 86_400.0
BEFORE_DAYS = 28
"""What units did in so many days before the start is what CUPED compares with."""
_PER = {"unit": None, "ranking": "rankings", "impression": "impressions", "click": "clicks"}


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """R rankings of an experiment, S items shown in them, flattened, in order of time."""

    unit: NDArray[np.int32]
    """(R,) which unit; -1: a ranking from before the experiment."""
    variant: NDArray[np.int32]
    """(R,) code of the variant, -1 before the experiment."""
    at: NDArray[np.float64]
    """(R,) unix seconds."""
    offsets: NDArray[np.int64]
    """(R + 1,) bounds of each ranking's items."""
    clicked: NDArray[np.bool_]
    """(S,)"""
    team: NDArray[np.int32]
    """(S,) code of the arm that an item counts for, -1: none."""
    credit: NDArray[np.float64]
    """(R, arms) of interleaved lists; (0, 0) of others."""


@dataclass(frozen=True, eq=False, slots=True)
class Collected:
    """All that a readout is made of."""

    outcomes: Outcomes
    """Of the arms; of an interleaving, all units in one."""
    holdout: Outcomes | None
    """Units that were kept away, and after them all that were in the experiment; None: nobody is kept away."""
    shown: Shown
    units: Ids
    first_seen: NDArray[np.float64]
    """(U,) unix seconds of the first ranking of each of the outcomes' units."""
    moved: int
    """Units that were seen in more than one arm, as after a change of weights: they count for the first."""
    last: float
    """Unix seconds of the latest ranking; NaN where there is none."""


def declared_metrics(experiment: Experiment) -> tuple[Metric, ...]:
    """The experiment's own metrics, as outcomes are measured by. Raises ValueError for a name that is taken."""
    if taken := experiment.metrics.keys() & {*COUNTS, *(one.name for one in METRICS)}:
        raise ValueError(
            f"found a metric called {', '.join(sorted(taken))}, which there is already; choose another name"
        )
    return tuple(
        Metric(name, name, _PER[one.per], higher_is_better=one.higher_is_better)
        for name, one in experiment.metrics.items()
    )


def collect(events: Iterable[Event], experiment: Experiment, started: float) -> Collected:
    """The outcomes of an experiment that was started at a moment (unix seconds), of the journal's events in order.

    Only what is from `BEFORE_DAYS` before the start and on need be given. Clicks belong to rankings as in training:
    to the one they name, or to the last that showed the person the item within 30 minutes.
    """
    tap = _Tap(experiment, started)
    log = in_order(tap.through(events), tap.items)
    return tap.collected(log)


class _Tap:
    """Keeps what the log's columns do not: experiment, unit, teams."""

    def __init__(self, experiment: Experiment, started: float) -> None:
        self._experiment, self._started = experiment, started
        self.items, self._units, self._variants = Ids(), Ids(), Ids(experiment.arms)
        self._unit: list[int] = []
        self._variant: list[int] = []
        self._surface: dict[int, str] = {}
        self._teams: list[list[str] | None] = []
        self._places: list[list[list[int]] | None] = []

    def through(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events."""
        for event in events:
            if isinstance(event, RankingEvent):
                self._note(event)
            if isinstance(event, RankingEvent | InteractionEvent):
                yield event

    def _note(self, event: RankingEvent) -> None:
        for item in event.items:
            self.items.add(item)
        variant, unit = self._variant_of(event), NOBODY
        name = {"user": event.user, "session": event.session, "request": event.id}[self._experiment.unit]
        if name is not None and variant is not None:
            unit = self._units.add(name)
            self._surface.setdefault(unit, str(event.extra.get("surface", "")))
        self._unit.append(unit)
        self._variant.append(NOBODY if variant is None else self._variants.add(variant))
        self._teams.append(event.extra.get("team") if variant == INTERLEAVED else None)
        places = event.extra.get("served", {}).get("places") if variant == INTERLEAVED else None
        self._places.append(places)

    def _variant_of(self, event: RankingEvent) -> str | None:
        if event.timestamp / 1000 < self._started:
            return None
        own = self._experiment.name
        for pair in event.extra.get("served", {}).get("experiments", ()):
            if isinstance(pair, list) and len(pair) == 2 and pair[0] == own:
                return str(pair[1])
        return str(event.extra.get("variant", "")) or None if event.extra.get("experiment") == own else None

    def collected(self, log: Log) -> Collected:
        shown = log.rankings
        unit, variant = np.array(self._unit, np.int32), np.array(self._variant, np.int32)
        columns, clicked = _columns(log, self._experiment)
        arm_of, moved = _first_arms(unit, variant, len(self._units))
        within = unit >= 0
        within[within] = variant[within] == arm_of[unit[within]]
        day = np.floor((shown.at - self._started) / DAY_S).astype(np.int32)
        keys, rows = np.unique(
            np.stack([day[within], unit[within]], axis=1) if within.any() else np.empty((0, 2), np.int32), axis=0,
            return_inverse=True,
        )  # fmt: skip
        summed = {name: _sums(rows.ravel(), column[within], len(keys)) for name, column in columns.items()}
        arms = [INTERLEAVED] if INTERLEAVED in self._variants else [*self._experiment.arms]
        place = np.array([arms.index(name) if name in arms else NOBODY for name in self._variants], np.int32)
        segments = {"surface": np.array([self._surface.get(one, "") for one in range(len(self._units))], np.str_)}
        before = self._before(log, columns)
        if before:
            segments["before"] = np.where(before["rankings"] + before["clicks"] > 0, "returning", "new")
        segments = {name: values for name, values in segments.items() if len(np.unique(values)) > 1}  # or it is all
        arm = np.where(arm_of >= 0, place[arm_of], NOBODY).astype(np.int32) if len(arm_of) else arm_of
        unit_of, day_of = keys[:, 1].astype(np.int32), keys[:, 0].astype(np.int32)
        outcomes = _of_arms(Outcomes(tuple(arms), arm, unit_of, day_of, summed, before, segments))
        kept_away = None
        if self._experiment.holdout:
            code = self._variants.row(HOLDOUT)
            inside = np.where(arm_of == code, 0, 1).astype(np.int32)
            kept_away = Outcomes((HOLDOUT, "in the experiment"), inside, unit_of, day_of, summed, before, segments)
        team = self._team_codes(shown.offsets)
        credit = self._credit(shown.offsets, clicked, team)
        kept = Shown(unit, variant, shown.at, shown.offsets, clicked, team, credit)
        first_seen = np.full(len(self._units), np.inf)
        np.minimum.at(first_seen, unit[unit >= 0], shown.at[unit >= 0])
        first_seen = first_seen[arm >= 0]
        last = float(shown.at[unit >= 0].max()) if (unit >= 0).any() else float("nan")
        return Collected(outcomes, kept_away, kept, self._units, first_seen, moved, last)

    def _before(self, log: Log, columns: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """(U,) each column of what people did before the start; nothing where units are no people."""
        if self._experiment.unit != "user" or not len(self._units):
            return {}
        unit_of = np.full(len(log.people) + 1, NOBODY, np.int32)
        for place, name in enumerate(self._units):
            unit_of[log.people.row(name)] = place
        earlier = (log.rankings.at < self._started) & (log.rankings.at >= self._started - BEFORE_DAYS * DAY_S)
        unit = np.where(log.rankings.person >= 0, unit_of[log.rankings.person], NOBODY)
        chosen = earlier & (unit >= 0)
        return {name: _sums(unit[chosen], column[chosen], len(self._units)) for name, column in columns.items()}

    def _team_codes(self, offsets: NDArray[np.int64]) -> NDArray[np.int32]:
        team = np.full(int(offsets[-1]), NOBODY, np.int32)
        codes = {name: code for code, name in enumerate(self._experiment.arms)}
        for place, names in enumerate(self._teams):
            if names is not None and len(names) == offsets[place + 1] - offsets[place]:
                team[offsets[place] : offsets[place + 1]] = [codes.get(name, NOBODY) for name in names]
        return team

    def _credit(
        self, offsets: NDArray[np.int64], clicked: NDArray[np.bool_], team: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """(R, arms) clicks on what each arm brought."""
        if INTERLEAVED not in self._variants:
            return np.empty((0, 0))
        arms = len(self._experiment.arms)
        ranking = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        counted = clicked & (team >= 0)
        credit = np.zeros((len(offsets) - 1, arms))
        np.add.at(credit, (ranking[counted], team[counted]), 1.0)
        for place, places in enumerate(self._places):
            if places is not None:
                own = clicked[offsets[place] : offsets[place + 1]].tolist()
                if len(places) == arms and all(len(one) == len(own) for one in places):
                    credit[place] = balanced_credit(places, own)
        return credit


def _of_arms(outcomes: Outcomes) -> Outcomes:
    """Without units that are in none of the arms."""
    kept = outcomes.arm_of >= 0
    number = np.cumsum(kept) - 1
    rows = kept[outcomes.unit]
    return Outcomes(
        outcomes.arms, outcomes.arm_of[kept], number[outcomes.unit[rows]].astype(np.int32), outcomes.day[rows],
        {name: column[rows] for name, column in outcomes.columns.items()},
        {name: column[kept] for name, column in outcomes.before.items()},
        {name: column[kept] for name, column in outcomes.segments.items()},
    )  # fmt: skip


def _first_arms(unit: NDArray[np.int32], variant: NDArray[np.int32], units: int) -> tuple[NDArray[np.int32], int]:
    """(U,) the variant each unit was first seen in, and how many were seen in another one later."""
    arm_of = np.full(units, NOBODY, np.int32)
    known = np.flatnonzero(unit >= 0)
    arm_of[unit[known][::-1]] = variant[known][::-1]
    others = known[variant[known] != arm_of[unit[known]]]
    return arm_of, len(np.unique(unit[others]))


def _columns(log: Log, experiment: Experiment) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Of each ranking what is counted, and (S,) which of the shown items were clicked."""
    shown, touched = log.rankings, log.interactions
    count, sizes = len(shown), np.diff(shown.offsets)
    ranking = np.repeat(np.arange(count), sizes)
    place, answers = answered(log)
    click = answers & (touched.type == log.types.row(CLICK))
    clicked = np.zeros(len(shown.rows), np.bool_)
    clicked[place[click]] = True
    position = np.arange(len(shown.rows)) - np.repeat(shown.offsets[:-1], sizes) + 1
    first = np.full(count, np.inf)
    np.minimum.at(first, ranking[clicked], position[clicked])
    dwell = np.where(np.isnan(touched.dwell), 0.0, touched.dwell)
    columns = {
        "rankings": np.ones(count),
        "impressions": sizes.astype(np.float64),
        "clicks": np.bincount(ranking[clicked], minlength=count).astype(np.float64),
        "clicked_rankings": np.isfinite(first).astype(np.float64),
        "reciprocal": np.where(np.isfinite(first), 1 / first, 0.0),
        "dwell_s": _sums(touched.ranking[click], dwell[click], count),
    }
    for name, one in experiment.metrics.items():
        columns[name] = _declared(log, one, answers, count)
    return columns, clicked


def _declared(log: Log, one: DeclaredMetric, answers: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    touched = log.interactions
    chosen = answers & (touched.type == log.types.row(one.type))
    worth = np.where(np.isnan(touched.value), 0.0, touched.value) if one.value == "sum" else np.ones(len(touched))
    return _sums(touched.ranking[chosen], worth[chosen], count)


def _sums(index: NDArray[Any], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,) the values of each index, summed."""
    return np.bincount(index, values, minlength=count).astype(np.float64)
