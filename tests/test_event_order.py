"""The order of events: an interaction never stands before its ranking, whatever the clocks and the files say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable, Interactions
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import InteractionEvent, RankingEvent, effective_time
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Batch
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.state import BehaviouralState

ITEMS = Catalogue.from_items({f"i{n}": {} for n in range(6)})
LogEvent = RankingEvent | InteractionEvent


def ranking(number: int, at: int, user: int = 0, received: int | None = None) -> RankingEvent:
    return RankingEvent(f"r{number}", at, ("i0", "i1", "i2"), f"u{user}", received=received)


def click(
    number: int, at: int, of: int | None, user: int = 0, item: int = 0, received: int | None = None
) -> InteractionEvent:
    named = None if of is None else f"r{of}"
    return InteractionEvent(f"c{number}", at, f"i{item}", "click", named, f"u{user}", value=number, received=received)


@st.composite
def logs(draw: st.DrawFn) -> list[LogEvent]:
    """Rankings, and clicks that name one of them, another log's or none; in any order of writing, with any clocks."""
    times = st.integers(0, 4)
    count = draw(st.integers(1, 5))
    events: list[LogEvent] = [
        ranking(n, draw(times), draw(st.integers(0, 1)), draw(st.none() | times)) for n in range(count)
    ]
    events += [
        click(
            n, draw(times), draw(st.none() | st.integers(0, count)), draw(st.integers(0, 1)), draw(st.integers(0, 5)),
            draw(st.none() | times),
        )
        for n in range(draw(st.integers(0, 7)))
    ]  # fmt: skip
    return list(draw(st.permutations(events)))


def names(table: EventTable, events: list[LogEvent]) -> list[str]:
    """Return the ids of the events in the order of the table; rankings never change their order."""
    rankings = [event.id for event in sorted(events, key=effective_time) if isinstance(event, RankingEvent)]
    clicks = [f"c{int(value)}" for value in table.interactions.value]
    return [[*clicks, *rankings][event] for event in table.event_order]


@given(events=logs())
def test_interactions_follow_their_rankings_and_all_others_keep_their_order(events: list[LogEvent]) -> None:
    table = events_to_table(events, ITEMS.ids)
    arrived, order = [event.id for event in sorted(events, key=effective_time)], names(table, events)
    assert sorted(order) == sorted(arrived)
    by_id = {event.id: event for event in events}
    placed, before = set(), 0
    for index, ranking_row in enumerate(table.interactions.ranking.tolist()):
        name = f"c{int(table.interactions.value[index])}"
        if ranking_row < 0:
            continue
        own = [one for one in arrived if one.startswith("r")][ranking_row]
        assert order.index(name) > order.index(own)
        stood_before = arrived.index(name) < arrived.index(own)
        is_imported = by_id[name].received is None and by_id[own].received is None
        if stood_before or (is_imported and by_id[name].timestamp == by_id[own].timestamp):
            placed.add(name)
            between = order[order.index(own) + 1 : order.index(name)]
            assert all(one in placed or one.startswith("c") for one in between)
        if stood_before:
            before += 1
            assert table.interactions.at[index] >= table.rankings.at[ranking_row]
    assert table.moved == before
    assert bool(table.notes) == bool(before)
    assert [one for one in order if one not in placed] == [one for one in arrived if one not in placed]
    assert names(events_to_table(events, ITEMS.ids, as_arrived=True), events) == arrived


@given(events=logs())
def test_replay_never_shows_a_ranking_its_own_click(events: list[LogEvent]) -> None:
    table = events_to_table(events, ITEMS.ids)
    batch = read_before_rankings(table)
    own = [set(table.interactions.item[table.interactions.ranking == r].tolist()) for r in range(len(table.rankings))]
    counted = np.add.accumulate(table.event_order < len(table.interactions))
    for r in range(len(table.rankings)):
        before = table.interactions_before(r)
        assert before == counted[table.event_order == len(table.interactions) + r][0]
        assert set(np.flatnonzero(table.interactions.ranking == r).tolist()).isdisjoint(range(before))
        past = table.interactions.item[:before][table.interactions.user[:before] == table.rankings.user[r]].tolist()
        assert batch.interaction_count[r] == len(past)
        assert set(batch.history[r].tolist()) - {-1} == set(past)
        assert own[r] - set(past) == own[r] - set(batch.history[r].tolist())
    assert table.interactions_before(len(table.rankings)) == len(table.interactions)


def read_before_rankings(table: EventTable) -> Batch:
    """Read the state just before each ranking, for the items that it shows."""
    rankings, total = table.rankings, len(table.interactions)
    queries = PointInTimeQueries(
        table.event_positions()[total:], rankings.at, rankings.user, rankings.offsets, rankings.items
    )
    return BehaviouralState(ITEMS).replay_log(table, queries)


@given(order=st.permutations(range(8)), day=st.booleans())
def test_imported_files_may_come_in_any_order(order: list[int], day: bool) -> None:
    """Clicks of the very time of their ranking, of milliseconds or of days: only the order of the rankings counts."""
    events: list[LogEvent] = [ranking(n, 86_400_000 if day else n, user=n % 2) for n in range(4)]
    events += [click(n, event.timestamp, of=n, user=n % 2, item=n % 3) for n, event in enumerate(events)]
    users = [Vocabulary(["u0", "u1"]) for _ in range(2)]
    shuffled = [events[n] for n in order]
    shuffled = sorted(shuffled, key=lambda event: order_key(event, shuffled))
    one, other = events_to_table(events, ITEMS.ids, users[0]), events_to_table(shuffled, ITEMS.ids, users[1])
    assert names(one, events) == ["r0", "c0", "r1", "c1", "r2", "c2", "r3", "c3"] == names(other, shuffled)
    for column in fields(Interactions):
        assert np.array_equal(
            getattr(one.interactions, column.name), getattr(other.interactions, column.name), True
        ) or (column.name in ("dwell_s", "type"))


def order_key(event: LogEvent, events: list[LogEvent]) -> int:
    """Keep the rankings in their order, at the places where rankings are; clicks stay where they are."""
    places = [n for n, one in enumerate(events) if isinstance(one, RankingEvent)]
    return places[int(event.id[1:])] if isinstance(event, RankingEvent) else events.index(event)


def test_a_moved_click_has_the_later_time_and_a_live_one_its_own() -> None:
    behind = events_to_table([click(0, 8_000, of=0), ranking(0, 10_000)], ITEMS.ids)
    assert (behind.interactions.at.tolist(), behind.moved) == ([10.0], 1)
    assert behind.notes == (
        "moved 1 of 1 interactions to right after their ranking: they stood before it, as a clock is behind, files were"
        " imported in another order, or rankings were logged late",
    )
    live = [ranking(0, 10_000, received=10_000), click(0, 8_000, of=0, received=12_000)]
    assert events_to_table(live, ITEMS.ids).interactions.at.tolist() == [8.0]
    late = [click(0, 1_000, of=0, received=1_000), ranking(0, 500, received=900_000)]
    assert events_to_table(late, ITEMS.ids).interactions.at.tolist() == [1.0]


@pytest.mark.parametrize("cut", [0.0, 2.0, 2.5, 9.0])
def test_a_cut_in_time_is_a_cut_of_the_order(cut: float) -> None:
    clicks = [click(n, 1000 * at, None) for n, at in enumerate([1, 2, 2, 3])]
    table = events_to_table([*clicks, replace(clicks[0], id="late", timestamp=0, received=4_000)], ITEMS.ids)
    assert table.interactions.at.tolist() == [1, 2, 2, 3, 0]
    assert table.first_interaction_from(cut) == {0.0: 0, 2.0: 1, 2.5: 3, 9.0: 5}[cut]
