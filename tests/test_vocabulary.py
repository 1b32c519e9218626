"""The vocabulary: strings to rows and back, in order of arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW


@given(names=st.lists(st.text(max_size=3)), others=st.lists(st.text(max_size=3)))
def test_rows_are_given_once_in_order_of_arrival(names: list[str], others: list[str]) -> None:
    ids = Vocabulary(names)
    distinct = list(dict.fromkeys(names))
    assert list(ids) == distinct
    assert len(ids) == len(distinct)
    assert ids.rows(distinct).tolist() == list(range(len(distinct)))
    assert ids.names(ids.rows(names)) == names
    assert [ids.name(row) for row in range(len(ids))] == distinct
    assert ids.rows(others).tolist() == [distinct.index(name) if name in distinct else UNKNOWN_ROW for name in others]
    assert [name in ids for name in others] == [name in distinct for name in others]
    before = {name: ids.row(name) for name in distinct}
    for name in others:
        assert ids.add(name) == ids.row(name)
    assert {name: ids.row(name) for name in distinct} == before


def test_unknown_ids_have_no_row() -> None:
    assert Vocabulary().row("a") == UNKNOWN_ROW
    assert Vocabulary(["a"]).row(None) == UNKNOWN_ROW
    assert Vocabulary().rows([]).dtype == "int32"
