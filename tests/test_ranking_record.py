"""The record of a ranking: it is restored from its event, and any event of another shape is read without an error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import ItemEvent, RankingEvent
from feedrank.engine.events.logged_features import LoggedRows, encode_scores
from feedrank.engine.journal.legacy import upgrade
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.serving.ranking_record import RankingRecord, RecallRecord
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest

NAMES = st.text(min_size=1, max_size=6)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | FINITE | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SERVED_KEYS = (
    "offset", "items_offset", "recall", "fallback", "degraded", "cross_encoder_scores", "experiments", "arm_overrides",
    "interleaving", "ranks", "options", "logged",
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> RecommendationRequest:
    lists = st.none() | st.lists(NAMES, max_size=3, unique=True).map(tuple)
    items = draw(lists)
    values = st.tuples(*[st.none() | NAMES | FINITE | st.lists(FINITE, max_size=2)] * len(items or ()))
    columns = draw(st.dictionaries(st.sampled_from(["price", "bid"]), values, max_size=2))
    return RecommendationRequest(
        user=draw(st.none() | NAMES),
        session=draw(st.none() | NAMES),
        query=draw(st.text(max_size=5)),
        history=draw(lists),
        items=items,
        item_fields={name: column for name, column in columns.items() if any(v is not None for v in column)} or None,
        n=draw(st.integers(1, 200)),
        filters=FilterSpec(draw(st.booleans()), draw(lists), draw(lists), draw(st.lists(NAMES, max_size=2).map(tuple))),
        diversity=Diversity(draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 0.25]))),
        surface=draw(st.none() | NAMES),
        context=draw(st.dictionaries(st.sampled_from(["device", "hour"]), NAMES | FINITE, max_size=2)),
    )


@st.composite
def records(draw: st.DrawFn) -> RankingRecord:
    request = draw(requests())
    shown = st.lists(NAMES if not request.items else NAMES | st.sampled_from(request.items), min_size=1, unique=True)
    items = tuple(draw(shown))[:4]
    n = len(items)
    scores = st.tuples(*[FINITE] * n)
    rows = draw(st.none() | st.integers(1, 3))
    features = None if rows is None else LoggedRows.encode("digest", np.ones((n, rows), np.float32))
    recall_scores = draw(st.tuples(*[FINITE | st.none()] * n))
    ranks = draw(st.sampled_from([(), (tuple(range(n)), tuple([-1] * n))]))
    return RankingRecord(
        id=draw(NAMES),
        timestamp=draw(st.integers(0, 10**13)),
        request=request,
        items=items,
        scores=draw(scores),
        bundle=draw(NAMES),
        recall=RecallRecord(draw(NAMES), items, recall_scores, draw(st.integers(0, 1000))),
        offset=draw(st.integers(0, 10**6)),
        items_offset=draw(st.integers(0, 10**6)),
        fallback=draw(st.sampled_from(["full", "popular"])),
        degraded=tuple(draw(st.lists(st.sampled_from(["rank", "encode_query"]), max_size=2))),
        features=features,
        cross_encoder_scores=encode_scores(np.array(draw(st.lists(FINITE, max_size=3)), np.float32)),
        experiments=tuple(draw(st.lists(st.tuples(NAMES, NAMES), max_size=2))),
        arm_overrides=draw(st.sampled_from([{}, {"candidates": 20}])),
        interleaving=draw(st.sampled_from(["", "balanced"])),
        team=draw(st.none() | st.tuples(*[st.text(max_size=3)] * n)),
        ranks=ranks,
        propensities=draw(st.none() | st.tuples(*[st.floats(0.001, 1)] * n)),
        seed=draw(st.none() | st.integers(0, 2**32)),
        logged=draw(st.booleans()),
    )


@given(records())
def test_a_record_comes_back_from_its_event(record: RankingRecord) -> None:
    body = json.loads(json.dumps(to_dict(record.to_event())))
    assert RankingRecord.find_own(parse(body)) == record
    assert upgrade(body) == body, "what is written today is not taken for an older version's"


@given(
    st.dictionaries(st.sampled_from(SERVED_KEYS), ANYTHING), st.none() | st.dictionaries(NAMES, ANYTHING, max_size=3)
)
def test_any_event_is_read(served: dict[str, Any], features: dict[str, Any] | None) -> None:
    event = RankingEvent("r", 1, ("a", "b"), "u", served=served, features=features)
    record = RankingRecord.from_event(event)
    assert (record.id, record.items, record.user) == ("r", ("a", "b"), "u")
    for name in ("experiments", "ranks", "degraded"):
        if not isinstance(served.get(name, []), list):
            assert name in record.malformed
            assert getattr(record, name) == ()


def test_the_fields_of_items_that_are_not_shown_are_logged_too() -> None:
    request = RecommendationRequest(
        items=("a", "b", "c"), item_fields={"price": (1.0, 2.0, None), "bid": (None, 5.0, 6.0)}
    )
    record = RankingRecord("r", 5, request, ("c", "a"), (2.0, 1.0), "toy", RecallRecord("explicit"))
    event = record.to_event()
    assert event.item_fields == {"price": (None, 1.0), "bid": (6.0, None)}
    assert (event.served or {})["options"]["item_fields"] == {"price": [2.0], "bid": [5.0]}
    assert RankingRecord.from_event(event).request == request
    whole = RankingRecord("r", 5, request, ("c", "a", "b"), (2.0, 1.0, 0.0), "toy", RecallRecord("explicit")).to_event()
    assert "item_fields" not in (whole.served or {})["options"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"price": (1.0,)}, "item_fields.price: found 1 values, expected 2"),
        ({"price": (1.0, float("nan"))}, r"item_fields.price\[1\]: found nan"),
        ({"price": (1.0, {})}, r"item_fields.price\[1\]: found {}"),
        ({"": (1.0, 2.0)}, "item_fields: found the name ''"),
        ({"\ud800": (1.0, 2.0)}, "item_fields: found "),
        ({"title": ("x" * 2_001, None)}, r"item_fields.title\[0\]: .* texts of at most 2,000"),
        ({f"f{n}": (1.0, 2.0) for n in range(1_001)}, "item_fields: found 1,001 fields"),
    ],
)
def test_fields_that_could_not_be_read_back_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(EventError, match=message):
        RecommendationRequest(items=("a", "b"), item_fields=fields).check("r")
    with pytest.raises(EventError, match="expected `items` as well"):
        RecommendationRequest(item_fields=fields).check("r")


def test_an_imported_ranking_has_what_its_event_says() -> None:
    event = RankingEvent("r", 5, ("a",), "u", "s", propensities=(0.5,), experiment="e", variant="v", surface="home")
    record = RankingRecord.from_event(event)
    assert (record.propensities, record.variant_of("e"), record.surface, record.session) == ((0.5,), "v", "home", "s")
    assert (record.scores, record.bundle, record.offset, record.malformed) == ((None,), "", None, ())


@pytest.mark.parametrize(
    "event",
    [
        None,
        ItemEvent("i", 0, "a"),
        RankingEvent("r", 0, ("a",)),
        RankingEvent("r", 0, ("a",), bundle="b", scores=(1.0,)),
    ],
    ids=["none", "item", "bare", "no source"],
)
def test_other_events_are_not_this_service_s_own(event: Any) -> None:
    assert RankingRecord.find_own(event) is None


def test_logged_rows_are_read_only_if_they_fit() -> None:
    matrix = np.array([[1, np.nan], [3, 4]], np.float32)
    rows = LoggedRows.from_json(LoggedRows.encode("f", matrix).to_json(), 2)
    assert rows is not None
    np.testing.assert_array_equal(rows.decode(2), matrix)
    assert rows.decode(3) is None
    assert LoggedRows.from_json(rows.to_json(), 3) is None
    damaged = LoggedRows("f", 2, "*")
    assert (damaged.decode(2), damaged.to_bytes()) == (None, None)
