"""Where a Metarank feature reads its field, and which key its scope is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from feedrank.api.metarank.section import NoCounterpart, Section, normalised

_FIELD = re.compile(r"(\*|[a-z]+|interaction:[\w-]+)\.(.+)")
_FIELD_KEYS = ("source", "field", "itemField", "item_field")
_NUMBER_KINDS = ("number", "relativenumber", "vector", "numvector", "itemage", "timediff")
_ENTITIES = {"metadata": "item", "item": "item", "user": "user", "ranking": "request"}


def field_of(section: Section) -> tuple[str, str]:
    """Return source and name of the field in `source` or `field`: item, user or request. Raises NoCounterpart."""
    source, name = section.get("source"), section.get("field")
    if isinstance(source, str) and isinstance(name, str) and "." not in source and "." not in name:
        return parse_field(f"{source}.{name}")  # source: item, field: price
    return parse_field(name if source is None else source)


def parse_field(text: object) -> tuple[str, str]:
    """Parse a field such as item.price or ranking.query. Raises NoCounterpart."""
    match = _FIELD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise NoCounterpart(f"found the field {text!r}, expected one such as item.price, user.age or ranking.query")
    if match[1].startswith("interaction") or match[1] == "*":
        raise NoCounterpart(
            f"found the field {text}: interactions bring no fields for features; send it with the ranking, as "
            f"ranking.{match[2]}"
        )
    if match[1] not in _ENTITIES:
        raise NoCounterpart(f"found the field {text}, expected item, user or ranking before the dot")
    return _ENTITIES[match[1]], match[2]


def key_of_scope(scope: str, with_item: bool = False) -> list[str]:
    """Return the key of a count with this scope. Raises NoCounterpart.

    with_item: whether a field of the ranking counts by each item, as it does for a rate.
    """
    if scope in ("item", "user", "session"):
        return [scope]
    if scope == "global":
        return []
    entity, dot, name = scope.partition(".")
    if dot and name and entity in ("item", "metadata"):
        return [f"item.{name}"]
    if dot and name and entity == "user":
        return [f"user.{name}"]
    if dot and name and entity == "ranking":
        return ["item", f"request.{name}"] if with_item else [f"request.{name}"]
    raise NoCounterpart(f"found scope = {scope}, expected global, item, user, session, item.FIELD or ranking.FIELD")


def field_types(features: Iterable[object]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the fields that the features of a file read as numbers, and of those they read as texts."""
    numbers, texts = set[str](), set[str]()
    for feature in features:
        if isinstance(feature, Mapping) and (kind := normalised(str(feature.get("type")))) != "diversity":
            for value in (feature.get(key) for key in _FIELD_KEYS):
                for origin in value if isinstance(value, list) else [value]:
                    (numbers if kind in _NUMBER_KINDS else texts).add(str(origin).partition(".")[2])
    return frozenset(numbers - {""}), frozenset(texts - numbers - {""})
