"""Parses lines of feature files: LETOR's and SVMlight's `2 qid:10 1:0.5 2:0.1 # docid = GX029-35`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from feedrank.engine.events.checks import AMOUNT, as_float, short_repr
from feedrank.engine.events.ids import canonical_id, check_id

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CELL = rf"\s+\d+:(?:{_NUMBER}|nan|NaN|NULL)"
_LINE = re.compile(rf"\s*{_NUMBER}(?:\s+qid:\S+(?:{_CELL})*|(?:{_CELL})+)\s*(?:#.*)?", re.ASCII)
_DOCUMENT = re.compile(r"\bdoc_?id\s*[=:]\s*(\S+)", re.ASCII | re.IGNORECASE)
_INDEX = re.compile(r"(\d+):", re.ASCII)
MISSING_NUMBERS = frozenset(("", "nan", "NaN", "NAN", "null", "NULL", "NA", "None"))
"""Texts for a number that is missing."""


class FeatureLine(NamedTuple):
    """One document of a query."""

    label: float
    query: str | None
    """None: the line has no `qid:`."""
    numbers: dict[int, float]
    """Feature index of the file, which starts at 0 or 1, -> number. A missing number is left out."""
    missing: tuple[int, ...]
    """Indices of features whose number is written as missing, such as nan."""
    document: str | None
    """The `docid` of the comment; None if it has none."""


def is_feature_lines(texts: Sequence[str]) -> bool:
    """Return whether at least half of a file's first lines are a label, maybe a query id, and numbers by index."""
    fitting = [_LINE.fullmatch(text) is not None for text in texts if is_data(text)]
    return any(fitting) and 2 * sum(fitting) >= len(fitting)


def is_data(text: str) -> bool:
    """Return whether a line holds more than blanks and a comment."""
    stripped = text.lstrip()
    return bool(stripped) and not stripped.startswith("#")


def indices_of(text: str) -> set[int]:
    """Return the feature indices in a line that may be invalid."""
    return set(map(int, _INDEX.findall(text.partition("#")[0])))


def parse_line(text: str) -> FeatureLine:
    """Parse a line that `is_data`. Raises ValueError that says what was found and expected."""
    data, _, comment = text.partition("#")
    first, *cells = data.split()
    label = as_float(first)
    if label not in AMOUNT:
        raise ValueError(f"found {short_repr(first)}, expected a label first, a number such as 2")
    query = None
    if cells and cells[0].startswith("qid:"):
        query = canonical_id(cells.pop(0)[4:])
        if query is None:
            raise ValueError("found no query id after qid:, expected one such as qid:10")
    numbers: dict[int, float] = {}
    missing: list[int] = []
    for cell in cells:
        index, colon, written = cell.partition(":")
        if not colon or not (index.isascii() and index.isdecimal()):
            raise ValueError(f"found {short_repr(cell)}, expected index:number, such as 3:0.25")
        number = int(index)
        if number in numbers or number in missing:
            raise ValueError(f"found the feature {index} twice, expected each once")
        if written in MISSING_NUMBERS:
            missing.append(number)
            continue
        value = as_float(written)
        if value is None or not math.isfinite(value):
            raise ValueError(f"found {short_repr(cell)}, expected a finite number after {index}:")
        numbers[number] = value
    named = _DOCUMENT.search(comment)
    document = canonical_id(named[1]) if named else None
    check_id(document, "docid", one_line=True)
    return FeatureLine(label or 0.0, query, numbers, tuple(missing), document)
