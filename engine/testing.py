"""Conformance checks for custom back ends, on toy data whose correct results are known by construction.

Each check takes a function that builds the back end. It raises AssertionError with what was found and expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.protocols import EventLog, Retriever, VectorIndex
from feedrank.engine.reader_check import check_reader as check_reader
from feedrank.engine.retrieval.custom_index import CustomIndexType
from feedrank.engine.types import UNKNOWN_ROW, Filters, Matrix, ResolvedRequest, Rows, Scores

TOY_ITEMS = 60
TOY_DIMENSIONS = 8


def toy_vectors() -> Matrix:
    """Return (TOY_ITEMS, TOY_DIMENSIONS) unit vectors along a quarter circle: near rows are near in any metric."""
    return _arc_vectors(np.arange(TOY_ITEMS))


def toy_catalogue() -> Catalogue:
    """Return items `item 0`, `item 1`, ...; each in a category `third 0` to `third 2` and in `even` or `odd`."""
    return Catalogue.from_items(
        {
            f"item {row}": {"title": f"Title {row}", "category": [f"third {row % 3}", ("even", "odd")[row % 2]]}
            for row in range(TOY_ITEMS)
        }
    )


def check_vector_index(build: Callable[[Matrix], VectorIndex]) -> None:
    """Check that an index returns the k nearest vectors, best first, and all of them if k is larger.

    build: builds an index of the given (n, d) vectors. Raises AssertionError.
    """
    index = build(toy_vectors())
    for position in (0.0, 0.3, 17.3, 30.8, 58.6, 59.0):
        vector = _arc_vectors(np.array([position]))[0]
        original = vector.copy()
        nearest = np.argsort(np.abs(np.arange(TOY_ITEMS) - position), kind="stable")
        for k in (1, 2, 10, TOY_ITEMS, 5 * TOY_ITEMS):
            rows, scores = index.search(vector, k)
            context = f"search near row {position} for k={k}"
            _check_columns(rows, scores, context)
            _check_equal(rows.tolist(), nearest[:k].tolist(), f"rows of the {context}")
            _check_descending(scores, context)
            again, _ = index.search(vector, k)
            _check_equal(again.tolist(), rows.tolist(), f"rows of the repeated {context}")
        _check_equal(
            vector.tolist(), original.tolist(), "the query vector after the search (an index must not change it)"
        )


def check_custom_index(index: Callable[..., VectorIndex], metric: str = "dot", **arguments: Any) -> None:
    """Check the class of a vector index of your own as `[index] kind` uses it: `index(vectors, metric, **arguments)`.

    Runs `check_vector_index`. If the class has `save` and `load`, it also checks that an index that is saved, moved to
    another folder and loaded finds the same. Raises AssertionError, or CustomIndexError if a call fails.
    """
    custom = CustomIndexType(getattr(index, "__qualname__", repr(index)), arguments, index)
    check_vector_index(lambda vectors: custom.build(vectors, metric))
    if not custom.is_saved:
        return
    vectors = toy_vectors()
    with TemporaryDirectory() as folder:
        saved, moved = Path(folder, "saved"), Path(folder, "moved")
        custom.write(saved, vectors, metric)
        saved.rename(moved)
        before = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
        check_vector_index(lambda _: custom.load(moved, vectors, metric))
        after = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
        _check(before == after, "found changed files after `load`, expected none: the files of a bundle never change")
        _check_equal(vectors.tolist(), toy_vectors().tolist(), "the vectors after `load` (they must not change)")


def check_retriever(
    build: Callable[[Catalogue], Retriever], expected_order: Callable[[ResolvedRequest], Sequence[int]] | None = None
) -> None:
    """Check that a retriever returns the k best candidates that pass the filters, or all of them, best first.

    build: builds a retriever of the toy catalogue. expected_order: returns all rows of a request in the expected order;
    None: any order that agrees with the scores. Raises AssertionError.
    """
    catalogue = toy_catalogue()
    retriever = build(catalogue)
    for filters in _toy_filters(catalogue):
        for history in ([20], [3, 4, 59], [41, 41, 0]):
            rows = np.array(history, np.int32)
            request = ResolvedRequest(
                at=1e9, user=0, history=rows, history_at=1e9 - np.arange(1.0, 4)[: len(history)],
                interacted=rows, disliked=np.array([5, 57], np.int32), filters=filters,
            )  # fmt: skip
            eligible = _eligible_rows(request)
            order = None if expected_order is None else [row for row in expected_order(request) if row in eligible]
            for k in (1, 7, TOY_ITEMS, 1000):
                candidates = retriever.retrieve(request, k)
                context = f"candidates of history {history} with {filters} for k={k}"
                _check_columns(candidates.rows, candidates.scores, context)
                found = candidates.rows.tolist()
                _check_equal(len(found), min(k, len(eligible)), f"number of the {context}")
                _check_equal([row for row in found if row not in eligible], [], f"excluded items among the {context}")
                _check_descending(candidates.scores, context)
                if order is not None:
                    _check_equal(found, order[:k], context)
                _check(bool(candidates.source), f"the {context} have no source, expected its name")
                _check_equal(
                    retriever.retrieve(request, k).rows.tolist(), found, f"repeated retrieval of the {context}"
                )


def check_event_log(build: Callable[[], EventLog]) -> None:
    """Check that a log keeps the order of writing, ignores repeated ids, and appends all events or none.

    build: the first call opens a new, empty log; later calls reopen the same one. Raises AssertionError.
    """
    log = build()
    first, second, third, fourth = toy_events()
    _check_equal(list(log.read()), [], "events of a new log (it must be empty)")
    _check_equal(log.append([]), [], "the result of an empty append")
    _check_equal(log.append(iter([first, second, first])), [True, True, False], "is_new of two events and a duplicate")
    changed = ItemEvent(first.id, first.timestamp + 1, "another item")
    _check_equal(log.append([changed, third]), [False, True], "is_new of a known id and a new one")
    _check_equal([event for _, event in log.read()], [first, second, third], "the events, in the order of writing")

    def broken() -> Iterator[Event]:
        yield fourth
        raise _SourceError

    try:
        log.append(broken())
    except _SourceError:
        pass
    else:
        raise AssertionError("append suppressed the error of its source, expected it to be raised")
    _check_equal([event for _, event in log.read()], [first, second, third], "the events after a failed append")
    _check_equal(log.append([fourth]), [True], "is_new of an event from a failed append")

    offsets = [offset for offset, _ in log.read()]
    _check(all(a < b for a, b in pairwise(offsets)), f"found offsets {offsets}, expected ascending ones")
    for index, offset in enumerate(offsets):
        _check_equal(list(log.read(since=offset)), list(log.read())[index + 1 :], f"the events since offset {offset}")
    _check_equal(list(build().read()), list(log.read()), "the events in the reopened log")
    _check_equal(log.find(second.id), second, "the event with a known id")
    _check_equal(log.find("no such id"), None, "the event with an unknown id")
    other_event = ItemEvent("by another", first.timestamp, "an item")
    own_event = ItemEvent("by this one", first.timestamp, "an item")
    log.append([other_event])
    _check_equal(log.record([own_event, first, own_event], 5_000), [True, False, False], "is_new of recorded events")
    recorded = replace(own_event, received=5_000)
    _check_equal([event for _, event in log.read(offsets[-1])], [other_event, recorded], "an event received now")
    last = ItemEvent("checked", first.timestamp, "an item")
    _check_equal(log.record([last], 4_000, checked=True), [True], "is_new of a checked event")
    _check_equal(
        log.find(last.id), replace(last, received=5_000), "an event that was recorded after the clock went back"
    )


def toy_events() -> tuple[Event, Event, Event, Event]:
    """Return four events of different kinds, with field values of every type, not in order of time."""
    fields: dict[str, Any] = {"title": "Crème brûlée 🍮", "category": ["a", "b"], "price": 2.5, "new": True}
    return (
        ItemEvent("item event", 4_000, "item", fields),
        RankingEvent("ranking event", 3_000, ("item", "other"), "ann", "s", {"q": "x"}, (1.0, 0.0), seed=2**60),
        InteractionEvent("interaction event", 3_000, "item", "click", "ranking event", "ann", None, {}, 4.5, 10.0, 1),
        UserEvent("user event", 1_000, "ann", {"vector": [0.5, -1.0]}),
    )


class _SourceError(Exception):
    """Raised by the source of events in the middle of an append."""


def _arc_vectors(positions: np.ndarray[Any, Any]) -> Matrix:
    angles = np.asarray(positions, np.float64) * (np.pi / 2 / TOY_ITEMS)
    vectors = np.zeros((len(angles), TOY_DIMENSIONS), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    return vectors


def _toy_filters(catalogue: Catalogue) -> list[Filters]:
    def rows(*values: int) -> Rows:
        return np.array(values, np.int32)

    odd, third = catalogue.categories.rows(["odd", "third 1"])[:, None]
    nearly_all = np.arange(TOY_ITEMS - 2, dtype=np.int32)
    return [
        Filters(),
        Filters(include_seen=True),
        Filters(include_disliked=True),
        Filters(categories=odd),
        Filters(categories=rows(*odd, *third), include_seen=True),
        Filters(categories=rows()),
        Filters(allow=rows(58, 20, 3, UNKNOWN_ROW, 7)),
        Filters(allow=rows(UNKNOWN_ROW)),
        Filters(allow=rows()),
        Filters(deny=rows(21, UNKNOWN_ROW, 19)),
        Filters(deny=nearly_all),
        Filters(include_seen=True, categories=third, allow=nearly_all, deny=rows(1, 4, 22, UNKNOWN_ROW)),
    ]


def _eligible_rows(request: ResolvedRequest) -> set[int]:
    """Return the rows that pass the filters, derived from the construction of the toy catalogue."""
    filters = request.filters
    eligible = set(range(TOY_ITEMS)) - set(filters.deny.tolist())
    if not filters.include_seen:
        eligible -= set(request.interacted.tolist())
    if not filters.include_disliked:
        eligible -= set(request.disliked.tolist())
    if filters.allow is not None:
        eligible &= set(filters.allow.tolist())
    if filters.categories is not None:
        # category codes are assigned in order of appearance: third 0, even, third 1, odd, third 2
        members = {0: (3, 0), 1: (2, 0), 2: (3, 1), 3: (2, 1), 4: (3, 2)}
        classes = [members[code] for code in filters.categories.tolist()]
        eligible = {row for row in eligible if any(row % modulus == remainder for modulus, remainder in classes)}
    return eligible


def _check_columns(rows: Rows, scores: Scores, context: str) -> None:
    _check_equal((rows.dtype, rows.ndim), (np.dtype(np.int32), 1), f"type and dimensions of the rows of the {context}")
    _check_equal(
        (scores.dtype, scores.shape), (np.dtype(np.float32), rows.shape), f"type and shape of scores of the {context}"
    )


def _check_descending(scores: Scores, context: str) -> None:
    _check(bool(np.all(np.isfinite(scores))), f"found scores {scores} of the {context}, expected finite numbers")
    descending = bool(np.all(scores[:-1] >= scores[1:]))
    _check(descending, f"found scores {scores} of the {context}, expected the highest first")


def _check_equal(found: object, expected: object, what: str) -> None:
    _check(found == expected, f"{what}: found {found}, expected {expected}")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
