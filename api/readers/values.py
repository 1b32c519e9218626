"""Read the JSON values of a text file: one or several per line, spread over lines, or the entries of one array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from feedrank.api.readers.rejects import Rejects

MAX_LINES_PER_VALUE = 10_000
"""Maximum number of lines of one value."""

_DECODER = json.JSONDecoder(parse_constant=lambda name: None if name == "NaN" else float(name))
"""Reads NaN, which JSON does not have but many tools write for a missing number, as null."""
_SEPARATORS = " \t\r\n,"


def read_json_values(
    numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects
) -> Iterator[tuple[int, str, Any]]:
    """Yield (first line number, text, value) for each value; invalid JSON is rejected, and reading continues after it.

    A value that is incomplete at the end of its line continues on the next lines, until a line starts a new value: a
    line that begins with an opening brace and is complete JSON, or that is only the brace.
    """
    pending: list[tuple[int, str]] = []
    in_array: bool | None = None
    for number, line in numbered:
        text = line.strip()
        if not text:
            continue
        if in_array is None:
            in_array = text.startswith("[")
            text = text[1:] if in_array else text
        if pending:
            if line.startswith("{") and (text == "{" or _parse_values(text, in_array) is not None):
                _reject_unfinished(pending, source, rejects)
            else:
                pending.append((number, line))
                joined = "\n".join(part for _, part in pending)
                if text[-1] in "}]," and (values := _parse_values(joined, in_array)) is not None:
                    yield from ((pending[0][0], joined, value) for value in values)
                    pending.clear()
                elif len(pending) > MAX_LINES_PER_VALUE:
                    _reject_unfinished(pending, source, rejects)
                continue
        values = _parse_values(text, in_array)
        if values is not None:
            yield from ((number, text, value) for value in values)
        elif text.startswith("{") and not _is_broken(text):
            pending.append((number, text))
        else:
            rejects.reject(source, number, _reason(text), line)
    if pending:
        _reject_unfinished(pending, source, rejects)


def _parse_values(text: str, in_array: bool) -> list[Any] | None:
    """Parse a text that consists of JSON values only; None if it does not."""
    values: list[Any] = []
    at, end = 0, len(text)
    while True:
        while at < end and (text[at] in _SEPARATORS or (in_array and text[at] == "]")):
            at += 1
        if at == end:
            return values
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)


def _is_broken(text: str) -> bool:
    """Return whether the error lies before the end of the text, so that further lines can't complete it."""
    try:
        _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        return problem.pos < len(text.rstrip()) and not problem.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return True
    return False


def _reject_unfinished(pending: list[tuple[int, str]], source: str, rejects: Rejects) -> None:
    """Reject an incomplete value, under the number of its first line, and clear its lines."""
    joined = "\n".join(line for _, line in pending)
    rejects.reject(source, pending[0][0], _reason(joined), joined)
    pending.clear()


def _reason(text: str) -> str:
    try:
        _DECODER.decode(text.strip().rstrip(","))
    except json.JSONDecodeError as problem:
        return f"not JSON: {problem.msg} at column {problem.colno}"
    except RecursionError:
        return "nested too deeply, expected an event of a few levels"
    except ValueError:  # Python's own limit of digits in an integer
        return "has a number with too many digits, expected at most about 1e308"
    return "not JSON: no value stands alone here"
