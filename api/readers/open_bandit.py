"""Read the Open Bandit Dataset (Saito et al., Open Bandit Dataset and Pipeline, 2021), with its propensities.

A row is one item at one of three positions of a page. The log does not say which rows belong to one page. So each row
becomes a ranking of one item, with its position and the propensity with which the logging policy showed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from feedrank.api.readers import lines
from feedrank.api.readers.delimited import split_table
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.checks import EventError, as_float
from feedrank.engine.events.codec import parse, parse_timestamp
from feedrank.engine.events.events import Event

_LOG_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
_POLICIES = ("random", "bts")


def is_log(columns: Iterable[str]) -> bool:
    """Return whether a header is that of the bandit log."""
    return set(_LOG_COLUMNS) <= set(columns)


def is_item_context(columns: Iterable[str]) -> bool:
    """Return whether a header is that of the item features."""
    return {"item_id", "item_feature_0"} <= set(columns)


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a log (`.../bts/men/men.csv`, `bts_men.csv`) or of an item context; the header tells which.

    Policy and campaign come from the path: the campaign becomes the surface, the policy the variant. A click is an
    interaction 1 ms after its ranking. User features become fields of the ranking; there are no users. Item ids are
    unique per campaign only, so they get its name as prefix. Event ids consist of policy, campaign and line number, so
    that importing a file twice counts it once. Raises ValueError for another header.
    """
    source = str(path)
    policy, campaign = _policy_and_campaign(path)
    numbered = lines.read_lines(path, rejects)
    table = split_table(numbered, source, rejects, DEFAULTS, (), (*_LOG_COLUMNS, "item_feature_0"))
    if table is None:
        return
    header = table.header
    if not (is_log(header) or is_item_context(header)):
        raise ValueError(
            f"{source}: found the columns {', '.join(header[:8])}, expected those of the Open Bandit Dataset: "
            f"{', '.join(_LOG_COLUMNS)}, or item_id, item_feature_0 and so on"
        )
    for number, text, cells in table.records:
        row = dict(zip(header, cells, strict=True))
        try:
            bodies = (
                _item_event(row, campaign)
                if is_item_context(header)
                else _ranking_and_click(row, policy, campaign, number)
            )
            events = [parse(body) for body in bodies]
        except (EventError, ValueError) as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield from events


def _policy_and_campaign(path: Path) -> tuple[str, str]:
    """Return policy and campaign, from the names of the file and of its folders."""
    words = [word for part in reversed(path.parts) for word in part.lower().split(".")[0].split("_")]
    policy = next((word for word in words if word in _POLICIES), "")
    return policy, next((word for word in words if word in ("men", "women", "all")), "all")


def _ranking_and_click(row: Mapping[str, str], policy: str, campaign: str, number: int) -> Iterator[dict[str, Any]]:
    at = parse_timestamp(row["timestamp"])
    item = f"{campaign}-{_integer(row, 'item_id')}"
    position, click = _integer(row, "position"), _integer(row, "click")
    name = f"obd:{policy}:{campaign}:{number}"
    features = {key: row[key] for key in row if key.startswith("user_feature_") and row[key]}
    if click not in (0, 1):
        raise EventError("click", f"found {row['click']!r}, expected 0 or 1")
    yield {
        "event": "ranking", "id": name, "timestamp": at, "items": [{"id": item}], "positions": [position],
        "propensities": [_number(row, "propensity_score")], "surface": campaign,
        **({"variant": policy} if policy else {}),
        "fields": [{"name": key, "value": value} for key, value in features.items()],
    }  # fmt: skip
    if click:
        yield {
            "event": "interaction", "id": f"{name}:click", "timestamp": at + 1, "item": item, "type": "click",
            "ranking": name, "position": position,
        }  # fmt: skip


def _item_event(row: Mapping[str, str], campaign: str) -> Iterator[dict[str, Any]]:
    item = f"{campaign}-{_integer(row, 'item_id')}"
    fields: list[dict[str, Any]] = []
    for key, value in row.items():
        if key.startswith("item_feature_") and value:
            is_numeric = key == "item_feature_0"
            fields.append({"name": key, "value": _number(row, key) if is_numeric else value})
    yield {"event": "item", "id": f"obd:{item}", "timestamp": 0, "item": item, "fields": fields}


def _integer(row: Mapping[str, str], name: str) -> int:
    number = as_float(row[name])
    if number is None or not number.is_integer():
        raise EventError(name, f"found {row[name]!r}, expected a whole number")
    return int(number)


def _number(row: Mapping[str, str], name: str) -> float:
    number = as_float(row[name])
    if number is None:
        raise EventError(name, f"found {row[name]!r}, expected a number")
    return number
