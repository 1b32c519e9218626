"""Checks that a back end of one's own must pass, on toy worlds whose right answer is known by construction.

Each takes a function that makes the back end, and raises AssertionError with what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from engine.catalogue import Catalogue
from engine.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from engine.protocols import EventLog, Retriever, VectorIndex
from engine.types import NOBODY, Filters, Matrix, Request, Rows, Scores

TOY_ITEMS = 60
TOY_DIMENSIONS = 8


def toy_vectors() -> Matrix:
    """(TOY_ITEMS, TOY_DIMENSIONS) unit vectors along a quarter of a circle: near in row is near in any metric."""
    return _on_the_arc(np.arange(TOY_ITEMS))


def toy_catalogue() -> Catalogue:
    """TOY_ITEMS items `item 0`, `item 1`, ...; each in a category `third 0` to `third 2` and in `even` or `odd`."""
    return Catalogue.from_items(
        {
            f"item {row}": {"title": f"Title {row}", "category": [f"third {row % 3}", ("even", "odd")[row % 2]]}
            for row in range(TOY_ITEMS)
        }
    )


def check_vector_index(build: Callable[[Matrix], VectorIndex]) -> None:
    """An index over the given vectors finds the k nearest, best first; all of them where k is larger."""
    index = build(toy_vectors())
    for place in (0.0, 0.3, 17.3, 30.8, 58.6, 59.0):
        vector = _on_the_arc(np.array([place]))[0]
        asked = vector.copy()
        nearest = np.argsort(np.abs(np.arange(TOY_ITEMS) - place), kind="stable")
        for k in (1, 2, 10, TOY_ITEMS, 5 * TOY_ITEMS):
            rows, scores = index.search(vector, k)
            where = f"search of a point at {place} for k={k}"
            _columns(rows, scores, where)
            _same(rows.tolist(), nearest[:k].tolist(), f"rows of the {where}")
            _best_first(scores, where)
            again, _ = index.search(vector, k)
            _same(again.tolist(), rows.tolist(), f"the {where}, asked again")
        _same(vector.tolist(), asked.tolist(), "the vector after the search (an index must not change it)")


def check_retriever(
    build: Callable[[Catalogue], Retriever], best: Callable[[Request], Sequence[int]] | None = None
) -> None:
    """A retriever over the toy catalogue gives k candidates that pass the filters, or all there are, best first.

    best: for a request, all rows in the order that the retriever should find them in; None: any order by score will do.
    """
    catalogue = toy_catalogue()
    retriever = build(catalogue)
    for filters in _toy_filters(catalogue):
        for history in ([20], [3, 4, 59], [41, 41, 0]):
            touched = np.array(history, np.int32)
            request = Request(
                at=1e9, person=0, history=touched, history_at=1e9 - np.arange(1.0, 4)[: len(history)],
                touched=touched, filters=filters,
            )  # fmt: skip
            passing = _passing(request)
            order = None if best is None else [row for row in best(request) if row in passing]
            for k in (1, 7, TOY_ITEMS, 1000):
                found = retriever.retrieve(request, k)
                where = f"candidates of history {history} under {filters} for k={k}"
                _columns(found.rows, found.scores, where)
                rows = found.rows.tolist()
                _same(len(rows), min(k, len(passing)), f"number of the {where}")
                _same([row for row in rows if row not in passing], [], f"what the filters forbid among the {where}")
                _best_first(found.scores, where)
                if order is not None:
                    _same(rows, order[:k], where)
                _true(bool(found.source), f"the {where} name no source")
                _same(retriever.retrieve(request, k).rows.tolist(), rows, f"the {where}, asked again")


def check_event_log(build: Callable[[], EventLog]) -> None:
    """A log keeps events in the order of writing, each id once, and all of an append or nothing of it.

    build: opens the log, new and empty at the first call; later calls open the same one again.
    """
    log = build()
    first, second, third, fourth = toy_events()
    _same(list(log.read()), [], "events of a new log (it must be empty)")
    _same(log.append([]), [], "what an append of nothing returns")
    _same(log.append(iter([first, second, first])), [True, True, False], "which of two events and a copy were new")
    changed = ItemEvent(first.id, first.timestamp + 1, "another item")
    _same(log.append([changed, third]), [False, True], "which of a known id and a new one were new")
    _same([event for _, event in log.read()], [first, second, third], "the events, in the order of writing")

    def broken() -> Iterator[Event]:
        yield fourth
        raise _Broken

    try:
        log.append(broken())
    except _Broken:
        pass
    else:
        raise AssertionError("append swallowed the error of its source; expected it to be raised")
    _same([event for _, event in log.read()], [first, second, third], "the events after an append that failed")
    _same(log.append([fourth]), [True], "whether an event of a failed append is new")

    offsets = [offset for offset, _ in log.read()]
    _true(all(a < b for a, b in pairwise(offsets)), f"found offsets {offsets}; expected ascending")
    for place, offset in enumerate(offsets):
        _same(list(log.read(since=offset)), list(log.read())[place + 1 :], f"the events since offset {offset}")
    _same(list(build().read()), list(log.read()), "the events in the log, opened again")
    _same(log.find(second.id), second, "the event found by its id")
    _same(log.find("no such id"), None, "the event found by an id that is not there")
    more = [ItemEvent("by another", first.timestamp, "an item"), ItemEvent("by this one", first.timestamp, "an item")]
    log.append(more[:1])
    done = log.exchange([more[1], first], offsets[-1])
    _same(done.fresh, [True, False], "which of an exchange's events were new")
    _same(done.before, more[:1], "what was written before an exchange's events, and not read")
    _same(done.offset, [offset for offset, _ in log.read()][-1], "the offset after an exchange")
    _same(log.exchange([], done.offset).before, [], "what was written before the next exchange")


def toy_events() -> tuple[Event, Event, Event, Event]:
    """One event of each kind, with parts of every type, not in order of time."""
    fields: dict[str, Any] = {"title": "Crème brûlée 🍮", "category": ["a", "b"], "price": 2.5, "new": True}
    return (
        ItemEvent("item event", 4_000, "item", fields),
        RankingEvent("ranking event", 3_000, ("item", "other"), "ann", "s", {"q": "x"}, (1.0, 0.0), {"seed": 2**60}),
        InteractionEvent("interaction event", 3_000, "item", "click", "ranking event", "ann", None, {}, 4.5, 10.0, 1),
        UserEvent("user event", 1_000, "ann", {"vector": [0.5, -1.0]}),
    )


class _Broken(Exception):
    """Raised in the middle of an append."""


def _on_the_arc(places: np.ndarray[Any, Any]) -> Matrix:
    angles = np.asarray(places, np.float64) * (np.pi / 2 / TOY_ITEMS)
    vectors = np.zeros((len(angles), TOY_DIMENSIONS), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    return vectors


def _toy_filters(catalogue: Catalogue) -> list[Filters]:
    def rows(*chosen: int) -> Rows:
        return np.array(chosen, np.int32)

    odd, third = catalogue.categories.rows(["odd", "third 1"])[:, None]
    nearly_all = np.arange(TOY_ITEMS - 2, dtype=np.int32)
    return [
        Filters(),
        Filters(seen=True),
        Filters(categories=odd),
        Filters(categories=rows(*odd, *third), seen=True),
        Filters(categories=rows()),
        Filters(allow=rows(58, 20, 3, NOBODY, 7)),
        Filters(allow=rows(NOBODY)),
        Filters(allow=rows()),
        Filters(deny=rows(21, NOBODY, 19)),
        Filters(deny=nearly_all),
        Filters(seen=True, categories=third, allow=nearly_all, deny=rows(1, 4, 22, NOBODY)),
    ]


def _passing(request: Request) -> set[int]:
    """What the filters let through, from how the toy catalogue is made."""
    filters = request.filters
    passing = set(range(TOY_ITEMS)) - set(filters.deny.tolist())
    if not filters.seen:
        passing -= set(request.touched.tolist())
    if filters.allow is not None:
        passing &= set(filters.allow.tolist())
    if filters.categories is not None:
        # codes are given in order of mention: third 0, even, third 1, odd, third 2
        members = {0: (3, 0), 1: (2, 0), 2: (3, 1), 3: (2, 1), 4: (3, 2)}
        named = [members[code] for code in filters.categories.tolist()]
        passing = {row for row in passing if any(row % size == rest for size, rest in named)}
    return passing


def _columns(rows: Rows, scores: Scores, where: str) -> None:
    _same((rows.dtype, rows.ndim), (np.dtype(np.int32), 1), f"type and dimensions of the rows of the {where}")
    _same((scores.dtype, scores.shape), (np.dtype(np.float32), rows.shape), f"type and shape of the scores of {where}")


def _best_first(scores: Scores, where: str) -> None:
    _true(bool(np.all(np.isfinite(scores))), f"the scores of the {where} are {scores}; expected finite numbers")
    falling = bool(np.all(scores[:-1] >= scores[1:]))
    _true(falling, f"the scores of the {where} are {scores}; expected the best (highest) first")


def _same(found: object, expected: object, what: str) -> None:
    _true(found == expected, f"{what}: found {found}, expected {expected}")


def _true(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
