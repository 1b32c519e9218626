"""Labels of impressions against a slow reference; impressions that were not examined have none."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.interaction_types import HISTORY_TYPE, InteractionType, InteractionTypes
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.models.training.dataset import from_rankings
from feedrank.models.training.labels import LabelSettings, examined_mask, impression_labels

ITEMS = Vocabulary("abcdef")
WEIGHTS = {"click": 1.0, "buy": 5.0, "hide": -2.0, "rating": 0.5}
MEANINGS = InteractionTypes(types={name: InteractionType(weight=weight) for name, weight in WEIGHTS.items()})
SETTINGS = LabelSettings(
    value_weighted=("rating",),
    dwell_saturation_s={"click": 10.0},
    grade_thresholds=(0.0, 0.6, 3.0),
)


@st.composite
def worlds(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for n in range(draw(st.integers(0, 6))):
        items = draw(st.lists(st.sampled_from("abcdexy"), min_size=1, max_size=5, unique=True))
        logged = draw(st.sampled_from([None, 0.0, 2.0]))
        marks = None if logged is None else (logged, *[math.nan] * (len(items) - 1))
        positions = tuple(range(1, len(items) + 1)) if draw(st.booleans()) else None
        events.append(RankingEvent(f"r{n}", n * 1000, tuple(items), "u", labels=marks, positions=positions))
    for n in range(draw(st.integers(0, 12))):
        ranking = draw(st.sampled_from([None, "r0", "r1", "r5", "r9"]))
        kind = draw(st.sampled_from([*WEIGHTS, "view", "impression", "skip", "our own", HISTORY_TYPE]))
        value, dwell = draw(st.sampled_from([None, 2.0, -1.0])), draw(st.sampled_from([None, 0.0, 4e3, 9e9]))
        item = draw(st.sampled_from("abcdfxy"))
        events.append(
            InteractionEvent(f"c{n}", n * 700, item, kind, ranking, "u", value=value, dwell_ms=dwell)
        )  # fmt: skip
    return events


def reference_labels(log: EventTable) -> list[float]:
    """Compute the labels by SETTINGS, item by item."""
    found = []
    shown = log.shown_ids(np.arange(len(log.rankings.items)), ITEMS)
    interacted = log.interacted_ids(np.arange(len(log.interactions)), ITEMS)
    for r in range(len(log.rankings)):
        for position in range(int(log.rankings.offsets[r]), int(log.rankings.offsets[r + 1])):
            logged, name = log.rankings.labels[position], shown[position]
            worth: dict[str, float] = {}
            for i in range(len(log.interactions)):
                of = log.interactions
                kind = log.types.name(int(of.type[i]))
                if of.ranking[i] != r or interacted[i] != name or kind == HISTORY_TYPE:
                    continue
                one = (WEIGHTS | {"impression": 0.0, "skip": 0.0, "our own": 0.0}).get(kind, 1.0)
                if kind == "rating" and not math.isnan(of.value[i]):
                    one *= of.value[i]
                if kind == "click" and not math.isnan(of.dwell_s[i]):
                    one *= min(of.dwell_s[i] / 10, 1)
                if kind not in worth or abs(one) >= abs(worth[kind]):
                    worth[kind] = one
            total = sum(worth.values())
            found.append(
                float(logged) if not math.isnan(logged) else sum(total > grade for grade in SETTINGS.grade_thresholds)
            )
    return found


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_labels_equal_a_slow_reference(events: list[Event]) -> None:
    log = replace(events_to_table(events, ITEMS), meanings=MEANINGS)
    assert impression_labels(log, SETTINGS).tolist() == reference_labels(log)


def test_by_default_any_positive_interaction_is_a_label_of_1() -> None:
    log = events_to_table(
        [
            RankingEvent("r", 0, tuple("abcd"), "u"),
            InteractionEvent("1", 1, "a", "click", "r"), InteractionEvent("2", 2, "a", "click", "r"),
            InteractionEvent("3", 3, "c", "purchase", "r", dwell_ms=1.0, value=-7.0),
            *(InteractionEvent(kind, 3, "b", kind, "r") for kind in ("impression", "skip", "hide", "our own")),
            InteractionEvent("4", 4, "d", HISTORY_TYPE, "r"),
        ],
        ITEMS,
    )  # fmt: skip
    assert impression_labels(log).tolist() == [1, 0, 1, 0]


def test_examination_ends_after_the_last_interaction_where_positions_are_known() -> None:
    shown = tuple("abcdef")
    log = events_to_table(
        [
            RankingEvent("known", 0, shown, "u", positions=(1, 2, 3, 4, 5, 6)),
            RankingEvent("turned", 1, shown, "v", positions=(6, 5, 4, 3, 2, 1)),
            RankingEvent("unknown", 2, shown, "w"),
            RankingEvent("nothing", 3, shown, "x", positions=(1, 2, 3, 4, 5, 6)),
            RankingEvent("logged", 4, shown, "y", labels=(1.0, *[0.0] * 5), positions=(1, 2, 3, 4, 5, 6)),
            *(InteractionEvent(name, 9, "b", "click", name) for name in ("known", "turned", "unknown")),
        ],
        ITEMS,
    )
    whole = [True] * 6
    assert examined_mask(log, None).tolist() == whole * 5
    assert examined_mask(log, 1).reshape(5, 6).tolist() == [
        [True, True, True, False, False, False], whole, whole, whole, [True, True, False, False, False, False],
    ]  # fmt: skip
    training = from_rankings(log, 0, 5, LabelSettings(examination_window=1), drop_unexamined=True)
    assert np.diff(training.queries.offsets).tolist() == [3, 6, 6, 6, 2]
    assert training.positions is not None
    assert training.positions[:9].tolist() == [1, 2, 3, 6, 5, 4, 3, 2, 1]
    assert training.labels[:4].tolist() == [0, 1, 0, 0]
    assert np.diff(from_rankings(log, 0, 5, LabelSettings(examination_window=1)).queries.offsets).tolist() == [6] * 5


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"grade_thresholds": ()}, "expected rising numbers"),
        ({"grade_thresholds": (1.0, 0.5)}, "expected rising numbers"),
        ({"grade_thresholds": (-1.0,)}, "the first at least 0"),
        ({"grade_thresholds": tuple(range(31))}, "found 31 grade_thresholds, expected at most 30"),
        ({"logged_thresholds": (1.0, 1.0)}, "expected rising numbers"),
        ({"logged_thresholds": tuple(range(31))}, "found 31 logged_thresholds, expected at most 30"),
        ({"quantile_grades": 0}, "quantile_grades is 0; expected 1 to 30"),
        ({"relevance_level": 0}, "relevance_level is 0; expected 1 to 30"),
        ({"gains": (1.0, 2.0)}, "expected 0, then numbers that do not fall"),
        ({"gains": (0.0, 2.0, 1.0)}, "expected 0, then numbers that do not fall"),
        ({"gains": (0.0, 0.0)}, "the last above 0"),
        ({"dwell_saturation_s": {"click": 0.0}}, "seconds above 0"),
        ({"examination_window": -1}, "expected at least 0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LabelSettings(**wrong)
