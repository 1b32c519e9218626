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
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple

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
_request_log = logging.getLogger("feedrank.request")


class _RequestFields(NamedTuple):
    """The fields of a request's log line."""

    request_id: str
    route: str | None
    method: str
    status: int
    duration_ms: float
    rankings: list[str]
    bundle: str | None
    key: str | None
    degraded: list[str]


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


def log_request(
    *,
    request_id: str,
    route: str | None,
    method: str,
    status: int,
    seconds: float,
    rankings: Sequence[str] = (),
    bundle: str | None = None,
    key: str | None = None,
    degraded: Sequence[str] = (),
) -> None:
    """Log one request.

    route: the URL rule that matched, never the path. key: the public id of the API key, never its secret.
    """
    level = logging.INFO if status < 500 else logging.ERROR
    if not _request_log.isEnabledFor(level):
        return
    line = _RequestFields(
        request_id=_safe_id(request_id),
        route=None if route is None else route if _SAFE_ROUTE.fullmatch(route) else REDACTED,
        method=_safe_id(method),
        status=int(status),
        duration_ms=round(1000 * seconds, 2),
        rankings=[_safe_id(ranking) for ranking in rankings],
        bundle=None if bundle is None else _safe_id(bundle),
        key=None if key is None else _safe_id(key),
        degraded=[_safe_id(part) for part in degraded],
    )
    _request_log.log(level, "%s %s %d", line.method, line.route or "unmatched", line.status, extra={"line": line})


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
        if isinstance(line, _RequestFields):
            log_data.update(line._asdict())
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
        if not isinstance(line, _RequestFields):
            return text
        more = {
            "id": line.request_id,
            "rankings": ",".join(line.rankings),
            "bundle": line.bundle,
            "key": line.key,
            "degraded": ",".join(line.degraded),
        }
        return " ".join([text, f"{line.duration_ms} ms", *(f"{name}={value}" for name, value in more.items() if value)])


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
