"""Events as JSON, one a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from api.readers import lines
from api.readers.parsing import parsed
from api.readers.rejects import Rejects
from engine.events import Event, EventError


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """The events of a JSONL file (plain, gzip or zstd), in its order; blank lines are passed over."""
    for number, text in lines.read(path, rejects):
        if not text.strip():
            continue
        try:
            event = _event(text)
        except (EventError, _Unreadable) as problem:
            rejects.reject(str(path), number, str(problem), text)
        else:
            rejects.accept()
            yield event


class _Unreadable(ValueError):
    """A line that is no JSON of ours; the message is the reason."""


def _event(text: str) -> Event:
    try:
        body = _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        raise _Unreadable(f"not JSON: {problem.msg} at column {problem.colno}") from None
    except RecursionError:
        raise _Unreadable("nested too deeply, expected an event of a few levels") from None
    except _Unreadable:
        raise
    except ValueError:  # Python's own limit of digits in an integer.
        raise _Unreadable("holds a number of too many digits, expected at most about 1e308") from None
    # Only an escape can smuggle in half a surrogate pair, which no store could write as UTF-8 later.
    if "\\u" in text:
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise _Unreadable(
                "holds half of a surrogate pair (\\ud800 to \\udfff), expected whole characters"
            ) from None
    return parsed(body)


def _constant(name: str) -> float:
    raise _Unreadable(f"not JSON: found {name}, expected a finite number or null")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Unreadable(f"found {text[:40]}, expected a number of at most about 1e308")
    return number


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_finite)
