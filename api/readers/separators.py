"""Finds what separates the cells of a table, and where its header is."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

CANDIDATES = (",", ";", "\t", "|")
"""Separators that are found; others are given with --separator."""
SEPARATOR_NAMES = {"\t": "tab", " ": "space"}
FIRST_LINES = 50
"""Lines that are looked at."""

_SEP_LINE = re.compile(r"\"?sep=(.)\"?[\s,;]*", re.IGNORECASE)


class TableStart(NamedTuple):
    """What the first lines of a table say."""

    separator: str
    skipped: int
    """Lines before the header: blank ones, comments, and Excel's `sep=;`."""
    notes: tuple[str, ...] = ()


def find_start(lines: Sequence[str], known: Collection[str]) -> TableStart:
    """Find the separator and the header among the first lines of a table.

    known: names of columns in lower case that a header may have; they decide between separators and tell a header that
    starts with '#' from a comment.
    """
    skipped, separator, comments = 0, "", 0
    for line in lines:
        text = line.strip()
        if not separator and (match := _SEP_LINE.fullmatch(line.strip(" \r\n"))):
            separator = match[1]
        elif text.startswith("#") and not _names(text.lstrip("# "), known):
            comments += 1
        elif text:
            break
        skipped += 1
    notes = (f"{comments:,} comment lines before the header were passed over",) if comments else ()
    return TableStart(separator or _separator(lines[skipped:], known), skipped, notes)


def _separator(lines: Sequence[str], known: Collection[str]) -> str:
    """Return the candidate that gives the most known names, then the most rows as wide as the header."""
    best, chosen = (0, 0.0, 0), ","
    for candidate in CANDIDATES:
        try:
            rows = [cells for cells in csv.reader(lines, delimiter=candidate, skipinitialspace=True) if cells]
        except csv.Error:
            rows = [line.split(candidate) for line in lines if line]
        if not rows or (width := len(rows[0])) < 2:
            continue
        body = rows[1:] or rows
        fitting = sum(len(row) == width for row in body) / len(body)
        score = (sum(name.strip().lower() in known for name in rows[0]), fitting, width)
        if score > best:
            best, chosen = score, candidate
    return chosen


def _names(text: str, known: Collection[str]) -> bool:
    """Return whether a line has the known names of a header under any separator."""
    names = {part.strip().strip('"').lower() for part in re.split(r"[,;\t|]", text)}
    return len(names & set(known)) >= 2 or (len(names) == 1 and bool(names & set(known)))
