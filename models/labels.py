"""Labels: what a shown item was worth to the person it was shown to, from all that answered its ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.log import HISTORY, Log

HIGHEST = 30
"""LightGBM knows gains of the labels 0 to 30."""


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """[labels] How interactions become labels. By default any interaction makes a 1."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """Interaction type -> what it is worth; negative for what speaks against an item."""
    other: float = 1.0
    """What a type that is not in `weights` is worth."""
    by_value: tuple[str, ...] = ()
    """Types whose worth is multiplied by the interaction's value, such as a rating."""
    full_dwell_s: Mapping[str, float] = field(default_factory=dict)
    """Type -> seconds of dwell that are worth the whole; less is worth its share, none known the whole."""
    grades: tuple[float, ...] = (0.0,)
    """The label is how many of these the sum is above: (0.0, 2.0) makes labels 0, 1 and 2."""
    examined_past: int | None = None
    """Items shown more than this many places after the last one that was answered are no negatives: nobody may have
    looked at them, so they are left out of training. None: all stay. It needs logged positions."""

    def __post_init__(self) -> None:
        if not self.grades or list(self.grades) != sorted(set(self.grades)) or self.grades[0] < 0:
            raise ValueError(f"grades is {self.grades}; expected rising numbers, the first at least 0")
        if len(self.grades) > HIGHEST:
            raise ValueError(f"{len(self.grades)} grades are given; LightGBM knows {HIGHEST}")
        if any(seconds <= 0 for seconds in self.full_dwell_s.values()):
            raise ValueError(f"full_dwell_s is {dict(self.full_dwell_s)}; expected seconds above 0")
        if self.examined_past is not None and self.examined_past < 0:
            raise ValueError(f"examined_past is {self.examined_past}; expected at least 0")


def labels(log: Log, settings: LabelSettings | None = None) -> NDArray[np.float32]:
    """(shown rows,) one label a shown item: as logged, or else the grade of what answered it, 0 where nothing did.

    An interaction answers the ranking it was joined to. Of several of one type on one item the one worth most counts,
    so that a nervous finger does not weigh double; the types add up.
    """
    settings = settings or LabelSettings()
    shown = log.rankings
    worth = np.zeros(len(shown.rows))
    places, answers = _answered(log)
    if len(places):
        gain = _worth(log, settings)[answers]
        kinds = log.interactions.type[answers].astype(np.int64)
        # of each (place, type) the entry that is worth most: the last in order of |gain|
        order = np.lexsort((np.abs(gain), kinds, places))
        last = np.append((np.diff(places[order]) != 0) | (np.diff(kinds[order]) != 0), True)
        best = order[last]
        np.add.at(worth, places[best], gain[best])
    made = np.searchsorted(np.array(settings.grades), worth, side="left")
    logged = np.clip(np.round(shown.labels), 0, HIGHEST)
    return np.where(np.isnan(shown.labels), made, logged).astype(np.float32)


def examined(log: Log, past: int | None) -> NDArray[np.bool_]:
    """(shown rows,) False for items that stand more than `past` places after the last one that was answered.

    True throughout for rankings that nobody answered, or whose positions were not logged: there the order says nothing.
    """
    shown = log.rankings
    if past is None:
        return np.ones(len(shown.rows), np.bool_)
    owners = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    last = np.full(len(shown), -1)
    places, _ = _answered(log)
    positive = np.flatnonzero(np.nan_to_num(shown.labels) > 0)
    for found in (places, positive):
        np.maximum.at(last, owners[found], shown.positions[found])
    reach = last[owners]
    return (reach < 1) | (shown.positions < 1) | (shown.positions <= reach + past)


def _answered(log: Log) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The flat places of shown items that were answered, and the interaction that answered each."""
    shown, touched = log.rankings, log.interactions
    answering = np.flatnonzero((touched.ranking >= 0) & (touched.item >= 0) & (touched.type != log.types.row(HISTORY)))
    if not len(answering) or not len(shown.rows):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    width = np.int64(max(shown.rows.max(), touched.item.max()) + 2)
    owners = np.repeat(np.arange(len(shown), dtype=np.int64), np.diff(shown.offsets))
    keys = owners * width + shown.rows + 1  # an unknown item is 0
    order = np.argsort(keys, kind="stable")
    wanted = touched.ranking[answering] * width + touched.item[answering] + 1
    at = np.searchsorted(keys[order], wanted)
    found = order[np.minimum(at, len(order) - 1)]
    there = (at < len(order)) & (keys[found] == wanted)
    return found[there].astype(np.int64), answering[there]


def _worth(log: Log, settings: LabelSettings) -> NDArray[np.float64]:
    """(interactions,) what each is worth."""
    touched = log.interactions
    names = list(log.types)
    worth = np.array([settings.weights.get(name, settings.other) for name in names], np.float64)[touched.type]
    by_value = np.array([name in settings.by_value for name in names], np.bool_)[touched.type]
    worth = np.where(by_value & ~np.isnan(touched.value), worth * touched.value, worth)
    full = np.array([settings.full_dwell_s.get(name, np.nan) for name in names], np.float64)[touched.type]
    share = np.clip(touched.dwell / full, 0, 1)
    return np.where(np.isnan(share), worth, worth * share)
