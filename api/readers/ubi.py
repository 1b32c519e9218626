"""Read OpenSearch User Behavior Insights (https://ubisearch.dev): queries as rankings, events as interactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines, values
from feedrank.api.readers.columns import SAMPLE_ROWS
from feedrank.api.readers.folders import Folder, SingleFile, open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import with_content_id
from feedrank.api.readers.times import TimeReader
from feedrank.api.readers.ubi_joins import KnownEvents, ShownLists, UbiObject
from feedrank.engine.events.checks import EventError, FieldValue, is_finite
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.ids import canonical_event

_HIT_FIELDS = ("query_response_hit_ids", "query_response_object_ids")
_BULK_ACTIONS = {"index", "create", "update", "delete"}
_FILE_ENDINGS = (".json", ".jsonl", ".ndjson")


def is_ubi(body: Any) -> bool:
    """Return whether a JSON value looks like a UBI query or event, wrapped by OpenSearch or not."""
    return any(
        isinstance(document, Mapping) and not {"action_name", "user_query", *_HIT_FIELDS}.isdisjoint(document)
        for document in _documents(body)
    )


def is_bulk_action(body: Any) -> bool:
    """Return whether a JSON value is the action line of a bulk file, which says where the next line goes."""
    return (
        isinstance(body, Mapping)
        and len(body) == 1
        and set(body) <= _BULK_ACTIONS
        and all(isinstance(target, Mapping) for target in body.values())
    )


def is_ubi_folder(folder: Folder) -> bool:
    """Return whether a JSON file of a folder, such as ubi_events.ndjson, begins with UBI queries or events."""
    for name in _json_names(folder):
        first = islice(_read_file(folder, name, Rejects(), DEFAULTS), 1)
        if any(is_ubi(document) for _, _, _, document in first):
            return True
    return False


def read_events(
    path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS, known: KnownEvents | None = None
) -> Iterator[Event]:
    """Read UBI queries, UBI events, or both from a file or a folder: JSON, JSONL, search hits or bulk files.

    A query becomes a ranking with the query's id, its text as the field `query`, and the hits as items. The order of
    the hits is taken as the order in which they were shown. Several lists under one query id become several rankings:
    the first has the query's id, later ones `ID:2` and so on.

    An event becomes an interaction of type `action_name` with its object. It is joined to the list of its query that
    showed the object; `ShownLists` says how. The user is `user_id`, or else `client_id`. Other attributes become
    fields.

    Queries without hits, events without an object (such as a scroll), and events whose object is no item are rejected.
    What joins no list is counted in `rejects.tallies`. The files are read twice, and the lists are held in memory.
    Events of our own format, such as the items, may be among them.

    known: what was imported earlier; events may refer to its rankings and items.
    """
    with open_files(path) as folder:
        shown = ShownLists(known)
        first, documents = peek(_read_documents(folder, Rejects(), options), SAMPLE_ROWS)
        sample = [document.get("timestamp") for _, _, _, document in first if isinstance(document, Mapping)]
        times = TimeReader(options, sample=sample)
        for _, _, _, document in documents:
            _collect(document, shown, times)
        for source, number, text, document in _read_documents(folder, rejects, options):
            try:
                event = _event(document, shown, times, rejects)
            except EventError as problem:
                rejects.reject(source, number, str(problem), text)
            else:
                rejects.accept(number)
                yield event


def _json_names(folder: Folder) -> list[str]:
    if isinstance(folder, SingleFile):
        return folder.names
    return [name for name in folder.names if folder.plain_name(name).lower().endswith(_FILE_ENDINGS)]


def _read_documents(folder: Folder, rejects: Rejects, options: ImportOptions) -> Iterator[tuple[str, int, str, Any]]:
    for name in _json_names(folder):
        yield from _read_file(folder, name, rejects, options)


def _read_file(
    folder: Folder, name: str, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[str, int, str, Any]]:
    """Yield (source, line number, text, document) of a file; the action lines of bulk files are left out."""
    source = folder.source(name)
    with folder.open(name) as stream:
        numbered = lines.decode_lines(stream, source, rejects, options.encoding or "utf-8")
        for number, text, value in values.read_json_values(numbered, source, rejects):
            if not is_bulk_action(value):
                yield from ((source, number, text, document) for document in _documents(value))


def _documents(value: Any) -> list[Any]:
    """Return the documents of a JSON value: itself, what OpenSearch wrapped, or all hits of a search response."""
    if not isinstance(value, Mapping):
        return [value]
    hits = value.get("hits")
    if isinstance(hits, Mapping) and isinstance(hits.get("hits"), list):
        return [document for hit in hits["hits"] for document in _documents(hit)]
    return [value[key] for key in ("_source", "doc") if isinstance(value.get(key), Mapping)][:1] or [value]


def _collect(document: Any, shown: ShownLists, times: TimeReader) -> None:
    """Collect the list of a query, and of an event the field of its object and who made it."""
    try:
        if not isinstance(document, Mapping):
            return
        if "event" in document:
            shown.add_item(_parsed(document))
            return
        if "action_name" not in document:
            shown.add_list(_ranking(document, times))
            return
        interaction, target = _interaction(document, times)
    except EventError:
        return  # rejected in the second pass
    if interaction.ranking is not None:
        shown.add_event(interaction.ranking, target, _text(document, "user_id"), interaction.session)


def _event(document: Any, shown: ShownLists, times: TimeReader, rejects: Rejects) -> Event:
    if not isinstance(document, Mapping):
        raise EventError("event", f"found {type(document).__name__}, expected an object")
    if "event" in document:
        return _parsed(document)
    if "action_name" not in document:
        return shown.numbered(_ranking(document, times))
    interaction, target = _interaction(document, times)
    joined = shown.join(interaction, target)
    if joined.note:
        rejects.tally(joined.note)
    # The id is made of what the file says, so that an event counts once, whatever it could be joined to.
    event = replace(interaction, id=with_content_id(interaction).id, item=joined.item, ranking=joined.ranking)
    if (event.item, event.ranking) != (interaction.item, interaction.ranking) and (stored := shown.stored(event.id)):
        rejects.tally("events that were imported before the list of their query, and stay joined as they were")
        return stored
    return event


def _ranking(body: Mapping[str, Any], times: TimeReader) -> RankingEvent:
    hits = next((body[name] for name in _HIT_FIELDS if body.get(name)), None)
    if not isinstance(hits, list):
        raise EventError(
            _HIT_FIELDS[0], "found nothing, expected the ids of the hits: a query without hits shows no items"
        )
    unique = list(dict.fromkeys(str(hit) for hit in hits))
    attributes = body.get("query_attributes")
    fields = {
        **(_flattened(attributes) if isinstance(attributes, Mapping) else {}),
        **{name: body[key] for name, key in _QUERY_FIELDS.items() if isinstance(body.get(key), str)},
    }
    ranking = _parsed(
        {
            "event": "ranking",
            "id": body.get("query_id"),
            "timestamp": times.read(body.get("timestamp")),
            "user": _text(body, "user_id") or _text(body, "client_id"),
            "session": _text(body, "session_id"),
            "items": [{"id": hit} for hit in unique],
            "positions": list(range(1, len(unique) + 1)),
            "fields": [{"name": name, "value": value} for name, value in fields.items()],
        }
    )
    assert isinstance(ranking, RankingEvent)
    return ranking


_QUERY_FIELDS = {"query": "user_query", "application": "application"}


def _interaction(body: Mapping[str, Any], times: TimeReader) -> tuple[InteractionEvent, UbiObject]:
    """Return an event as an interaction with its object as the item, and the object."""
    attributes = body.get("event_attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    described, position = attributes.get("object"), attributes.get("position")
    if not isinstance(described, Mapping) or described.get("object_id") in (None, ""):
        raise EventError("event_attributes.object.object_id", "found nothing, expected the id of the item")
    ordinal = position.get("ordinal") if isinstance(position, Mapping) else None
    user, client = _text(body, "user_id"), _text(body, "client_id")
    others = {name: value for name, value in attributes.items() if name != "session_id"}
    fields = {**_flattened(others), **({"client_id": client} if user and client else {})}
    interaction = _parsed(
        {
            "event": "interaction",
            "id": "set below",
            "timestamp": times.read(body.get("timestamp")),
            "user": user or client,
            "session": _text(body, "session_id") or _text(attributes, "session_id"),
            "ranking": _text(body, "query_id"),
            "item": described["object_id"],
            "type": body.get("action_name"),
            # some clients count from 0, which is not a valid position
            "position": ordinal if isinstance(ordinal, int) and ordinal >= 1 else None,
            "fields": [{"name": name, "value": value} for name, value in fields.items() if name not in _PARTS],
        }
    )
    assert isinstance(interaction, InteractionEvent)
    internal = described.get("internal_id")
    field = described.get("object_id_field")
    return interaction, UbiObject(
        interaction.item,
        field if isinstance(field, str) and field else None,
        str(internal) if isinstance(internal, str | int) and internal != "" else None,
    )


_PARTS = ("object.object_id", "object.object_id_field", "object.internal_id", "position.ordinal")
"""Attributes that become parts of the interaction, or that only serve to find the item."""


def _flattened(attributes: Mapping[str, Any], prefix: str = "") -> dict[str, FieldValue]:
    """Return the attributes that can be fields, those of inner objects under names such as position.x."""
    fields: dict[str, FieldValue] = {}
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            fields |= _flattened(value, f"{prefix}{name}.")
        elif value not in ("", []) and name and _can_be_field(value):
            fields[prefix + name] = value
    return fields


def _parsed(body: Mapping[str, Any]) -> Event:
    return parse(canonical_event(body))


def _can_be_field(value: object) -> bool:
    return (
        isinstance(value, str | bool)
        or is_finite(value)
        or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))
    )


def _text(body: Mapping[str, Any], name: str) -> str | None:
    """Return an id, which may be a number; None if it is absent, null or empty."""
    value = body.get(name)
    return str(value) if isinstance(value, str | int) and value != "" and not isinstance(value, bool) else None
