"""The event table: which ranking a click joins, labels, and the order of events."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import JOIN_WINDOW_S, Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.interaction_types import HISTORY_TYPE
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW
from feedrank.models.training.labels import impression_labels

ITEMS = Vocabulary("abc")
MINUTES = 60_000


def ranking(
    name: str, minute: float, items: str = "abc", user: str | None = "ann", labels: tuple[float, ...] | None = None
) -> RankingEvent:
    return RankingEvent(name, round(minute * MINUTES), tuple(items), user, labels=labels)


def click(minute: float, item: str = "a", user: str | None = "ann", answers: str | None = None) -> InteractionEvent:
    return InteractionEvent(f"{minute}{item}{user}", round(minute * MINUTES), item, "click", answers, user)


def answered(*events: Event) -> list[int]:
    return events_to_table(events, ITEMS).interactions.ranking.tolist()


def test_a_click_joins_the_ranking_it_names() -> None:
    assert answered(ranking("r0", 0), ranking("r1", 1), click(2, answers="r0")) == [0]
    assert answered(ranking("r0", 0, user="bob"), click(500, "c", None, "r0")) == [0]
    assert answered(click(0, answers="r0"), ranking("r0", 1)) == [0]
    assert answered(ranking("r0", 0), click(1, answers="lost")) == [-1]


def test_a_click_without_ranking_joins_the_last_impression_in_the_window() -> None:
    assert answered(ranking("r0", 0), ranking("r1", 1, "bc"), click(2, "a"), click(3, "b")) == [0, 1]
    assert answered(ranking("r0", 0), ranking("r1", 1, "abc", "bob"), click(2, "a")) == [0]
    assert answered(ranking("r0", 0), click(30), click(30.001)) == [0, -1]
    assert JOIN_WINDOW_S == 1800
    assert answered(ranking("r0", 0, user=None), click(1, user=None), click(1)) == [-1, -1]
    assert answered(click(0), ranking("r0", 1), click(2, "d")) == [-1, -1]
    assert answered(ranking("r0", 0, "d"), click(1, "d")) == [0]


def test_a_ranking_of_the_same_time_counts_as_shown_before_a_click() -> None:
    assert answered(click(1), ranking("r0", 1)) == [0]
    assert answered(ranking("r0", 1), click(1)) == [0]
    assert answered(click(2), ranking("r0", 1)) == [0]  # later in time, though written first
    assert answered(click(1), click(1, "c"), ranking("r0", 1, "ab"), ranking("r1", 1, "ab")) == [-1, 1]  # the last one
    assert answered(click(1), ranking("r0", 1.001)) == [-1]
    live = [replace(event, received=event.timestamp) for event in (click(1), ranking("r0", 1))]
    assert answered(*live) == [-1]  # the service knows what came first


def test_labels_are_the_logged_ones_or_else_clicks() -> None:
    log = events_to_table(
        [
            ranking("r0", 0, "abd"),
            ranking("r1", 1, "abc", labels=(0.0, math.nan, 2.0)),
            click(2, "a"),
            click(3, "b"),
            click(4, "b", answers="r0"),
            click(5, "c", answers="r0"),
        ],
        ITEMS,
    )
    assert log.rankings.items.tolist() == [0, 1, UNKNOWN_ROW, 0, 1, 2]
    assert log.interactions.ranking.tolist() == [1, 1, 0, 0]
    assert impression_labels(log).tolist() == [0, 1, 0, 0, 1, 2]
    assert impression_labels(events_to_table([], ITEMS)).tolist() == []


def test_columns() -> None:
    events = [
        ItemEvent("i", 0, "a"),
        InteractionEvent("1", 5_000, "b", "rating", None, "bob", value=4.5),
        ranking("r", 0.05, "cd"),
        UserEvent("u", 0, "ann"),
        InteractionEvent("2", 1_000, "d", HISTORY_TYPE),
    ]
    users = Vocabulary(["zoe"])
    log = events_to_table(events, ITEMS, users)
    assert log.users is users
    assert sorted(users) == ["ann", "bob", "zoe"]
    assert len(log) == 3
    assert log.at.tolist() == [1, 3, 5]
    assert log.interactions.item.tolist() == [UNKNOWN_ROW, 1]
    assert [users.name(row) if row >= 0 else None for row in log.interactions.user] == [None, "bob"]
    assert log.is_history.tolist() == [True, False]
    assert str(log.interactions.value.tolist()) == "[nan, 4.5]"
    assert [users.name(row) for row in log.rankings.user] == ["ann"]
    assert log.event_order.tolist() == [0, 2, 1]
    assert np.isnan(log.rankings.labels).all()


@given(times=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=15))
def test_the_order_is_of_time_and_ties_are_stable(times: list[tuple[bool, int]]) -> None:
    events: list[RankingEvent | InteractionEvent] = [
        RankingEvent(str(position), time, ("a",))
        if is_ranking
        else InteractionEvent(str(position), time, "a", "click", value=position)
        for position, (is_ranking, time) in enumerate(times)
    ]
    log = events_to_table(iter(events), ITEMS)
    happened = sorted(events, key=lambda event: event.timestamp)
    interactions = [event for event in happened if isinstance(event, InteractionEvent)]
    rankings = [event for event in happened if isinstance(event, RankingEvent)]
    assert [[*interactions, *rankings][position] for position in log.event_order] == happened
    assert log.interactions.value.tolist() == [event.value for event in interactions]
    assert log.at.tolist() == [event.timestamp / 1000 for event in happened]
    event_positions = log.event_positions()
    assert [happened[position] for position in event_positions] == [*interactions, *rankings]
