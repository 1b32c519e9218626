"""The reference pages of events and of table columns, from the event types and the readers.

What each part means is said here, in `MEANINGS`. A part without a meaning, or a meaning without a part, is an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from docs.generator.markdown import code, table, text
from feedrank.api.readers.columns import LIST_COLUMNS
from feedrank.api.readers.rows import EVENT_COLUMNS
from feedrank.engine.events import events
from feedrank.engine.events.catalogue import RANK_ONLY, REMOVED, STANDARD_FIELDS
from feedrank.engine.events.codec import parse

TYPES = {
    "item": events.ItemEvent,
    "user": events.UserEvent,
    "ranking": events.RankingEvent,
    "interaction": events.InteractionEvent,
    "experiment": events.ExperimentEvent,
}
REQUIRED = {
    "item": ("item",),
    "user": ("user",),
    "ranking": ("items",),
    "interaction": ("item", "type"),
    "experiment": ("experiment", "change"),
}
SERVICE_ONLY = (*events.SERVICE_FIELDS, "scores", "seed")
"""Parts of a ranking that the service itself writes."""
MEANINGS: dict[str, tuple[str, str]] = {
    "event": ("text", "Type of the event: item, user, ranking, interaction or experiment."),
    "id": ("text", "Id of the event. The same id counts once, however often it is sent."),
    "timestamp": ("time", "When it happened: epoch milliseconds, or ISO-8601 with a time zone."),
    "received": ("time", "When the live service accepted the event; the service sets it."),
    "fields": ("list of `{name, value}`", "Any further values: text, number, boolean, list of texts or numbers."),
    "item": ("text", "Item id."),
    "user": ("text", "User id; without one the user is anonymous."),
    "session": ("text", "Session id."),
    "items": ("list of `{id, label?, fields?}`", "The items that were shown, in order. `fields`: what the list brought "
              "for an item, such as the price shown, as a list of `{name, value}`; declared features read them. The "
              "journal stores them as `item_fields`, an object of one list for each field, which is accepted too."),
    "labels": ("list of numbers", "One label per item, if the log has labels. In JSON, `label` of each item."),
    "positions": ("list of integers", "Where each item was displayed, from 1 to 2147483647."),
    "scores": ("list of numbers", "Score of each item; higher is better."),
    "propensities": ("list of numbers", "Probability of each item at its position, in (0, 1]."),
    "surface": ("text", "Where the ranking was displayed, such as home or search."),
    "bundle": ("text", "Bundle that made the ranking."),
    "experiment": ("text", "Name of the experiment."),
    "variant": ("text", "Arm of the experiment."),
    "team": ("list of texts", "Of an interleaved ranking: the arm that gets the credit for each item; empty: none."),
    "seed": ("integer", "Seed of an explored ranking; the draw can be repeated with it."),
    "features": ("object", "Logged features: the rows that the ranker scored."),
    "provenance": ("text", "Who vouches for what the service writes: `service`, or `import` for an imported ranking."),
    "served": ("object", "How the service made the ranking: options, journal offset, fallback, experiments."),
    "type": ("text", "Interaction type, such as click, purchase or hide; the section `interactions` says what it "
                     "means. `history`: from before the log began."),
    "ranking": ("text", "Id of the ranking that the interaction belongs to. Without one, the user's last ranking of "
                        "the item within 30 minutes."),
    "value": ("number", "A rating, price or count, within 2^53."),
    "dwell_ms": ("number", "Dwell time in milliseconds, 0 or more."),
    "position": ("integer", "Position at which the item was shown, from 1 to 2147483647."),
    "change": ("text", "Change of the experiment: create, start, weights, stop-arm, stop or shadow."),
    "payload": ("object", "Arguments of the change; for `create`, the experiment's specification."),
}  # fmt: skip
ITEM_FIELDS: dict[str, tuple[str, str]] = {
    "title": ("text", "Title. Text models and BM25 read it."),
    "text": ("text", "Body or description. Text models and BM25 read it."),
    "category": ("text or list", "One category or several."),
    "tags": ("text or list", "Tags."),
    "published": ("time", "Publication time: epoch milliseconds or ISO-8601. Item age is measured from it."),
    REMOVED: ("boolean", "True takes the item out of all recommendations; false brings it back."),
    RANK_ONLY: ("boolean", "The item is known from a `/v1/rank` request only; the service sets it."),
}
EVENTS_INTRO = """# Events

The journal holds five types of events. Four have the field names of Metarank's open format.
The fifth, `experiment`, and the parts marked `+` are additions of feedrank.

In a JSONL file each line is one event. `POST /v1/events` accepts the same objects.
"""
EXAMPLES: tuple[dict[str, Any], ...] = (
    {
        "event": "item", "id": "e1", "timestamp": 0, "item": "42",
        "fields": [{"name": "title", "value": "Heat (1995)"}, {"name": "category", "value": ["Action", "Crime"]}],
    },
    {"event": "user", "id": "e2", "timestamp": 0, "user": "7", "fields": [{"name": "country", "value": "ch"}]},
    {
        "event": "ranking", "id": "e3", "timestamp": "2026-01-05T10:00:00Z", "user": "7",
        "items": [{"id": "42", "fields": [{"name": "price", "value": 9.5}]}, {"id": "17"}],
    },
    {
        "event": "interaction", "id": "e4", "timestamp": "2026-01-05T10:00:05Z", "user": "7", "item": "42",
        "type": "click", "ranking": "e3",
    },
)  # fmt: skip
TABLES_INTRO = """# CSV and Parquet columns

A table holds one event per row. Its columns are named like the [parts of an event](events.md).
Columns that are not listed here become fields of the item, user or event.
`feedrank import FILE` reads CSV and Parquet files. CSV files may be compressed with gzip or zstd.

The type of the events is detected as follows.

| columns | event type |
|---|---|
| `event` | the value of `event` in each row |
| `items`, no `item` | ranking |
| `item` or `id`, no `user` | item |
| `item` and `user` | interaction |

An empty cell is a missing value. A row without `id` gets a hash of its content as its id.
Items and users may leave out `timestamp`. Interactions without `type` are clicks.
"""
ALWAYS = ("event", "id", "timestamp")
FORMAT_ADDITIONS = ("received", "provenance", *events.RANKING_FIELDS, "value", "dwell_ms", "position")


def events_page() -> str:
    """Return the page of the event types and their parts."""
    _check_meanings()
    parts = [EVENTS_INTRO, "```json", *(json.dumps(example) for example in EXAMPLES), "```\n"]
    for example in EXAMPLES:
        parse(example)
    for name, event in TYPES.items():
        own_parts = ["provenance"] if name == "ranking" else []
        names = [*ALWAYS, *_parts(name), *own_parts, "received", *([] if name == "experiment" else ["fields"])]
        marked = () if name == "experiment" else FORMAT_ADDITIONS
        rows = [_row(part, part in (*ALWAYS, *REQUIRED[name]), part in marked) for part in names]
        about = text((event.__doc__ or "").lstrip("+ "))
        parts += [f"## {name}\n", f"{about}\n", table(("part", "type", "required", "meaning"), rows)]
        if name == "item":
            fields = [(code(field), kind, meaning) for field, (kind, meaning) in ITEM_FIELDS.items()]
            parts.append("These fields of an item have a meaning of their own:\n")
            parts.append(table(("field", "type", "meaning"), fields))
        if name == "ranking":
            own = ", ".join(code(part) for part in SERVICE_ONLY)
            parts.append(f"The service writes {own} into the rankings that it serves.\n")
            refused = ", ".join(code(part) for part in events.SERVICE_FIELDS)
            parts.append(f"Over HTTP, {refused} are refused from a key without the scope `import`.\n")
    return "\n".join(parts)


def table_columns() -> dict[str, tuple[str, ...]]:
    """Return event type -> all columns that a table of these events may have, besides its own fields."""
    fields = {"item": tuple(ITEM_FIELDS)}
    return {name: (*ALWAYS, *columns, *fields.get(name, ())) for name, columns in EVENT_COLUMNS.items()}


def tables_page() -> str:
    """Return the page of the columns of CSV and Parquet tables."""
    _check_meanings()
    parts = [TABLES_INTRO]
    for name, columns in table_columns().items():
        rows = [_column(column) for column in columns]
        parts += [f"## {name.capitalize()} columns\n", table(("column", "type", "in a CSV cell", "meaning"), rows)]
    return "\n".join(parts)


def _column(column: str) -> tuple[str, str, str, str]:
    kind, meaning = (ITEM_FIELDS if column in ITEM_FIELDS else MEANINGS)[column]
    if column == "items":
        kind = "list of ids"
    in_csv = "values separated by `|`" if column in LIST_COLUMNS else kind
    return code(column), kind, "Parquet only" if kind == "object" else in_csv, text(meaning)


def _parts(name: str) -> Sequence[str]:
    """Return the parts of an event type as JSON has them: labels are inside of items."""
    return [part for part in EVENT_COLUMNS[name] if part != "labels"]


def _row(part: str, required: bool, addition: bool) -> tuple[str, str, str, str]:
    kind, meaning = MEANINGS[part]
    return code(part) + (" +" if addition else ""), kind, "yes" if required else "", text(meaning)


def _check_meanings() -> None:
    parts = {"event", "id", "timestamp", "received", "fields", "provenance"}.union(*EVENT_COLUMNS.values())
    if missing := sorted(parts - MEANINGS.keys()):
        raise KeyError(f"no meaning of {', '.join(missing)}; add it to MEANINGS in docs/generator/event_parts.py")
    if unknown := sorted(MEANINGS.keys() - parts):
        raise KeyError(f"no event has {', '.join(unknown)}; remove it from MEANINGS in docs/generator/event_parts.py")
    if missing := sorted(set(STANDARD_FIELDS) - ITEM_FIELDS.keys()):
        raise KeyError(f"no meaning of {', '.join(missing)}; add it to ITEM_FIELDS in docs/generator/event_parts.py")
