"""A state that grows by item events equals, bit for bit, one that had the items from the start."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_behavioural_state import CATALOGUE, FULL, HOUR, ITEMS, SPEC, START, same

from feedrank.engine.events.arrived_events import arrived_events_to_table
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.events.interaction_types import HISTORY_TYPE
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, ResolvedRequest
from feedrank.features import history_store
from feedrank.features.history_growth import reencoded
from feedrank.features.history_store import HistoryStore
from feedrank.features.kernel import COUNTER_KINDS
from feedrank.features.state import BehaviouralState

USERS = 6
NEW: dict[str, dict[str, FieldValue]] = {
    "ny-ø": {"category": ["w", "x"], "size": ["xl", "s"]},
    "新": {"category": "z"},
    "plain": {"size": "m"},
}
LARGER = Catalogue.from_items({**CATALOGUE.to_items(), **NEW})
MANY = Catalogue.from_items({**CATALOGUE.to_items(), **{f"n{row}": {"category": f"c{row}"} for row in range(300)}})


def happened(random: np.random.Generator, names: Sequence[str], length: int, now: float) -> list[Event]:
    """Random rankings and interactions: some late, some days apart, some without a user, some of unknown items."""
    events: list[Event] = []
    for _ in range(length):
        now += float(random.choice([0, 1, 600, 30 * HOUR, 1e7], p=[0.3, 0.3, 0.2, 0.15, 0.05]))
        at, name = int(1000 * (now - random.choice([0, 0, 5 * HOUR]))), f"e{random.integers(1 << 60)}"
        user = None if random.random() < 0.1 else f"u{random.integers(0, USERS)}"
        shown = [str(one) for one in random.permutation([*names, "unknown"])]
        if random.random() < 0.4:
            events.append(RankingEvent(name, at, tuple(shown[: random.integers(1, 5)]), user, received=int(1000 * now)))
        else:
            kind = str(random.choice([HISTORY_TYPE, "click", "rating"]))
            events.append(InteractionEvent(name, at, shown[0], kind, user=user, received=int(1000 * now)))
    return events


def observe(state: BehaviouralState, events: Sequence[Event], users: Vocabulary) -> None:
    """Observe events as a running service does."""
    arrivals = ItemArrivals(state.items, state.item_fields)
    state.advance(arrived_events_to_table(events, arrivals, users))


def item_events(catalogue: Catalogue, at_ms: float) -> list[Event]:
    """The item events of the items that `CATALOGUE` lacks."""
    return [
        ItemEvent(f"item {item}", int(at_ms), item, fields, received=int(at_ms))
        for item, fields in catalogue.to_items().items()
        if item not in CATALOGUE.ids
    ]


def same_reads(a: BehaviouralState, b: BehaviouralState, items: int, at: float) -> None:
    """Assert that two states give the same reads as of `at` for every user and item, and for the unknown user."""
    requests = [ResolvedRequest(at, user) for user in range(UNKNOWN_ROW, USERS + 1)]
    rows = [np.arange(UNKNOWN_ROW, items, dtype=np.int32)] * len(requests)
    same(a.read(requests, rows), b.read(requests, rows))
    assert np.array_equal(a.popularity(at)[:items], b.popularity(at)[:items])
    for user in range(USERS):
        for one, other in zip(a.history(user), b.history(user), strict=True):
            assert np.array_equal(one, other)
        assert np.array_equal(a.disliked(user), b.disliked(user))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), first=st.integers(0, 120), second=st.integers(0, 60),
    larger=st.sampled_from([LARGER, MANY]),
)  # fmt: skip
def test_a_state_that_grew_equals_one_that_had_all_items_from_the_start(
    seed: int, first: int, second: int, larger: Catalogue
) -> None:
    random, users, others = np.random.default_rng(seed), Vocabulary(), Vocabulary()
    before = happened(random, list(CATALOGUE.ids), first, START)
    now = max([START, *(event.received / 1000 for event in before if event.received)])
    after = happened(random, list(larger.ids)[: ITEMS + 20], second, now)
    small, large = BehaviouralState(CATALOGUE, FULL), BehaviouralState(larger, FULL)
    observe(small, before, users)
    observe(large, before, others)
    observe(small, item_events(larger, now * 1000), users)
    assert list(small.items) == list(larger.ids)
    same_reads(small, large, len(larger), now)
    observe(small, after, users)
    observe(large, after, others)
    same_reads(small, large, len(larger), now + HOUR)
    saved = BehaviouralState(CATALOGUE, FULL)
    saved.restore({name: array.copy() for name, array in small.arrays().items()})
    same_reads(saved, small, len(larger), now + HOUR)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 120))
def test_it_makes_no_difference_how_many_events_are_observed_at_once(seed: int, length: int) -> None:
    """New items, clicks on them, and changes of category and size, some with a late timestamp; with a save between."""
    random, now_ms = np.random.default_rng(seed), int(START * 1000)
    events: list[Event] = []
    for n in range(length):
        now_ms += int(random.choice([0, 1, 10_000, 30 * 3_600_000]))
        item, at = (
            str(random.choice(["i0", "i1", "i4", "new 1", "new 2", "new 3"])),
            now_ms - int(random.choice([0, 9_000])),
        )
        if random.random() < 0.4:
            fields: dict[str, FieldValue] = {}
            if random.random() < 0.7:
                fields["category"] = [str(one) for one in random.permutation(["x", "y", "q", "r"])[:2]]
            if random.random() < 0.7:
                fields["size"] = str(random.choice(["s", "xl", ""]))
            events.append(ItemEvent(f"e{n}", at, item, fields, received=now_ms))
        else:
            kind = str(random.choice(["click", "rating", "hide"]))
            events.append(InteractionEvent(f"e{n}", at, item, kind, user=f"u{random.integers(3)}", received=now_ms))
    at_once, in_parts = BehaviouralState(CATALOGUE, FULL), BehaviouralState(CATALOGUE, FULL)
    users, others = Vocabulary(), Vocabulary()
    observe(at_once, events, users)
    first = 0
    while first < length:
        last = first + int(random.integers(1, 9))
        observe(in_parts, events[first:last], others)
        first = last
        if random.random() < 0.1:
            saved = BehaviouralState(CATALOGUE, FULL)
            saved.restore({name: array.copy() for name, array in in_parts.arrays().items()})
            in_parts = saved
    assert list(users) == list(others)
    assert list(at_once.items) == list(in_parts.items)
    same_reads(at_once, in_parts, len(at_once.items), now_ms / 1000)
    for name in ("codes", "code_bounds", "counts", "items.names", "items.valid_from"):
        assert np.array_equal(at_once.arrays()[name], in_parts.arrays()[name]), name
    counts, names = at_once.arrays()["counts"], at_once.arrays()["first_at"]
    expected = counted_by_category(events)
    found = counts[len(names) :, COUNTER_KINDS.index("interactions"), -1]
    categories = [*CATALOGUE.categories, *json.loads(at_once.arrays()["items.names"].tobytes())[1]]
    assert {name: found[code] for code, name in enumerate(categories) if found[code]} == expected


def counted_by_category(events: Sequence[Event]) -> dict[str, float]:
    """Interactions of each category, each counted for the categories that its item had then."""
    fields = {item: dict(one) for item, one in CATALOGUE.to_items().items()}
    since: dict[str, int] = {}
    counts: dict[str, float] = {}
    for event in events:
        if isinstance(event, ItemEvent):
            known = fields.setdefault(event.item, {})
            if "category" in event.fields and event.timestamp >= since.get(event.item, event.timestamp):
                known["category"], since[event.item] = event.fields["category"], event.timestamp
        elif isinstance(event, InteractionEvent) and event.item in fields and event.type != "hide":
            for name in fields[event.item].get("category", []):  # type: ignore[union-attr]  # lists, all of them
                counts[name] = counts.get(name, 0) + 1
    return counts


def test_an_event_counts_for_an_item_only_after_its_item_event() -> None:
    state, users, at = BehaviouralState(CATALOGUE, FULL), Vocabulary(), int(START * 1000)

    def click(name: str, received: int | None) -> Event:
        return InteractionEvent(name, at, "new", "click", user="ann", received=received)

    observe(state, [click("a", at), ItemEvent("new", at, "new", {"category": "x"}, received=at), click("b", at)], users)
    assert state.popularity(START)[ITEMS] == 1
    observe(state, [ItemEvent("i", at + 5, "imported", {}), click("c", at)], users)
    assert state.popularity(START)[ITEMS] == 2
    other = BehaviouralState(CATALOGUE, FULL)
    observe(other, [click("imported before its item", None), ItemEvent("new", at, "new", {"category": "x"})], users)
    assert other.popularity(START)[ITEMS] == 1, "the order of a file says nothing of when its items were known"


@pytest.mark.parametrize("factor", [1, 128, 10**5])
def test_rewritten_histories_fit_in_the_reserved_room(factor: int) -> None:
    """Entries a second apart take one digit more under a larger number of items, or two, or three."""
    state = BehaviouralState(CATALOGUE, SPEC)
    capacity = len(state.arrays()["first_at"])
    more = factor * capacity + 1
    first = int(START) * 1000
    events = [InteractionEvent(f"e{n}", first + 1000 * n, f"i{n % ITEMS}", "click", user="ann") for n in range(300)]
    state.advance(events_to_table(events, CATALOGUE.ids))
    found = HistoryStore(*(state.arrays()[f"histories.{name}"] for name in HistoryStore._fields))
    there = reencoded(found, capacity, more)
    assert len(there.pool) == len(there.previous) == int(there.used[0])
    rows, times = np.empty(300, np.int32), np.empty(300)
    assert history_store.read(there, 0, history_store.INTERACTIONS, more, rows, times) == 300
    assert rows.tolist() == [n % ITEMS for n in range(300)][::-1]
    assert times.tolist() == [START + n for n in range(300)][::-1]
