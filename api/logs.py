"""Log to stderr, one JSON line a record or plain text for a terminal, without personal data.

A request line has fixed fields only. In messages, mappings and objects are replaced by their type, and extras are
dropped. Of an exception, the log has its types and where it was raised, but not its message, which often quotes the
value that caused it.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

LEVELS = ("debug", "info", "warning", "error", "critical")
REDACTED = "?"
"""Replaces a value that has not the expected form, such as an id with spaces."""
DATABASE_ERRORS = ("sqlite3.OperationalError", "psycopg.OperationalError")
"""Exceptions whose messages are logged, because they describe the database only, e.g. that it is locked.

OSError messages are logged too.
"""
MAX_FRAMES = 30
"""Number of innermost frames of a traceback that are logged."""
QUIET_LOGGERS = ("werkzeug", "sqlalchemy", "sentence_transformers", "transformers", "httpx")
"""Loggers limited to warnings: below that they write raw paths, the values of SQL statements, or noise."""
_SAFE_ID = re.compile(r"[A-Za-z0-9._:~-]{1,100}")
_SAFE_ROUTE = re.compile(r"/[A-Za-z0-9._~<>:(),'/-]{0,199}")
REQUESTS = logging.getLogger("feedrank.request")
"""The logger of requests."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """What the log says of a request; it has no field for a body."""

    request_id: str
    route: str | None
    """The URL rule that matched, never the path; None: no rule."""
    method: str
    status: int
    seconds: float
    rankings: Sequence[str] = ()
    """Ids of the rankings made."""
    bundle: str | None = None
    key: str | None = None
    """The public id of the API key, never its secret."""
    degraded: Sequence[str] = ()

    def redacted(self) -> dict[str, Any]:
        """Return the fields as the log has them: what has not the form of an id is replaced."""
        return {
            "request_id": _safe_id(self.request_id),
            "route": self.route if self.route is None or _SAFE_ROUTE.fullmatch(self.route) else REDACTED,
            "method": _safe_id(self.method),
            "status": int(self.status),
            "duration_ms": round(1000 * self.seconds, 2),
            "rankings": [_safe_id(ranking) for ranking in self.rankings],
            "bundle": None if self.bundle is None else _safe_id(self.bundle),
            "key": None if self.key is None else _safe_id(self.key),
            "degraded": [_safe_id(part) for part in self.degraded],
        }


class _RedactedLine(dict[str, Any]):
    """The redacted fields of a request's log line."""


def configure_logging(level: str = "info", as_json: bool = True) -> None:
    """Log all records of this level and above to stderr; a second call replaces the first.

    Raises ValueError for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"found the log level {level!r}, expected one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _StderrHandler)]:
        root.removeHandler(handler)
    new_handler = _StderrHandler(sys.stderr)
    new_handler.setFormatter(_JsonLogFormatter() if as_json else _TextLogFormatter())
    root.addHandler(new_handler)
    root.setLevel(level.upper())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def log_request(line: RequestLine) -> None:
    """Log one request: as information, or as an error if its status is 500 or more."""
    level = logging.INFO if line.status < 500 else logging.ERROR
    if REQUESTS.isEnabledFor(level):
        fields = _RedactedLine(line.redacted())
        text = fields["method"], fields["route"] or "unmatched", fields["status"]
        REQUESTS.log(level, "%s %s %d", *text, extra={"line": fields})


class _StderrHandler(logging.StreamHandler[Any]):
    """The handler that writes to stderr."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Report a record that can't be written, without its arguments, which the standard library would print."""
        kind = getattr(sys.exc_info()[0], "__name__", "an error")
        with suppress(OSError, ValueError):  # stderr itself may be closed
            print(f"a record of {record.name}, line {record.lineno}, could not be logged: {kind}", file=sys.stderr)


class _RedactingFormatter(logging.Formatter):
    """Base of both formatters: redacts messages and exceptions, and formats times."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a redacted copy of the record; other handlers see the original."""
        redacted = copy(record)
        redacted.exc_text = None
        if not isinstance(record.msg, str):
            redacted.msg, redacted.args = _redact(record.msg), ()
        elif isinstance(record.args, Mapping):
            if "%(" in record.msg:
                redacted.args = {name: _redact(value) for name, value in record.args.items()}
            else:
                redacted.args = (_redact(record.args),)
        elif record.args:
            redacted.args = tuple(_redact(value) for value in record.args)
        return super().format(redacted)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Format the time as ISO-8601 in UTC, to the millisecond."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatException(self, ei: Any) -> str:
        """Format the types of an exception and of its causes, and the frames where it was raised."""
        _, error, trace = ei
        chain = " <- ".join(_describe_exception(cause) for cause in _cause_chain(error)) or "no exception"
        return "\n".join([chain, *(f"  {frame}" for frame in _frames(trace))])


class _JsonLogFormatter(_RedactingFormatter, JsonFormatter):
    """Formats a record as a line of JSON."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add these fields, and nothing else that a record may carry."""
        log_data["time"] = self.formatTime(record)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.message
        line = getattr(record, "line", None)
        if isinstance(line, _RedactedLine):
            log_data.update(line)
        if record.exc_info and "exc_info" in message_dict:
            log_data["error"] = message_dict["exc_info"]


class _TextLogFormatter(_RedactingFormatter):
    """Formats a record as a line of text for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the message, followed by the request's fields."""
        text = super().formatMessage(record)
        line = getattr(record, "line", None)
        if not isinstance(line, _RedactedLine):
            return text
        more = {
            "id": line["request_id"],
            "rankings": ",".join(line["rankings"]),
            "bundle": line["bundle"],
            "key": line["key"],
            "degraded": ",".join(line["degraded"]),
        }
        return " ".join(
            [text, f"{line['duration_ms']} ms", *(f"{name}={value}" for name, value in more.items() if value)]
        )


def _safe_id(value: str) -> str:
    return value if _SAFE_ID.fullmatch(value) else REDACTED


def _redact(value: object) -> Any:
    """Return numbers, strings and paths as they are, and the type name of any other value."""
    return value if value is None or isinstance(value, (str, int, float, PurePath)) else f"({type(value).__name__})"


def _cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # also a suppressed context: a type holds no personal data


def _describe_exception(error: BaseException) -> str:
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    message = (
        error.strerror if isinstance(error, OSError) else str(error) if set(names) & set(DATABASE_ERRORS) else None
    )
    name = names[0].removeprefix("builtins.")
    return f"{name}: {' '.join(message.split())}" if message else name


def _frames(trace: TracebackType | None) -> Iterator[str]:
    for frame in traceback.extract_tb(trace, limit=-MAX_FRAMES):
        yield f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
