"""The log: one line of JSON for each record, or plain text for a terminal, on stderr; never what a person said or did.

Only what the API names itself gets in: a request line has its fixed fields, a mapping or an object in a message is
replaced by its type, extras are dropped, and of an exception there are its types and where it was raised. Its message
often quotes the value that it is about.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple

from pythonjsonlogger.json import JsonFormatter

LEVELS = ("debug", "info", "warning", "error", "critical")
UNREADABLE = "?"
"""Stands for a value that is not of the form of what it should be, such as an id with spaces."""
TELLING = ("sqlite3.OperationalError", "psycopg.OperationalError")
"""Exceptions whose messages speak of the database alone, such as that it is locked; as do the system's own."""
MOST_PLACES = 30
"""Of a trace, the innermost."""
QUIET = ("werkzeug", "sqlalchemy", "sentence_transformers", "transformers", "httpx")
"""Loggers that write raw paths or the values of statements, or what nobody asked, where they may say all."""
_WORD = re.compile(r"[A-Za-z0-9._:~-]{1,100}")
_RULE = re.compile(r"/[A-Za-z0-9._~<>:(),'/-]{0,199}")
_requests = logging.getLogger("feedrank.request")


class _Line(NamedTuple):
    """All that the log ever says of a request."""

    request_id: str
    route: str | None
    method: str
    status: int
    ms: float
    rankings: list[str]
    bundle: str | None
    key: str | None
    skipped: list[str]


def configure(level: str = "info", as_json: bool = True) -> None:
    """Send every logger's records of this level and above to stderr; a second call takes the place of the first."""
    if level.lower() not in LEVELS:
        raise ValueError(f"found the log level {level!r}, expected one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(handler)
    made = _Stderr(sys.stderr)
    made.setFormatter(_Json() if as_json else _Text())
    root.addHandler(made)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def request_line(
    *,
    request_id: str,
    route: str | None,
    method: str,
    status: int,
    seconds: float,
    rankings: Sequence[str] = (),
    bundle: str | None = None,
    key: str | None = None,
    skipped: Sequence[str] = (),
) -> None:
    """Log one request. route: the rule that matched, never the path. key: an API key's public id, never its secret."""
    level = logging.INFO if status < 500 else logging.ERROR
    if not _requests.isEnabledFor(level):
        return
    line = _Line(
        request_id=_word(request_id),
        route=None if route is None else route if _RULE.fullmatch(route) else UNREADABLE,
        method=_word(method),
        status=int(status),
        ms=round(1000 * seconds, 2),
        rankings=[_word(one) for one in rankings],
        bundle=None if bundle is None else _word(bundle),
        key=None if key is None else _word(key),
        skipped=[_word(one) for one in skipped],
    )
    _requests.log(level, "%s %s %d", line.method, line.route or "unmatched", line.status, extra={"line": line})


class _Stderr(logging.StreamHandler[Any]):
    """The one handler."""

    def handleError(self, record: logging.LogRecord) -> None:
        """A record that can't be written; the standard library would print its arguments."""
        kind = getattr(sys.exc_info()[0], "__name__", "an error")
        with suppress(OSError, ValueError):  # stderr itself may be what is gone
            print(f"a record of {record.name}, line {record.lineno}, could not be logged: {kind}", file=sys.stderr)


class _Discreet(logging.Formatter):
    """Shared by both forms: what may be said, and when it was."""

    def format(self, record: logging.LogRecord) -> str:
        """The record without what is not to be told; it is left as it is for other handlers."""
        told = copy(record)
        told.exc_text = None
        if not isinstance(record.msg, str):
            told.msg, told.args = _told(record.msg), ()
        elif isinstance(record.args, Mapping):
            named = "%(" in record.msg
            told.args = {name: _told(one) for name, one in record.args.items()} if named else (_told(record.args),)
        elif record.args:
            told.args = tuple(_told(one) for one in record.args)
        return super().format(told)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """UTC, to the millisecond."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatException(self, ei: Any) -> str:
        """The types of an exception and of those that it came of, and where it was raised."""
        _, error, trace = ei
        chain = " <- ".join(_kind(one) for one in _chain(error)) or "no exception"
        return "\n".join([chain, *(f"  {place}" for place in _places(trace))])


class _Json(_Discreet, JsonFormatter):
    """A line of JSON."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """These, and nothing else that a record may carry."""
        log_data["time"] = self.formatTime(record)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.message
        line = getattr(record, "line", None)
        if isinstance(line, _Line):
            log_data.update(line._asdict())
        if record.exc_info and "exc_info" in message_dict:
            log_data["error"] = message_dict["exc_info"]


class _Text(_Discreet):
    """A line for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, then what else is known of a request."""
        text = super().formatMessage(record)
        line = getattr(record, "line", None)
        if not isinstance(line, _Line):
            return text
        more = {
            "id": line.request_id,
            "rankings": ",".join(line.rankings),
            "bundle": line.bundle,
            "key": line.key,
            "skipped": ",".join(line.skipped),
        }
        return " ".join([text, f"{line.ms} ms", *(f"{name}={value}" for name, value in more.items() if value)])


def _word(value: str) -> str:
    return value if _WORD.fullmatch(value) else UNREADABLE


def _told(value: object) -> Any:
    """A value that may stand in a message: numbers, texts and paths; of anything else its type."""
    return value if value is None or isinstance(value, (str, int, float, PurePath)) else f"({type(value).__name__})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # even where it is hidden: a type tells nothing of anybody


def _kind(error: BaseException) -> str:
    names = [f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__]
    said = error.strerror if isinstance(error, OSError) else str(error) if set(names) & set(TELLING) else None
    name = names[0].removeprefix("builtins.")
    return f"{name}: {' '.join(said.split())}" if said else name


def _places(trace: TracebackType | None) -> Iterator[str]:
    for frame in traceback.extract_tb(trace, limit=-MOST_PLACES):
        yield f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
