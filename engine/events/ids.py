"""Canonical ids: one form of an id, however a file, a data frame or a request writes it, so that equal ids meet."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from feedrank.engine.events.checks import MAX_EXACT_INT, EventError, short_repr

MAX_ID_CHARS = 256
"""Characters of an id or a name: in imports, events, requests and the state routes alike."""
MAX_TEXT_CHARS = 2_000
"""Characters of a text of a request, such as its query; in requests and in fields of rankings and interactions."""
MAX_DOCUMENT_CHARS = 200_000
"""Characters of a text that describes an item or a user; in events and in requests."""
MAX_FIELDS = 1_000
"""Fields of an event."""
MISSING_IDS = frozenset(
    ("", "NaN", "nan", "NAN", "-NaN", "-nan", "None", "null", "NULL", "Null", "(null)", "NA", "N/A", "n/a", "#N/A",
     "#NA", "<NA>", "NaT", r"\N", "undefined")
)  # fmt: skip
"""Texts that tools write for a missing value. An id that is one of them is missing; capital letters matter."""
ID_PARTS = ("id", "item", "user", "session", "ranking")
"""Parts of an event that are ids; an entry of a ranking's `items` has one too."""
NAME_PARTS = ("type", "surface", "bundle", "experiment", "variant")
"""Parts of an event that are names; they are as short as ids."""

WHOLE_FLOAT = r"^-?(0|[1-9][0-9]*)\.0$"
"""Pattern of a whole number as pandas writes it in a column of floats, such as 123.0."""
_WHOLE_FLOAT = re.compile(WHOLE_FLOAT)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ZERO_FRACTION = re.compile(r"\.0+$")
_SCIENTIFIC = re.compile(r"\d(\.\d+)?[eE][+-]?\d+", re.ASCII)


def canonical_id(value: object) -> Any:
    """Return the id in a cell of a table: text without blanks around it, whole floats as integers, None if missing.

    007 and 7 stay different, 1e5 and 100000 too. A value that can't be an id is returned as it is, for `parse` to
    reject.
    """
    return json_id(value.strip() if isinstance(value, str) else value)


def json_id(value: object) -> Any:
    """Return the id in a JSON value: text as it is, whole floats as integers, None if it is missing."""
    if isinstance(value, str):
        return None if value in MISSING_IDS else value
    if isinstance(value, float):
        if value != value:  # NaN
            return None
        return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_INT else value
    return value


def is_missing(value: object) -> bool:
    """Return whether a value is None, NaN, blank text or a word for a missing value."""
    if isinstance(value, str):
        return value.strip() in MISSING_IDS
    return value is None or (isinstance(value, float) and value != value)


def check_id(value: object, path: str, one_line: bool = False) -> None:
    """Check the length of an id, and that it has no NUL. Raises EventError; `path` names the field.

    one_line: it may have no control character at all, as an id in a table.
    """
    if not isinstance(value, str) or (len(value) <= MAX_ID_CHARS and value.isprintable()):
        return
    if len(value) > MAX_ID_CHARS:
        raise EventError(path, f"found {len(value):,} characters, expected an id of at most {MAX_ID_CHARS}")
    if "\0" in value or (one_line and _CONTROL.search(value)):
        raise EventError(path, f"found {short_repr(value)}, which holds a control character; expected text of one line")


def canonical_event(body: object) -> Any:
    """Return the JSON object of an event from outside with canonical ids; null parts are dropped. Raises EventError.

    An explicit `id` that is missing stays, for `parse` to reject. What the journal holds already is read without this,
    so that no old event is lost.
    """
    if not isinstance(body, Mapping):
        return body
    event = {name: value for name, value in body.items() if value is not None or name == "id"}
    for name in ID_PARTS:
        if name in event:
            identifier = json_id(event[name])
            if identifier is None and name != "id":
                del event[name]
            else:
                check_id(identifier, name)
                event[name] = identifier
    items = event.get("items")
    if isinstance(items, list):
        event["items"] = [_canonical_entry(entry, index) for index, entry in enumerate(items)]
    for name in NAME_PARTS:
        if name in event:
            _check_length(event[name], name, MAX_ID_CHARS)
    columns = event.get("item_fields")
    if isinstance(columns, Mapping):
        for name, column in columns.items():
            _check_length(name, "item_fields", MAX_ID_CHARS)
            for value in column if isinstance(column, list) else []:
                _check_texts(value, f"item_fields.{name}", MAX_TEXT_CHARS)
    if isinstance(event.get("fields"), list):
        is_document = event.get("event") in ("item", "user")
        _check_fields(event["fields"], MAX_DOCUMENT_CHARS if is_document else MAX_TEXT_CHARS)
    return event


def _check_fields(fields: list[Any], max_chars: int, path: str = "fields") -> None:
    """Check the number of fields, and the lengths of their names and texts. Raises EventError."""
    if len(fields) > MAX_FIELDS:
        raise EventError(path, f"found {len(fields):,} fields, expected at most {MAX_FIELDS:,}")
    for index, entry in enumerate(fields):
        if not isinstance(entry, Mapping):
            continue
        _check_length(entry.get("name"), f"{path}[{index}].name", MAX_ID_CHARS)
        _check_texts(entry.get("value"), f"{path}[{index}].value", max_chars)


def _check_texts(value: object, path: str, max_chars: int) -> None:
    for text in value if isinstance(value, list) else [value]:
        _check_length(text, path, max_chars)


def _check_length(value: object, path: str, max_chars: int) -> None:
    if isinstance(value, str) and len(value) > max_chars:
        raise EventError(path, f"found {len(value):,} characters, expected at most {max_chars:,}")


def _canonical_entry(entry: object, index: int) -> object:
    if not isinstance(entry, Mapping) or "id" not in entry:
        return entry
    identifier = json_id(entry["id"])
    check_id(identifier, f"items[{index}].id")
    fields = entry.get("fields")
    if isinstance(fields, Mapping):
        fields = [{"name": name, "value": value} for name, value in fields.items()]
        entry = {**entry, "fields": fields}
    if isinstance(fields, list):
        _check_fields(fields, MAX_TEXT_CHARS, f"items[{index}].fields")
    return {**entry, "id": identifier}


def is_whole_float(text: str) -> bool:
    """Return whether a text is a whole number as pandas writes it in a column of floats, such as 123.0."""
    return _WHOLE_FLOAT.fullmatch(text) is not None


def is_scientific(text: str) -> bool:
    """Return whether a text is a number as spreadsheets shorten it, such as 1.23E+15."""
    return _SCIENTIFIC.fullmatch(text) is not None


def similar_form(identifier: str) -> str:
    """Return a form that ids share which probably mean the same: `1.0` and `1`, `007` and `7`, `ab ` and `AB`.

    For messages about ids that do not meet; ids are never joined by it.
    """
    text = identifier if identifier.isascii() else unicodedata.normalize("NFKC", identifier)
    text = "".join(text.split()).casefold().strip("\u200b\ufeff'\"")
    if _SCIENTIFIC.fullmatch(text) and float(text) < MAX_EXACT_INT and float(text).is_integer():
        text = str(int(float(text)))
    if text.endswith("0"):
        text = _ZERO_FRACTION.sub("", text)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def similar_pairs(unknown: Iterable[str], known: Iterable[str], most: int) -> list[tuple[str, str]]:
    """Return up to `most` pairs of an unknown and a known id with one `similar_form`, in the order of the unknown ones.

    Of several known ids the smallest is named. Without an unknown id, the known ones are not looked at.
    """
    wanted = {identifier: similar_form(identifier) for identifier in unknown}
    if not wanted:
        return []
    forms = dict.fromkeys(wanted.values(), "")
    for identifier in known:
        form = similar_form(identifier)
        if form in forms and identifier not in wanted and (not forms[form] or identifier < forms[form]):
            forms[form] = identifier
    return list(islice(((identifier, forms[form]) for identifier, form in wanted.items() if forms[form]), most))
