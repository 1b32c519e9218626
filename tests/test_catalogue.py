"""The catalogue: fields to columns and back, events folded by time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import ItemEvent

NAMES = st.text("abcd", min_size=1, max_size=2)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": NAMES,
        "text": NAMES,
        "category": st.lists(NAMES, min_size=1, max_size=4, unique=True),
        "tags": st.lists(NAMES, min_size=1, max_size=3),
        "published": st.integers(-(10**13), 10**13).map(float),
        "colour": st.text(max_size=2) | st.floats(allow_nan=False) | st.booleans() | st.lists(NAMES),
    },
)


def same(a: Catalogue, b: Catalogue) -> bool:
    columns = ("published", "category_codes", "category_offsets")
    return (
        all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "published") for name in columns)
        and (a.titles, a.texts, a.tags, a.fields) == (b.titles, b.texts, b.tags, b.fields)
        and (list(a.ids), list(a.categories)) == (list(b.ids), list(b.categories))
    )


@given(items=st.dictionaries(NAMES, FIELDS, max_size=6))
def test_the_round_trip_is_exact(items: dict[str, dict[str, FieldValue]]) -> None:
    catalogue = Catalogue.from_items(items)
    assert catalogue.to_items() == items
    assert same(Catalogue.from_items(catalogue.to_items()), catalogue)


@given(items=st.dictionaries(NAMES, FIELDS, max_size=6), wanted=st.lists(NAMES, max_size=3))
def test_items_by_category(items: dict[str, dict[str, Any]], wanted: list[str]) -> None:
    catalogue = Catalogue.from_items(items)
    found = catalogue.rows_in_categories(catalogue.categories.rows(wanted))
    expected = [row for row, fields in enumerate(items.values()) if set(fields.get("category", [])) & set(wanted)]
    assert found.tolist() == expected


def test_category_names_are_kept_in_their_order_once_each() -> None:
    catalogue = Catalogue.from_items(
        {
            "a": {"category": ["x", "", "y", "x"]},
            "b": {"category": ["y", "x"]},
            "c": {"category": ""},
            "d": {"category": "z"},
        }
    )
    assert [catalogue.category_names(row) for row in range(4)] == [["x", "y"], ["y", "x"], [], ["z"]]
    assert list(catalogue.categories) == ["x", "y", "z"]
    assert Catalogue.from_items({"a": {"tags": ["", "t"]}}).tags == (("t",),)


def test_a_late_older_event_does_not_overwrite_a_newer_one() -> None:
    events = [
        ItemEvent("1", 10, "b", {"title": "B at 10"}),
        ItemEvent("2", 30, "a", {"title": "A at 30"}),
        ItemEvent("3", 20, "a", {"title": "A at 20", "text": "from 20"}),
        ItemEvent("4", 30, "a", {"title": "A at 30, later"}),
        ItemEvent("5", 5, "b", {"title": "B at 5", "tags": ["old"]}),
    ]
    catalogue = Catalogue.from_events(iter(events))
    assert catalogue.to_items() == {
        "b": {"title": "B at 10", "tags": ["old"]},
        "a": {"title": "A at 30, later", "text": "from 20"},
    }


@given(moments=st.lists(st.tuples(NAMES, NAMES), max_size=8), seed=st.integers(0, 100))
def test_arrival_gives_the_rows_and_time_the_fields(moments: list[tuple[str, str]], seed: int) -> None:
    events = [ItemEvent(str(time), time, item, {"title": title}) for time, (item, title) in enumerate(moments)]
    in_order = Catalogue.from_events(events)
    arrived = random.Random(seed).sample(events, len(events))
    catalogue = Catalogue.from_events(arrived)
    assert catalogue.to_items() == in_order.to_items()
    assert list(catalogue.ids) == list(dict.fromkeys(event.item for event in arrived))


def test_documents_join_the_fields_of_an_item() -> None:
    catalogue = Catalogue.from_items(
        {
            "a": {"title": "T", "text": "Body", "category": ["x", "y"], "tags": ["t"], "by": ["u", "v"]},
            "b": {"text": "B"},
        }
    )
    assert catalogue.documents() == ["T. Body. x y", "B"]
    assert catalogue.documents(("tags", "by", "absent")) == ["t. u v", ""]
    assert Catalogue.from_items({}).documents() == []


def test_columns_of_other_lengths_are_refused() -> None:
    catalogue = Catalogue.from_items({"a": {}})
    columns = {name: getattr(catalogue, name) for name in catalogue.__dataclass_fields__}
    with pytest.raises(ValueError, match="titles has 2 entries for 1 items"):
        Catalogue(**columns | {"titles": ("A", "B")})
    with pytest.raises(ValueError, match="category_offsets has 1 bounds for 1 items"):
        Catalogue(**columns | {"category_offsets": np.zeros(1, np.int64)})
