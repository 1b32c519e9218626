"""The behavioural state: the kernel against a slow reference, and replay against the live feed, bit for bit."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.interaction_types import HISTORY_TYPE
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, Batch, ResolvedRequest, Rows
from feedrank.features import custom_counters, history_store
from feedrank.features.custom_counters import IMPRESSION, CounterSpec
from feedrank.features.families import rates
from feedrank.features.families.family import FamilyInputs
from feedrank.features.history_store import BLOCK_BYTES
from feedrank.features.jit import zero_padded
from feedrank.features.kernel import (
    COUNTER_KINDS,
    MAX_RECENT_IMPRESSIONS,
    OP_IMPRESSION,
    OP_INTERACTION,
    OP_PRE_LOG,
    OP_READ,
    Operations,
)
from feedrank.features.replay import PointInTimeQueries, insert_reads, operations_of
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import ENTITIES, StateSpec

ITEMS = 5
CATEGORIES = [["x"], ["x", "y"], [], ["z", "y"], ["x"]]
SIZES: list[list[str]] = [["s"], ["m", "l"], [], ["l"], ["s", "m"]]
CATALOGUE = Catalogue.from_items(
    {f"i{row}": {"category": CATEGORIES[row], "size": SIZES[row]} for row in range(len(CATEGORIES))}
)
SPEC = StateSpec(half_lives_h=(0.5, 24.0, math.inf), history_length=12)
COUNTERS = (
    CounterSpec("clicks", "item", ("click",), (), (2.0, math.inf)),
    CounterSpec("rate", "user x category", ("click", "rating"), ("impression",), (24.0,), 3.0),
    CounterSpec("mine", "user x item", ("rating",), (), (0.5, 1.0, math.inf)),
    CounterSpec("active", "user", ("click",), ("rating", "history")),
    CounterSpec("size", "size", ("impression",)),
    CounterSpec("my_size", "user x size", ("click",), ("click",)),
)
FULL = replace(SPEC, counters=COUNTERS)
KINDS = ("click", "rating", "click", "rating", "hide", "view_item_list", "skip", "our own")
HOUR = 3_600.0
START = 1.7e9

Op = tuple[int, float, int, list[int]]
"""Code, unix seconds, user row, item rows."""


def ops_of(listed: list[Op]) -> Operations:
    sizes = [len(rows) for *_, rows in listed]
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Operations(
        code=np.array([code for code, *_ in listed], np.uint8),
        at=np.array([at for _, at, *_ in listed], np.float64),
        user=np.array([user_row for _, _, user_row, _ in listed], np.int32),
        session=np.full(len(listed), -1, np.int32),
        start=bounds[:-1],
        stop=bounds[1:],
        rows=np.array([row for *_, rows in listed for row in rows], np.int32),
        type_bits=np.zeros(len(listed), np.int64),
    )


def reference_reads(listed: list[Op], spec: StateSpec) -> list[dict[str, list[float]]]:
    """Compute every READ from all earlier operations, as the docstring of the kernel says."""
    reads = []
    for position, (code, at, user, rows) in enumerate(listed):
        if code != OP_READ:
            continue
        past = [
            (code, when, who, row, 1 / len(items))
            for code, when, who, items in listed[:position]
            if code != OP_READ
            for row in items
            if row != UNKNOWN_ROW
        ]
        chain = [
            (row, when) for code, when, who, row, _ in past if code != OP_IMPRESSION and who == user != UNKNOWN_ROW
        ][::-1]
        shown = [row for code, _, who, row, _ in past if code == OP_IMPRESSION and who == user != UNKNOWN_ROW]
        read: dict[str, list[float]] = {
            "history": [row for row, _ in chain[: spec.history_length]],
            "history_at": [when for _, when in chain[: spec.history_length]],
            "interaction_count": [len(chain)],
            "impressions": [float(shown[-MAX_RECENT_IMPRESSIONS:].count(row)) for row in rows],
            "item_age": [],
            "since_interaction": [],
            "counters": [],
        }
        for row in rows:
            first = min((when for code, when, _, of, _ in past if of == row and code != OP_PRE_LOG), default=math.nan)
            last = max(
                (when for code, when, _, of, _ in past if of == row and code == OP_INTERACTION), default=math.nan
            )
            read["item_age"].append(at - first if row != UNKNOWN_ROW else math.nan)
            read["since_interaction"].append(at - last if row != UNKNOWN_ROW else math.nan)
            read["counters"] += reference_counters(past, row, at, spec)
        reads.append(read)
    return reads


def reference_counters(
    past: list[tuple[int, float, int, int, float]], row: int, at: float, spec: StateSpec
) -> list[float]:
    if row == UNKNOWN_ROW:
        return [math.nan] * spec.width
    counters = []
    for entity in ENTITIES:
        for kind in COUNTER_KINDS:
            for half in spec.half_lives_h:
                total = 0.0
                for code, when, _, of, share in past:
                    if (
                        code
                        != {
                            "impressions": OP_IMPRESSION,
                            "uniform_share": OP_IMPRESSION,
                            "interactions": OP_INTERACTION,
                            "pre_log": OP_PRE_LOG,
                        }[kind]
                    ):
                        continue
                    times = {"item": of == row, "category": len(set(CATEGORIES[row]) & set(CATEGORIES[of])), "all": 1}
                    worth = times[entity] * (share if kind == "uniform_share" else 1.0)
                    total += worth * 2 ** (-(at - when) / (half * HOUR))
                counters.append(total)
    return counters


@st.composite
def operations(draw: st.DrawFn) -> list[Op]:
    """Operations mostly in order of time, some late by hours; reads as of the latest moment so far."""
    now, listed = START, []
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0.0, 1.0, 600.0, 5 * HOUR, 100 * HOUR]))
        code = draw(st.sampled_from([OP_IMPRESSION, OP_INTERACTION, OP_INTERACTION, OP_PRE_LOG, OP_READ]))
        late = draw(st.sampled_from([0.0, 0.0, 0.0, 60.0, 3 * HOUR])) if code != OP_READ else 0.0
        size = draw(st.integers(0, 4)) if code in (OP_IMPRESSION, OP_READ) else 1
        rows = draw(st.lists(st.integers(UNKNOWN_ROW, ITEMS - 1), min_size=size, max_size=size))
        listed.append((code, now - late, draw(st.integers(UNKNOWN_ROW, 2)), rows))
    listed.append((OP_READ, now, draw(st.integers(UNKNOWN_ROW, 3)), [*range(ITEMS), UNKNOWN_ROW]))
    return listed


@settings(deadline=None, max_examples=60)
@given(listed=operations())
def test_the_kernel_against_a_slow_reference(listed: list[Op]) -> None:
    batch = BehaviouralState(CATALOGUE, SPEC).replay(ops_of(listed))
    expected = reference_reads(listed, SPEC)
    assert len(batch.at) == len(expected)
    for r, read in enumerate(expected):
        lines = slice(int(batch.offsets[r]), int(batch.offsets[r + 1]))
        found = len(read["history"])
        assert batch.history[r, :found].tolist() == read["history"]
        assert batch.history_at[r, :found].tolist() == read["history_at"]
        assert np.all(batch.history[r, found:] == UNKNOWN_ROW)
        assert np.all(np.isnan(batch.history_at[r, found:]))
        assert batch.interaction_count[r] == read["interaction_count"][0]
        assert batch.impressions[lines].tolist() == read["impressions"]
        np.testing.assert_allclose(batch.item_age[lines], read["item_age"], rtol=1e-6)
        np.testing.assert_allclose(batch.since_interaction[lines], read["since_interaction"], rtol=1e-6)
        np.testing.assert_allclose(batch.counters[lines].ravel(), read["counters"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", [SPEC, FULL], ids=["built-in counters", "custom counters"])
def test_a_single_ranking_and_a_log_of_it_give_the_same_bits(spec: StateSpec) -> None:
    whole, one_by_one = BehaviouralState(CATALOGUE, spec), BehaviouralState(CATALOGUE, spec)
    users = Vocabulary()
    for n, items in enumerate((("i0", "i3", "no item"), ("i4",), ("i0", "i1", "i2"))):
        event = RankingEvent(f"r{n}", 1_700_000_000_123 + 77_777 * n, items, user=("ann", None, "bob")[n])
        whole.advance(events_to_table([event], CATALOGUE.ids, users))
        one_by_one.observe_ranking(event.timestamp / 1000, users.row(event.user), -1, CATALOGUE.ids.rows(items))
    saved = whole.arrays()
    for name, array in one_by_one.arrays().items():
        assert array.tobytes() == saved[name].tobytes(), name


def test_a_hand_computed_case() -> None:
    batch = BehaviouralState(CATALOGUE, SPEC).replay(
        ops_of(
            [
                (OP_IMPRESSION, START, 0, [0, 1, 2, 3]),
                (OP_INTERACTION, START + HOUR / 2, 0, [1]),
                (OP_READ, START + HOUR, 0, [1, 2]),
                (OP_INTERACTION, START + HOUR, 0, [1]),  # after the read, so it must not count
            ]
        )
    )

    def counter(entity: str, kind: str, half: float) -> list[float]:
        return batch.counters[:, SPEC.counter_column(entity, kind, half)].tolist()

    assert counter("item", "impressions", 0.5) == [0.25, 0.25]
    assert counter("item", "uniform_share", 0.5) == [0.0625, 0.0625]
    assert counter("item", "interactions", 0.5) == [0.5, 0]
    assert counter("item", "interactions", math.inf) == [1, 0]
    assert counter("category", "impressions", math.inf) == [4, 0]  # x of two items shown and y of two; none for item 2
    assert counter("all", "impressions", math.inf) == [4, 4]
    assert counter("all", "uniform_share", math.inf) == [1, 1]
    assert counter("all", "pre_log", math.inf) == [0, 0]
    assert batch.impressions.tolist() == [1, 1]
    assert batch.item_age.tolist() == [3600, 3600]
    assert str(batch.since_interaction.tolist()) == "[1800.0, nan]"
    assert (batch.history[0, 0], batch.interaction_count[0]) == (1, 1)


@pytest.mark.parametrize(
    "length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 5 * BLOCK_BYTES + 3]
)
def test_a_history_across_blocks(length: int) -> None:
    state = BehaviouralState(CATALOGUE, SPEC)
    rows = [n % ITEMS for n in range(length)]
    for n, row in enumerate(rows):  # two users take blocks in turn
        state.observe(ops_of([(OP_INTERACTION, START + n, 0, [row]), (OP_PRE_LOG, START + n, 1, [ITEMS - 1 - row])]))
    items, times = state.history(0)
    assert items.tolist() == rows[::-1]
    assert times.tolist() == [START + n for n in range(length)][::-1]
    assert state.history(1)[0].tolist() == [ITEMS - 1 - row for row in rows[::-1]]
    assert len(state.history(2)[0]) == len(state.history(UNKNOWN_ROW)[0]) == len(state.history(10**6)[0]) == 0


def test_impression_counts_look_back_a_limited_time() -> None:
    state = BehaviouralState(CATALOGUE, SPEC)
    state.observe(ops_of([(OP_IMPRESSION, START, 0, [0, 1, 0])]))
    state.observe(ops_of([(OP_IMPRESSION, START, 0, [2])] * (MAX_RECENT_IMPRESSIONS - 2)))
    batch = state.read([ResolvedRequest(at=START, user=0)], [np.arange(3, dtype=np.int32)])
    assert batch.impressions.tolist() == [1, 1, MAX_RECENT_IMPRESSIONS - 2]


def test_popularity_without_interactions_is_zero() -> None:
    for halves in ((1.0, math.inf), (1.0, 24.0)):
        state = BehaviouralState(CATALOGUE, StateSpec(half_lives_h=halves))
        assert state.popularity(START).tolist() == [0] * ITEMS
        state.observe(
            ops_of(
                [(OP_INTERACTION, START, 0, [3]), (OP_PRE_LOG, START, UNKNOWN_ROW, [3]), (OP_PRE_LOG, START, 0, [1])]
            )
        )
        assert state.popularity(START).tolist() == [0, 1, 0, 2, 0]
    assert state.popularity(START + 24 * HOUR).tolist() == [0, 0.5, 0, 1, 0]


def test_an_empty_state_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one, all above 0"):
        StateSpec(half_lives_h=(0.0,))
    with pytest.raises(ValueError, match="history_length is 0; expected at least 1"):
        StateSpec(history_length=0)


# --- replay and the live state --------------------------------------------------------------------------------------


def same(a: Batch, b: Batch, but: tuple[str, ...] = ()) -> None:
    for column in fields(Batch):
        if column.name in but:
            continue
        first, second = getattr(a, column.name), getattr(b, column.name)
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype, column.name
            assert np.array_equal(first, second, equal_nan=first.dtype.kind == "f"), column.name
        else:
            assert first == second, column.name


def random_events(seed: int, length: int = 150) -> list[Event]:
    random = np.random.default_rng(seed)
    events: list[Event] = []
    now = int(START * 1000)
    for n in range(length):
        now += int(random.integers(0, 5_000_000)) * int(random.integers(0, 2))  # half of them at the same moment
        user = None if random.random() < 0.1 else f"u{random.integers(0, 8)}"
        names = [f"i{row}" for row in random.permutation(ITEMS + 2)]  # two that the catalogue does not know
        if random.random() < 0.4:
            events.append(RankingEvent(f"r{n}", now, tuple(names[: random.integers(1, 5)]), user))
        else:
            kind = HISTORY_TYPE if n < 20 else KINDS[int(random.integers(0, len(KINDS)))]
            events.append(InteractionEvent(f"c{n}", now, names[0], kind, user=user))
    return events


def query_times(log: EventTable, candidates: list[Rows]) -> PointInTimeQueries:
    """A query before each event, for its user, and one at the end for the unknown user."""
    happened = operations_of(log)
    sizes = [len(rows) for rows in candidates]
    return PointInTimeQueries(
        before_event=np.arange(len(log) + 1),
        at=np.append(log.at, log.at[-1] + 5),
        user=np.append(happened.user, np.int32(UNKNOWN_ROW)).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        rows=np.concatenate(candidates).astype(np.int32),
    )


def request_of(batch: Batch, r: int) -> Batch:
    """One request of a batch."""
    lines = slice(int(batch.offsets[r]), int(batch.offsets[r + 1]))
    return Batch(
        at=batch.at[r : r + 1],
        rows=batch.rows[lines],
        offsets=np.array([0, lines.stop - lines.start]),
        history=batch.history[r : r + 1],
        history_at=batch.history_at[r : r + 1],
        interaction_count=batch.interaction_count[r : r + 1],
        impressions=batch.impressions[lines],
        item_age=batch.item_age[lines],
        since_interaction=batch.since_interaction[lines],
        counters=batch.counters[lines],
        custom_counters=batch.custom_counters[lines],
        disliked=batch.disliked[r : r + 1],
        disliked_at=batch.disliked_at[r : r + 1],
        dislikes=batch.dislikes[lines],
    )


@pytest.mark.parametrize("seed", range(4))
def test_replay_is_the_live_feed_bit_for_bit(seed: int) -> None:
    events = random_events(seed)
    log = events_to_table(events, CATALOGUE.ids, as_arrived=True)
    random = np.random.default_rng(seed)
    candidates = [
        random.integers(UNKNOWN_ROW, ITEMS, random.integers(0, 7)).astype(np.int32) for _ in range(len(log) + 1)
    ]  # fmt: skip
    moments = query_times(log, candidates)
    replayed = BehaviouralState(CATALOGUE, FULL).replay_log(log, moments)

    live = BehaviouralState(CATALOGUE, FULL)
    users = log.users
    for r, rows in enumerate(candidates):
        user = int(moments.user[r])
        history, times = live.history(user)
        request = ResolvedRequest(float(moments.at[r]), user, history, times, history)
        same(live.read([request], [rows]), request_of(replayed, r))
        if r < len(events):
            live.advance(events_to_table([events[r]], CATALOGUE.ids, users))
    assert np.array_equal(live.popularity(START * 2), _replayed(log).popularity(START * 2))


def _replayed(log: EventTable) -> BehaviouralState:
    state = BehaviouralState(CATALOGUE, FULL)
    state.advance(log)
    return state


@pytest.mark.parametrize("step", [1, 7, 60])
def test_observing_in_chunks_is_observing_at_once(step: int) -> None:
    log = events_to_table(random_events(9, 200), CATALOGUE.ids)
    ops = operations_of(log, custom_counters.interaction_types(COUNTERS))
    at_once, in_chunks = _replayed(log), BehaviouralState(CATALOGUE, FULL)
    for first in range(0, len(log), step):
        part = slice(first, first + step)
        cut = {name: getattr(ops, name)[part] for name in ("code", "at", "user", "start", "stop", "type_bits")}
        in_chunks.observe(ops._replace(**cut))
    requests = [ResolvedRequest(at=float(log.at[-1]), user=user) for user in range(len(log.users))]
    rows = [np.arange(ITEMS, dtype=np.int32)] * len(requests)
    same(at_once.read(requests, rows), in_chunks.read(requests, rows))
    for user in range(len(log.users)):
        for a, b in zip(at_once.history(user), in_chunks.history(user), strict=True):
            assert np.array_equal(a, b)


def test_users_and_the_block_pool_grow() -> None:
    state = BehaviouralState(CATALOGUE, SPEC)
    interacted: dict[int, list[int]] = {}
    random = np.random.default_rng(0)
    for n in range(400):
        user = int(random.integers(0, n + 1))
        row = int(random.integers(0, ITEMS))
        state.observe(ops_of([(OP_INTERACTION, START + n, user, [row])]))
        interacted.setdefault(user, []).append(row)
    for user in range(400):
        assert state.history(user)[0].tolist() == interacted.get(user, [])[::-1]
    batch = state.read([ResolvedRequest(at=START + 400, user=10_000)], [np.zeros(1, np.int32)])
    assert batch.impressions.tolist() == [0]


def test_queries_must_be_in_order_of_time() -> None:
    log = events_to_table(random_events(1, 5), CATALOGUE.ids)
    nothing = np.zeros(0, np.int32)
    backwards = PointInTimeQueries(np.array([3, 1]), np.zeros(2), np.zeros(2, np.int32), np.zeros(3, np.int64), nothing)
    with pytest.raises(ValueError, match="found point-in-time queries out of order"):
        insert_reads(operations_of(log), backwards)
    none = PointInTimeQueries(np.zeros(0, np.int64), np.zeros(0), nothing, np.zeros(1, np.int64), nothing)
    assert np.array_equal(insert_reads(operations_of(log), none).code, operations_of(log).code)


def test_a_request_brings_its_own_history_and_query() -> None:
    state = BehaviouralState(CATALOGUE, SPEC)
    state.observe(ops_of([(OP_INTERACTION, START, 0, [0])]))
    own = np.arange(20, dtype=np.int32) % ITEMS
    requests = [
        ResolvedRequest(START, 0, own, np.arange(20.0), own, query="shoes", query_vector=np.ones(3, np.float32)),
        ResolvedRequest(START, 0),
    ]
    batch = state.read(requests, [np.zeros(1, np.int32), np.zeros(0, np.int32)])
    assert batch.history[0].tolist() == own[: SPEC.history_length].tolist()
    assert batch.interaction_count.tolist() == [20, 0]
    assert batch.history[1].tolist() == [UNKNOWN_ROW] * SPEC.history_length
    assert batch.queries == ("shoes", "")
    assert batch.query_vectors is not None
    assert str(batch.query_vectors.tolist()) == "[[1.0, 1.0, 1.0], [nan, nan, nan]]"


def reference_counter_parts(log: EventTable, moment: int, moments: PointInTimeQueries, row: int) -> list[float]:
    """Compute the sums of every custom counter for one candidate, from all earlier events."""
    user, at = int(moments.user[moment]), float(moments.at[moment])
    happened: list[tuple[str, float, int, int]] = []
    for position in log.event_order[: moments.before_event[moment]].tolist():
        if position < len(log.interactions):
            of = log.interactions
            kind = log.types.name(int(of.type[position]))
            event = (kind, float(of.at[position]), int(of.user[position]), int(of.item[position]))
            again = [(event[1] - when, who, one) for name, when, who, one in happened if name == IMPRESSION]
            if kind == "view_item_list" and not any(
                abs(late) <= HOUR / 2 and (who, one) == event[2:] and who != UNKNOWN_ROW for late, who, one in again
            ):
                happened.append((IMPRESSION, *event[1:]))
            happened.append(event)
        else:
            r = position - len(log.interactions)
            shown = log.rankings.items[log.rankings.offsets[r] : log.rankings.offsets[r + 1]].tolist()
            happened += [(IMPRESSION, float(log.rankings.at[r]), int(log.rankings.user[r]), one) for one in shown]
    happened = [event for event in happened if event[3] != UNKNOWN_ROW]
    parts: list[float] = []
    for counter in COUNTERS:
        codes = {"item": [[n] for n in range(ITEMS)], "category": CATEGORIES, "size": SIZES, "": [[0]] * ITEMS}[
            counter.item_field
        ]
        for half in (*counter.half_lives_h, *[None] * (3 - len(counter.half_lives_h))):
            sums = [0.0] * 4
            for kind, when, who, of_row in happened if half else ():
                worth = 2 ** (-(at - when) / (half * HOUR))
                shared = len(set(codes[of_row]) & set(codes[row]))  # type: ignore[call-overload]
                for part, types in enumerate((counter.types, counter.rate_over)):
                    if kind in types and not (counter.per_user and who == UNKNOWN_ROW):
                        sums[2 + part] += worth
                        sums[part] += worth * shared * (not counter.per_user or who == user)
            parts += sums
    return parts


@pytest.mark.parametrize("seed", range(3))
def test_custom_counters_equal_a_slow_reference(seed: int) -> None:
    log = events_to_table(random_events(seed), CATALOGUE.ids)
    moments = query_times(log, [np.arange(ITEMS, dtype=np.int32)] * (len(log) + 1))
    batch = BehaviouralState(CATALOGUE, FULL).replay_log(log, moments)
    for moment in (3, 50, 149, 150):
        expected = [reference_counter_parts(log, moment, moments, row) for row in range(ITEMS)]
        found = batch.custom_counters[moment * ITEMS : (moment + 1) * ITEMS]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    inputs = FamilyInputs(None, FULL, np.empty(0, np.float32), {})  # type: ignore[arg-type]  # it needs no item model
    columns_ = {feature.name: column for feature, column in rates.custom_counters(batch, inputs).items()}
    assert list(columns_) == [
        "clicks_2h", "clicks_all", "rate_24h", "mine_0.5h", "mine_1h", "mine_all", "active_7d", "size_7d", "my_size_7d",
    ]  # fmt: skip
    count, per, total, total_per = batch.custom_counters[:, 12:16].T
    np.testing.assert_allclose(
        columns_["rate_24h"], (count + 3 * (total + 1) / (total_per + 20)) / (per + 3), rtol=1e-5
    )
    np.testing.assert_allclose(columns_["mine_all"], np.log1p(batch.custom_counters[:, 32]), rtol=1e-6)


def test_sums_survive_a_landmark_that_moves() -> None:
    spec = StateSpec(half_lives_h=(1.0,), counters=(CounterSpec("c", "user x item", ("click",), half_lives_h=(1.0,)),))
    state = BehaviouralState(CATALOGUE, spec)
    interacted = [START, START + 205 * HOUR, START + 206 * HOUR]  # past two hundred half-lives
    for n, at in enumerate(interacted):
        event = InteractionEvent(f"c{n}", int(at * 1000), "i0", "click", user="ann")
        state.advance(events_to_table([event], CATALOGUE.ids, Vocabulary(["ann"])))
    batch = state.read([ResolvedRequest(at=interacted[-1] + HOUR, user=0)], [np.zeros(1, np.int32)])
    assert batch.counters[0, spec.counter_column("item", "interactions", 1.0)] == pytest.approx(0.75)
    assert batch.custom_counters[0, 0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": ""}, "name is empty"),
        ({"types": ()}, "counts no types"),
        ({"half_lives_h": (0.0,)}, "all above 0"),
        ({"half_lives_h": ()}, "at least one"),
        ({"smoothing": -1.0}, "smoothing is -1.0"),
        ({"entity": "item x category"}, "entity is 'item x category'; expected item, user"),
        ({"entity": "user x user"}, "entity is"),
        ({"entity": ""}, "entity is"),
    ],
)
def test_an_invalid_counter_is_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CounterSpec(**{"name": "x", **settings})  # type: ignore[arg-type]


def test_counters_that_conflict_are_refused() -> None:
    with pytest.raises(ValueError, match="two counters are named a"):
        StateSpec(counters=(CounterSpec("a"), CounterSpec("a", "user")))
    with pytest.raises(ValueError, match="32 counters are declared; expected at most 31"):
        StateSpec(counters=tuple(CounterSpec(str(n)) for n in range(32)))
    with pytest.raises(ValueError, match="item field 'colour', which no item has"):
        BehaviouralState(CATALOGUE, StateSpec(counters=(CounterSpec("a", "colour"),)))


@settings(max_examples=30, deadline=None)
@given(
    entries=st.lists(st.tuples(st.integers(0, 99_999), st.integers(-(10**6), 10**9)), min_size=1, max_size=60),
    depth=st.integers(1, 70),
)
def test_a_history_returns_what_was_appended(entries: list[tuple[int, int]], depth: int) -> None:
    items = 100_000
    chain = history_store.empty_store()
    chain = chain._replace(
        **{name: zero_padded(getattr(chain, name), 1) for name in ("heads", "fills", "lengths", "latest")},
        previous=zero_padded(chain.previous, len(entries)),
        pool=zero_padded(chain.pool, len(entries)),
    )
    for row, at in entries:
        history_store.append(chain, 0, history_store.INTERACTIONS, row, at + 0.75, items)
    rows, times = np.full(depth, -1, np.int32), np.full(depth, np.nan)
    count = history_store.read(chain, 0, history_store.INTERACTIONS, items, rows, times)
    assert count == min(depth, len(entries))
    assert list(zip(rows[:count].tolist(), times[:count].tolist(), strict=True)) == entries[::-1][:depth]
    assert history_store.read(chain, 0, history_store.IMPRESSIONS, items, rows, times) == 0


def test_a_restored_state_continues_like_the_original() -> None:
    log = events_to_table(random_events(5, 200), CATALOGUE.ids)
    first, rest = BehaviouralState(CATALOGUE, FULL), events_to_table(random_events(6, 50), CATALOGUE.ids, log.users)
    first.advance(log)
    second = BehaviouralState(CATALOGUE, FULL)
    second.restore({name: array.copy() for name, array in first.arrays().items()})
    for state in (first, second):
        state.advance(rest)
    for (name, a), b in zip(first.arrays().items(), second.arrays().values(), strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name
    with pytest.raises(ValueError, match=r"another version|expected"):
        BehaviouralState(CATALOGUE, SPEC).restore(first.arrays())
    fewer = Catalogue.from_items({"a": {"category": ["x", "y", "z"], "size": "s"}})
    with pytest.raises(ValueError, match=r"the shape .*, expected"):
        BehaviouralState(fewer, FULL).restore(first.arrays())
