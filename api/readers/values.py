"""The JSON values of a text file: one a line, several a line, spread over lines, or the entries of one array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from api.readers.rejects import Rejects

MOST_LINES = 10_000
"""Lines that one value may be spread over."""

_DECODER = json.JSONDecoder()
_BETWEEN = " \t\r\n,"


def read(numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects) -> Iterator[tuple[int, str, Any]]:
    """(line it starts at, its text, value) of each; what is no JSON is rejected, and reading goes on after it.

    A value that is not whole at the end of its line goes on in the next ones, until a line starts a value of its own: a
    line that begins with an opening brace and is whole in itself, or is nothing but that brace.
    """
    held: list[tuple[int, str]] = []
    in_array: bool | None = None
    for number, line in numbered:
        text = line.strip()
        if not text:
            continue
        if in_array is None:
            in_array = text.startswith("[")
            text = text[1:] if in_array else text
        if held:
            if line.startswith("{") and (text == "{" or _values(text, in_array) is not None):
                _give_up(held, source, rejects)
            else:
                held.append((number, line))
                whole = "\n".join(part for _, part in held)
                if text[-1] in "}]," and (found := _values(whole, in_array)) is not None:
                    yield from ((held[0][0], whole, value) for value in found)
                    held.clear()
                elif len(held) > MOST_LINES:
                    _give_up(held, source, rejects)
                continue
        found = _values(text, in_array)
        if found is not None:
            yield from ((number, text, value) for value in found)
        elif text.startswith("{") and not _broken(text):
            held.append((number, text))
        else:
            rejects.reject(source, number, _reason(text), line)
    if held:
        _give_up(held, source, rejects)


def _values(text: str, in_array: bool) -> list[Any] | None:
    """The values that the text is made of, and nothing else; None where it is not."""
    found: list[Any] = []
    at, end = 0, len(text)
    while True:
        while at < end and (text[at] in _BETWEEN or (in_array and text[at] == "]")):
            at += 1
        if at == end:
            return found
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        found.append(value)


def _broken(text: str) -> bool:
    """Whether what follows can't mend it: the fault lies before the end of the text."""
    try:
        _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        return problem.pos < len(text.rstrip()) and not problem.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return True
    return False


def _give_up(held: list[tuple[int, str]], source: str, rejects: Rejects) -> None:
    """What was begun on the first of these lines never came to its end."""
    whole = "\n".join(line for _, line in held)
    rejects.reject(source, held[0][0], _reason(whole), whole)
    held.clear()


def _reason(text: str) -> str:
    try:
        _DECODER.decode(text.strip().rstrip(","))
    except json.JSONDecodeError as problem:
        return f"not JSON: {problem.msg} at column {problem.colno}"
    except RecursionError:
        return "nested too deeply, expected an event of a few levels"
    except ValueError:  # Python's own limit of digits in an integer
        return "holds a number of too many digits, expected at most about 1e308"
    return "not JSON: no value stands alone here"
