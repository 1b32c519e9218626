"""Join events of OpenSearch User Behavior Insights to the lists that showed their objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Protocol

from feedrank.engine.events.checks import EventError, short_repr
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent

ID_FIELDS = ("_id", "id", "item", "item_id", "doc_id", "document_id", "object_id")
"""Values of `object_id_field` that say that an object's id is the id of the item."""
MAX_PENDING = 10_000
"""Events of each `object_id_field` that are remembered until the list of their query is known."""


class KnownEvents(Protocol):
    """What was imported earlier; the journal is one."""

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, or None."""
        ...

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """Yield all events of one kind."""
        ...


class UbiObject(NamedTuple):
    """The object of an event, as its client names it."""

    id: str
    id_field: str | None
    """The field of the item that holds `id`; None: the item's own id."""
    internal_id: str | None
    """The id in the search engine's index."""


class Joined(NamedTuple):
    """The item and the ranking of an event."""

    item: str
    ranking: str | None
    note: str = ""
    """What the report of the import says of it; empty if it was joined to a list."""


@dataclass(frozen=True, slots=True)
class _List:
    """One list that a query showed."""

    timestamp: int
    items: tuple[str, ...]
    id: str = ""


class ShownLists:
    """The lists that were shown for each query: of the files that are read, and of what was imported earlier."""

    def __init__(self, known: KnownEvents | None = None) -> None:
        self._known = known
        self._added: dict[str, list[_List]] = {}
        self._numbered: dict[str, list[_List]] = {}
        self._pending: dict[str, dict[str, str]] = {}
        self._made_by: dict[str, tuple[str | None, str | None]] = {}
        self._has_known_lists: bool | None = None
        self._id_fields = set(ID_FIELDS)
        self._items: list[ItemEvent] = []
        self._items_by_field: dict[str, dict[str, str]] = {}

    def add_list(self, ranking: RankingEvent) -> None:
        """Add the list of a query. All lists must be added before any is numbered or joined."""
        self._added.setdefault(ranking.id, []).append(_List(ranking.timestamp, ranking.items))

    def add_item(self, event: Event) -> None:
        """Add an item, so that events may name it by one of its fields. Other events are ignored."""
        if isinstance(event, ItemEvent):
            self._items.append(event)

    def add_event(self, query: str, target: UbiObject, user: str | None, session: str | None) -> None:
        """Add what an event says of its query: its user, and which field holds the ids of its hits."""
        field = target.id_field
        if field is not None and field not in self._id_fields:
            added = self._added.get(query)
            pending = self._pending.setdefault(field, {})
            if added is not None and any(target.id in entry.items for entry in added):
                self._id_fields.add(field)
                del self._pending[field]
            elif added is None and len(pending) < MAX_PENDING:
                pending.setdefault(query, target.id)
        if user is not None or session is not None:
            first_user, first_session = self._made_by.get(query, (user, session))
            self._made_by[query] = (first_user or user, first_session or session)

    def numbered(self, ranking: RankingEvent) -> RankingEvent:
        """Return the ranking of a query with an id of its own, and with the user and session of its events."""
        found = next(entry for entry in self._lists(ranking.id) if (entry.timestamp, entry.items) == _content(ranking))
        user, session = self._made_by.get(ranking.id, (None, None))
        return replace(ranking, id=found.id, user=user or ranking.user, session=ranking.session or session)

    def join(self, event: InteractionEvent, target: UbiObject) -> Joined:
        """Find the item of an event, and among the lists of its query the one that showed it.

        Of several lists that showed the item, the event belongs to the last one before it; if its clock says that
        there was none, to the first. The object's id is taken as the item's id if a list of the query shows it, or if
        its field usually holds the ids of hits; else an item is sought by that field. Raises EventError if there is
        none.
        """
        lists = self._lists(event.ranking) if event.ranking is not None else []
        for item in (target.id, target.internal_id):
            if item is not None and (found := _last_before(lists, item, event.timestamp)):
                return Joined(item, found.id)
        item = self._item_of(target)
        if found := _last_before(lists, item, event.timestamp):
            return Joined(item, found.id)
        if event.ranking is None:
            return Joined(item, None)
        return Joined(
            item,
            event.ranking,
            "events of an item that no list of their query showed"
            if lists
            else "events of a query without a list: import queries before events",
        )

    def stored(self, event_id: str) -> Event | None:
        """Return the event of this id that was imported earlier, or None."""
        return None if self._known is None else self._known.find(event_id)

    def _item_of(self, target: UbiObject) -> str:
        field = target.id_field
        if field is None or self._holds_ids(field):
            return target.id
        item = self._items_with(field).get(target.id)
        if item is None:
            raise EventError(
                "event_attributes.object.object_id",
                f"found {short_repr(target.id)}, expected an item with this value in the field {field}, or a hit of"
                " the query; import the items first",
            )
        return item

    def _holds_ids(self, field: str) -> bool:
        """Return whether the values of an object id field are ids of hits: by its name, or because some were."""
        pending = self._pending.pop(field, {})
        if any(item in entry.items for query, item in pending.items() for entry in self._lists(query)):
            self._id_fields.add(field)
        return field in self._id_fields

    def _items_with(self, field: str) -> dict[str, str]:
        """Return value -> item for a field of the items: those imported earlier, and those of the files."""
        if field not in self._items_by_field:
            values: dict[str, str] = {}
            for event in chain(() if self._known is None else self._known.events("item"), self._items):
                value = event.fields.get(field) if isinstance(event, ItemEvent) else None
                if isinstance(event, ItemEvent) and value is not None:
                    values |= {_as_id(entry): event.item for entry in (value if isinstance(value, list) else [value])}
            self._items_by_field[field] = values
        return self._items_by_field[field]

    def _lists(self, query: str) -> list[_List]:
        """Return the lists of a query with their ids: those imported earlier, then those of the files, by time."""
        if query not in self._numbered:
            lists = self._known_lists(query)
            contents = {(entry.timestamp, entry.items) for entry in lists}
            for entry in sorted(self._added.pop(query, ()), key=lambda entry: entry.timestamp):
                if (entry.timestamp, entry.items) not in contents:
                    contents.add((entry.timestamp, entry.items))
                    lists.append(replace(entry, id=_list_id(query, len(lists))))
            self._numbered[query] = lists
        return self._numbered[query]

    def _known_lists(self, query: str) -> list[_List]:
        lists: list[_List] = []
        if self._known is not None and self._has_known_lists is None:
            self._has_known_lists = next(self._known.events("ranking"), None) is not None
        while self._known is not None and self._has_known_lists:
            ranking = self._known.find(_list_id(query, len(lists)))
            if not isinstance(ranking, RankingEvent):
                break
            lists.append(_List(ranking.timestamp, ranking.items, ranking.id))
        return lists


def _list_id(query: str, earlier: int) -> str:
    """Return the ranking id of a list of a query that has `earlier` lists before it."""
    return query if earlier == 0 else f"{query}:{earlier + 1}"


def _content(ranking: RankingEvent) -> tuple[int, tuple[str, ...]]:
    return ranking.timestamp, ranking.items


def _last_before(lists: Sequence[_List], item: str, timestamp: int) -> _List | None:
    """Return the last list until a time that showed an item; the first one that showed it if none is early enough."""
    showed = sorted((entry for entry in lists if item in entry.items), key=lambda entry: entry.timestamp)
    return next((entry for entry in reversed(showed) if entry.timestamp <= timestamp), showed[0] if showed else None)


def _as_id(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
