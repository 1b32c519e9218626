"""Events as JSON, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.readers import lines
from api.readers.rejects import Rejects
from engine.events import Event, EventError, parse


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """The events of a JSONL file (plain, gzip or zstd), in its order; blank lines are passed over."""
    for number, text in lines.read(path, rejects):
        if not text.strip():
            continue
        try:
            event = parse(_decoded(text))
        except (EventError, _Unreadable) as problem:
            rejects.reject(str(path), number, str(problem), text)
        else:
            rejects.accept()
            yield event


class _Unreadable(ValueError):
    """A line that is no JSON; the message is the reason."""


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise _Unreadable(f"not JSON: {problem.msg} at column {problem.colno}") from None
    except RecursionError:
        raise _Unreadable("nested too deeply, expected an event of a few levels") from None
    except ValueError:  # Python's own limit of digits in an integer.
        raise _Unreadable("holds a number of too many digits, expected at most about 1e308") from None
