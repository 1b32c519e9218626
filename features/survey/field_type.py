"""The type of a field, recognised by its values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from feedrank.engine.events.checks import FieldValue
from feedrank.features.declared.encoders import zone_code

FieldType: TypeAlias = Literal[
    "number", "boolean", "text", "list", "list of numbers", "time", "time without zone", "user agent", "web address",
    "time zone", "mixed", "empty",
]  # fmt: skip
MIN_SHARE = 0.95
"""A field has a type if at least this share of its values is of it."""
EPOCH_MS = (631_152_000_000.0, 4_102_444_800_000.0)
"""Numbers in this range, 1990 to 2100, are times if all values of a field are: epoch milliseconds."""
_AGENT = re.compile(r"(Mozilla|Opera|Dalvik|okhttp|curl|Wget|python-requests|Googlebot|facebookexternalhit)/\d")
_ADDRESS = re.compile(r"(https?:)?//[\w.-]+|(www\.)[\w-]+\.\w+", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ZONE = re.compile(r"UTC|GMT|[A-Z]\w+/[\w/+-]+|[+-]\d\d:?\d\d")


def type_of(value: FieldValue) -> FieldType:
    """Return the type of one value; `empty` for a text or a list without content, which counts as missing."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if math.isfinite(value) else "empty"
    if isinstance(value, list):
        if not value:
            return "empty"
        return "list of numbers" if all(isinstance(entry, int | float) for entry in value) else "list"
    return _type_of_text(value.strip())


def common_type(counts: Mapping[FieldType, int]) -> FieldType:
    """Return the type of most values of a field; `mixed` if it is not clear, `empty` if there is no value.

    counts: type -> number of values.
    """
    known = {kind: count for kind, count in counts.items() if kind != "empty" and count}
    if not known:
        return "empty"
    total = sum(known.values())
    if known.keys() <= {"list", "text", "number", "boolean"} and "list" in known:
        return "list"  # a single value stands for a list of one
    best = max(known, key=lambda kind: known[kind])
    if known[best] >= MIN_SHARE * total:
        return best
    return "text" if known.keys() <= {"text", "number", "boolean", "time zone", "web address"} else "mixed"


def _type_of_text(text: str) -> FieldType:
    if not text:
        return "empty"
    if text.lower() in ("true", "false", "yes", "no"):
        return "boolean"
    if len(text) <= 40 and _NUMBER.fullmatch(text) and any(character.isdigit() for character in text):
        return "number"  # 007 is none: it is a code
    if _DATE.match(text) and (moment := _moment(text)) is not None:
        return "time" if moment.tzinfo is not None else "time without zone"
    if _AGENT.match(text):
        return "user agent"
    if _ADDRESS.match(text):
        return "web address"
    if _ZONE.fullmatch(text) and not math.isnan(zone_code(text)):
        return "time zone"
    return "text"


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
