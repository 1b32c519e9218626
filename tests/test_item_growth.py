"""An extended state equals, bit for bit, one that had all items from the start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from feedrank.features.catalogue_growth import CatalogueGrowth, _reencode_histories, extend_catalogue
from hypothesis import given, settings
from hypothesis import strategies as st
from test_behavioural_state import CATALOGUE, FULL, HOUR, ITEMS, SPEC, START, same

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.interaction_types import HISTORY_TYPE
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, ResolvedRequest
from feedrank.features import history_store
from feedrank.features.history_store import HistoryStore
from feedrank.features.state import BehaviouralState

USERS = 6
NEW: dict[str, dict[str, FieldValue]] = {
    "ny-ø": {"category": ["w", "x"], "size": ["xl", "s"]},
    "新": {"category": "z"},
    "plain": {"size": "m"},
}
LARGER = Catalogue.from_items({**CATALOGUE.to_items(), **NEW})
MANY = Catalogue.from_items({**CATALOGUE.to_items(), **{f"n{row}": {"category": f"c{row}"} for row in range(2_000)}})


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


def used(state: BehaviouralState) -> dict[str, np.ndarray]:
    """The contents of the arrays of a state, without the positions of blocks and table keys, which may differ."""
    arrays = state.arrays()
    held = {
        name: array
        for name, array in arrays.items()
        if name not in ("custom_counters.hash_index", "histories.heads", "dislike_marks.heads")
    }
    for name in ("custom_counters.keys", "custom_counters.sums"):
        held[name] = held[name][: int(arrays["custom_counters.used"][0])]
    user_count = int((arrays["histories.lengths"].sum(axis=1) > 0).nonzero()[0].max(initial=-1)) + 1
    for store in ("histories", "dislike_marks"):
        for name in ("lengths", "latest", "fills"):
            held[f"{store}.{name}"] = held[f"{store}.{name}"][:user_count]
        del held[f"{store}.pool"], held[f"{store}.previous"]
    return held


def alike(a: BehaviouralState, b: BehaviouralState, items: int, at: float) -> None:
    """Assert that two states have the same content and give the same reads."""
    for (name, one), other in zip(used(a).items(), used(b).values(), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name
    same_reads(a, b, items, at)


def same_reads(a: BehaviouralState, b: BehaviouralState, items: int, at: float) -> None:
    """Assert that two states give the same reads as of `at` for every user and item, and for the unknown user."""
    requests = [ResolvedRequest(at, user) for user in range(UNKNOWN_ROW, USERS + 1)]
    rows = [np.arange(UNKNOWN_ROW, items, dtype=np.int32)] * len(requests)
    same(a.read(requests, rows), b.read(requests, rows))
    assert np.array_equal(a.popularity(at), b.popularity(at))
    for user in range(USERS):
        for one, other in zip(a.history(user), b.history(user), strict=True):
            assert np.array_equal(one, other)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), first=st.integers(0, 120), second=st.integers(0, 60),
    larger=st.sampled_from([LARGER, MANY]),
)  # fmt: skip
def test_an_extended_state_equals_one_that_had_all_items_from_the_start(
    seed: int, first: int, second: int, larger: Catalogue
) -> None:
    random, users, others = np.random.default_rng(seed), Vocabulary(), Vocabulary()
    before = happened(random, list(CATALOGUE.ids), first, START)
    now = max([START, *(event.received / 1000 for event in before if event.received)])
    after = happened(random, list(larger.ids)[: ITEMS + 20], second, now)
    small, large = BehaviouralState(CATALOGUE, FULL), BehaviouralState(larger, FULL)
    small.advance(events_to_table(before, CATALOGUE.ids, users))
    large.advance(events_to_table(before, larger.ids, others))
    extended = extend_catalogue(small, CATALOGUE, larger)
    alike(extended, large, len(larger), now)
    extended.advance(events_to_table(after, larger.ids, users))
    large.advance(events_to_table(after, larger.ids, others))
    alike(extended, large, len(larger), now + HOUR)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), first=st.integers(0, 120), second=st.integers(0, 60),
    larger=st.sampled_from([LARGER, MANY]),
)  # fmt: skip
def test_a_state_with_spare_room_is_extended_in_place(seed: int, first: int, second: int, larger: Catalogue) -> None:
    random, users, others = np.random.default_rng(seed), Vocabulary(), Vocabulary()
    before = happened(random, list(CATALOGUE.ids), first, START)
    now = max([START, *(event.received / 1000 for event in before if event.received)])
    after = happened(random, list(larger.ids)[: ITEMS + 20], second, now)
    small, large = BehaviouralState(CATALOGUE, FULL), BehaviouralState(larger, FULL)
    small.advance(events_to_table(before, CATALOGUE.ids, users))
    large.advance(events_to_table(before, larger.ids, others))
    extended = CatalogueGrowth(CATALOGUE, larger, FULL).apply(small)
    assert (extended is small) is (larger is LARGER)
    same_reads(extended, large, len(larger), now)
    extended.advance(events_to_table(after, larger.ids, users))
    large.advance(events_to_table(after, larger.ids, others))
    same_reads(extended, large, len(larger), now + HOUR)
    for user in range(USERS):
        assert np.array_equal(extended.disliked(user), large.disliked(user))


def test_a_state_whose_codes_move_is_copied() -> None:
    changed = Catalogue.from_items({**CATALOGUE.to_items(), "i0": {"category": ["z"], "size": ["m"]}})
    state, unchanged = lived(CATALOGUE), lived(CATALOGUE)
    extended = CatalogueGrowth(CATALOGUE, changed, FULL).apply(state)
    assert extended is not state
    alike(state, unchanged, ITEMS, START)
    alike(extended, extend_catalogue(state, CATALOGUE, changed), ITEMS, START)


def lived(catalogue: Catalogue, seed: int = 0) -> BehaviouralState:
    state = BehaviouralState(catalogue, FULL)
    state.advance(
        events_to_table(happened(np.random.default_rng(seed), list(CATALOGUE.ids), 150, START), catalogue.ids)
    )
    return state


def test_extending_step_by_step_equals_extending_at_once() -> None:
    between = Catalogue.from_items({**CATALOGUE.to_items(), "ny-ø": NEW["ny-ø"]})
    by_steps = extend_catalogue(extend_catalogue(lived(CATALOGUE), CATALOGUE, between), between, LARGER)
    alike(by_steps, extend_catalogue(lived(CATALOGUE), CATALOGUE, LARGER), len(LARGER), START)


def test_extending_by_no_items_is_a_copy() -> None:
    state = lived(CATALOGUE)
    copy = extend_catalogue(state, CATALOGUE, CATALOGUE)
    alike(copy, state, ITEMS, START)
    empty = Catalogue.from_items({})
    alike(
        extend_catalogue(BehaviouralState(empty, SPEC), empty, LARGER),
        BehaviouralState(LARGER, SPEC),
        len(LARGER),
        START,
    )


def test_the_old_state_does_not_see_events_of_the_extended_one() -> None:
    state, unchanged = lived(CATALOGUE), lived(CATALOGUE)
    extended = extend_catalogue(state, CATALOGUE, LARGER)
    log = events_to_table(happened(np.random.default_rng(1), list(LARGER.ids), 50, START), LARGER.ids)
    extended.advance(log)
    alike(state, unchanged, ITEMS, START)


def test_counters_keep_their_field_value() -> None:
    """An old item gets another size and another category, so that the codes of both move."""
    items = CATALOGUE.to_items()
    changed = Catalogue.from_items({**items, "i0": {"category": ["z"], "size": ["m"]}, **NEW})
    state = lived(CATALOGUE)
    extended = extend_catalogue(state, CATALOGUE, changed)
    assert changed.field_codes("size")[0].tolist() != LARGER.field_codes("size")[0].tolist()
    assert list(changed.categories)[:3] != list(CATALOGUE.categories)
    before = {counter.name: line for line, counter in enumerate(FULL.counters)}
    requests = [ResolvedRequest(START, user) for user in range(USERS)]
    old, new = (one.read(requests, [np.array([3, 4], np.int32)] * USERS) for one in (state, extended))
    for name in ("size", "my_size", "rate", "clicks"):  # items 3 and 4 are what they were
        part = slice(12 * before[name], 12 * before[name] + 12)
        assert np.array_equal(old.custom_counters[:, part], new.custom_counters[:, part]), name
        assert old.custom_counters[:, part].any()
    assert np.array_equal(old.counters, new.counters)


def test_counters_of_a_removed_field_value_are_dropped() -> None:
    items = CATALOGUE.to_items()
    changed = Catalogue.from_items({**items, "i3": {"size": "m"}, "i1": {"size": "m"}})  # nothing is of size l now
    extended = extend_catalogue(lived(CATALOGUE), CATALOGUE, changed)
    state = lived(CATALOGUE)
    assert 0 < int(extended.arrays()["custom_counters.used"][0]) < int(state.arrays()["custom_counters.used"][0])
    old, new = (one.read([ResolvedRequest(START, 1)], [np.array([4], np.int32)]) for one in (state, extended))
    assert np.array_equal(old.custom_counters, new.custom_counters)


def test_items_in_other_rows_are_refused() -> None:
    state = lived(CATALOGUE)
    moved = Catalogue.from_items({**NEW, **CATALOGUE.to_items()})
    for other in (moved, Catalogue.from_items({"i0": {"size": "m"}})):
        with pytest.raises(ValueError, match="an old item in another row"):
            extend_catalogue(state, CATALOGUE, other)
    with pytest.raises(ValueError, match="the state of another catalogue, expected the state of these 8"):
        extend_catalogue(state, LARGER, LARGER)


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
    there = _reencode_histories(found, capacity, more)
    assert len(there.pool) == len(there.previous) == int(there.used[0])
    rows, times = np.empty(300, np.int32), np.empty(300)
    assert history_store.read(there, 0, history_store.INTERACTIONS, more, rows, times) == 300
    assert rows.tolist() == [n % ITEMS for n in range(300)][::-1]
    assert times.tolist() == [START + n for n in range(300)][::-1]
