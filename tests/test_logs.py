"""Logs: the fields of a request line, and that no user data is logged by any call."""

from __future__ import annotations

import inspect
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedrank.api import logs

SECRET = "what ann asked for"
BODY = {"user": "ann", "query": SECRET, "history": ["a"], "fields": {"title": SECRET}, "token": "t0p"}
LINE: dict[str, Any] = {
    "request_id": "4f1c",
    "route": "/v1/recommend",
    "method": "POST",
    "status": 200,
    "seconds": 0.0123456,
    "rankings": ["r1", "r2"],
    "bundle": "toy",
    "key": "pk_7",
    "degraded": ["cross_encoder"],
}
log = logging.getLogger("engine.somewhere")


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    """Restore the root logger after a test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    quiet = {name: logging.getLogger(name).level for name in logs.QUIET_LOGGERS}
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name, was in quiet.items():
        logging.getLogger(name).setLevel(was)


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was written to stderr since the last call."""
    return lambda: capsys.readouterr().err


def lines(text: str) -> list[dict[str, Any]]:
    """The records that were written as JSON."""
    return [json.loads(line) for line in text.splitlines()]


# --- what is said


def test_a_request_is_one_line_of_json(stderr: Callable[[], str]) -> None:
    logs.configure_logging("info", as_json=True)
    logs.log_request(logs.RequestLine(**LINE))
    (line,) = lines(stderr())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "feedrank.request",
        "message": "POST /v1/recommend 200",
        "request_id": "4f1c",
        "route": "/v1/recommend",
        "method": "POST",
        "status": 200,
        "duration_ms": 12.35,
        "rankings": ["r1", "r2"],
        "bundle": "toy",
        "key": "pk_7",
        "degraded": ["cross_encoder"],
    }


def test_a_request_is_one_line_of_text(stderr: Callable[[], str]) -> None:
    logs.configure_logging("info", as_json=False)
    logs.log_request(logs.RequestLine(**LINE))
    logs.log_request(logs.RequestLine(request_id="5", route=None, method="GET", status=404, seconds=0.001))
    first, second = (line.partition("Z ")[2] for line in stderr().splitlines())
    fields = "id=4f1c rankings=r1,r2 bundle=toy key=pk_7 degraded=cross_encoder"
    assert first == f"INFO    feedrank.request: POST /v1/recommend 200 12.35 ms {fields}"
    assert second == "INFO    feedrank.request: GET unmatched 404 1.0 ms id=5"


def test_the_time_is_utc_to_the_millisecond(stderr: Callable[[], str]) -> None:
    logs.configure_logging()
    log.handle(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 30, "levelname": "W", "created": 1.25}))
    assert lines(stderr())[0]["time"] == "1970-01-01T00:00:01.250Z"


def test_a_level_hides_lower_levels(stderr: Callable[[], str]) -> None:
    logs.configure_logging("WARNING")
    log.info("not this")
    log.warning("%d of %s", 3, "these")
    logs.log_request(logs.RequestLine(**LINE))
    logs.log_request(logs.RequestLine(**{**LINE, "status": 503}))
    assert [(line["level"], line["message"]) for line in lines(stderr())] == [
        ("warning", "3 of these"),
        ("error", "POST /v1/recommend 503"),
    ]
    with pytest.raises(ValueError, match="found the log level 'loud', expected one of debug, info"):
        logs.configure_logging("loud")


def test_to_configure_again_does_not_double_lines(stderr: Callable[[], str]) -> None:
    logs.configure_logging("info", as_json=False)
    logs.configure_logging("info", as_json=True)
    log.info("once")
    assert [line["message"] for line in lines(stderr())] == ["once"]


# --- what is not


def test_a_request_body_can_not_get_into_a_request_line(stderr: Callable[[], str]) -> None:
    logs.configure_logging()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        logs.log_request(logs.RequestLine(**LINE, **BODY))
    names = set(inspect.signature(logs.RequestLine).parameters)
    assert names == LINE.keys()
    assert stderr() == ""


def as_extra() -> None:
    log.warning("a message", extra={**BODY, "line": BODY})


def as_message() -> None:
    log.warning(BODY)


def as_argument() -> None:
    log.warning("found %s and %r", BODY, [SECRET])


def as_only_argument() -> None:
    log.warning("found %s", BODY)


def as_named_arguments() -> None:
    log.warning("found %(fields)s", BODY)


def as_exception_message() -> None:
    try:
        raise KeyError(SECRET) from ValueError(f"ann: {SECRET}")
    except KeyError:
        log.exception("a feed failed")


def as_exception() -> None:
    log.warning(ValueError(SECRET))


def as_wrong_format() -> None:
    log.warning("found %d of %s", SECRET)


def as_request_values() -> None:
    for name in ("request_id", "route", "method", "bundle", "key"):
        logs.log_request(logs.RequestLine(**{**LINE, name: SECRET}))
    logs.log_request(logs.RequestLine(**{**LINE, "rankings": [SECRET], "degraded": [SECRET]}))


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize(
    "door",
    [
        as_extra,
        as_message,
        as_argument,
        as_only_argument,
        as_named_arguments,
        as_exception_message,
        as_exception,
        as_wrong_format,
        as_request_values,
    ],
)
def test_no_user_data_is_logged(door: Callable[[], None], as_json: bool, stderr: Callable[[], str]) -> None:
    logs.configure_logging("debug", as_json)
    # pytest's own handlers keep the record whole, and complain where its format is wrong
    logging.getLogger().handlers[:] = logging.getLogger().handlers[-1:]
    door()
    logged = stderr()
    assert logged
    assert SECRET not in logged
    assert "ann" not in logged.replace("annoy", "")
    assert "t0p" not in logged
    assert ("could not be logged" in logged) == (door is as_wrong_format)


def test_other_handlers_get_the_record_whole(stderr: Callable[[], str], caplog: pytest.LogCaptureFixture) -> None:
    logs.configure_logging()
    as_argument()
    as_exception_message()
    assert SECRET in caplog.text
    assert SECRET not in stderr()


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_an_exception_is_logged_with_type_and_location(as_json: bool, stderr: Callable[[], str]) -> None:
    logs.configure_logging("info", as_json)
    try:
        try:
            raise sqlite3.OperationalError("database is locked")
        except sqlite3.OperationalError:
            raise RuntimeError(SECRET) from None
    except RuntimeError:
        log.exception("a write failed")
    logged = lines(stderr())[0]["error"] if as_json else stderr()
    assert "RuntimeError <- sqlite3.OperationalError: database is locked" in logged
    assert f"tests/{Path(__file__).name}:" in logged
    assert "test_an_exception_is_logged_with_type_and_location" in logged


def test_errors_of_the_operating_system_are_logged(stderr: Callable[[], str], tmp_path: Path) -> None:
    logs.configure_logging()
    try:
        (tmp_path / "absent").read_text()
    except FileNotFoundError:
        log.exception("no file at %s", tmp_path)
    (line,) = lines(stderr())
    assert line["message"] == f"no file at {tmp_path}"
    assert line["error"].startswith("FileNotFoundError: No such file or directory\n")


def test_raw_paths_and_statements_are_not_logged(stderr: Callable[[], str]) -> None:
    logs.configure_logging("debug")
    logging.getLogger("werkzeug").info("GET /v1/users/ann")
    logging.getLogger("sqlalchemy.engine").info("INSERT ... ann")
    assert stderr() == ""
