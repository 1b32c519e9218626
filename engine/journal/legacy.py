"""Upgrades events that an older version stored: the one place that still knows its names and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from feedrank.engine.events import checks

TOMBSTONE = "forgotten"
"""The field that made a user event a tombstone."""
COLUMNS = {"person": "user_id", "known": "effective_time"}
"""Old column -> column of the table of events."""
INDEX = "events_in_order"
"""The old index by effective time."""

_SERVED = {
    "items": "items_offset",
    "pairs": "cross_encoder_scores",
    "step": "fallback",
    "skipped": "degraded",
    "asked": "options",
    "arm": "arm_overrides",
    "places": "ranks",
    "kept": "logged",
}
_NUMBERS = {"value": checks.AMOUNT, "dwell_ms": checks.DURATION, "position": checks.POSITION}
_LISTS = {"positions": checks.POSITION, "scores": checks.SCORE, "propensities": checks.PROBABILITY}
_INT32 = checks.NumberRange(-checks.MAX_POSITION, checks.MAX_POSITION, "")
"""What older versions could hold as a position; they read one below 1 as none."""
_DEGRADED = {"encode": "encode_query", "late": "late_interaction", "pairs": "cross_encoder"}
_SOURCES = {"given": "explicit"}
_ARM = {"rescored": "rerank_top_k"}
_SPEC = {"minimum_days": "min_days", "minimum_units": "min_units"}
_GUARDRAIL = {"worst": "max_relative_loss"}
_METRIC = {"per": "denominator"}
_SHADOW_REPORT = {
    "feeds": "rankings",
    "first": "same_top_item",
    "tau": "kendall_tau",
    "scores": "arm_scores",
    "shown_scores": "served_scores",
    "ms": "latency_counts",
}


def upgrade(body: dict[str, Any]) -> dict[str, Any]:
    """Return a stored event in today's names; an event of today comes back unchanged."""
    upgrader = _UPGRADERS.get(body.get("event", ""))
    return body if upgrader is None else upgrader(body)


def without_unusable_numbers(body: dict[str, Any]) -> dict[str, Any]:
    """Return an event without the numbers that older versions took in, did no harm with, and that are refused today.

    Such are a negative dwell time, or positions from 0. What a reader could not hold stays, so the event stays refused.
    """
    if body.get("event") == "interaction":
        return {name: value for name, value in body.items() if not _is_unusable(value, _NUMBERS.get(name))}
    if body.get("event") != "ranking":
        return body
    usable = {name: value for name, value in body.items() if not _has_unusable(value, _LISTS.get(name))}
    if isinstance(items := body.get("items"), list):
        usable["items"] = [
            {name: value for name, value in entry.items() if name != "label" or not _is_unusable(value, checks.AMOUNT)}
            if isinstance(entry, Mapping)
            else entry
            for entry in items
        ]
    return usable


def _is_unusable(value: Any, allowed: checks.NumberRange | None) -> bool:
    return allowed is not None and value not in allowed and checks.is_finite(value)


def _has_unusable(values: Any, allowed: checks.NumberRange | None) -> bool:
    if allowed is None or not isinstance(values, list) or all(value in allowed for value in values):
        return False
    return all(value in _INT32 if allowed is checks.POSITION else checks.is_finite(value) for value in values)


def _ranking(body: dict[str, Any]) -> dict[str, Any]:
    served = body.get("served")
    if not isinstance(served, Mapping):
        return body
    served = _renamed(served, _SERVED)
    if isinstance(recall := served.get("recall"), Mapping):
        served["recall"] = _renamed(recall, {"found": "candidates"})
    if isinstance(options := served.get("options"), Mapping) and isinstance(options.get("filters"), Mapping):
        served["options"] = {**options, "filters": _renamed(options["filters"], {"seen": "include_seen"})}
    if isinstance(overrides := served.get("arm_overrides"), Mapping):
        served["arm_overrides"] = _renamed(overrides, _ARM)
    if isinstance(parts := served.get("degraded"), list):
        served["degraded"] = [_DEGRADED.get(part, part) if isinstance(part, str) else part for part in parts]
    fields = body.get("fields")
    if isinstance(fields, list):
        body = {**body, "fields": [_source(field) for field in fields]}
    return {**body, "served": served}


def _source(field: Any) -> Any:
    """Upgrade the name of the retriever, which is one of a ranking's fields."""
    if not isinstance(field, Mapping) or field.get("name") != "source" or not isinstance(field.get("value"), str):
        return field
    return {**field, "value": _SOURCES.get(field["value"], field["value"])}


def _experiment(body: dict[str, Any]) -> dict[str, Any]:
    body = dict(_renamed(body, {"told": "payload"}))
    payload = body.get("payload")
    if not isinstance(payload, Mapping):
        return body
    if body.get("change") == "create":
        return {**body, "payload": _spec(payload)}
    return {**body, "payload": _renamed(payload, _SHADOW_REPORT)} if body.get("change") == "shadow" else body


def _spec(payload: Mapping[str, Any]) -> dict[str, Any]:
    spec = dict(_renamed(payload, _SPEC))
    for name, keys in (("arms", _ARM), ("metrics", _METRIC)):
        if isinstance(parts := spec.get(name), Mapping):
            spec[name] = {key: _renamed(part, keys) for key, part in parts.items()}
    if isinstance(guardrails := spec.get("guardrails"), list):
        spec["guardrails"] = [_renamed(guardrail, _GUARDRAIL) for guardrail in guardrails]
    return spec


def _user(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("fields") != [{"name": TOMBSTONE, "value": True}]:
        return body
    return {**body, "fields": [{"name": "erased", "value": True}]}


def _renamed(values: Any, names: Mapping[str, str]) -> Any:
    """Rename the keys of an object; a key that is there under its new name already wins."""
    if not isinstance(values, Mapping):
        return values
    return {names.get(name, name): value for name, value in values.items() if names.get(name, "") not in values}


_UPGRADERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ranking": _ranking,
    "experiment": _experiment,
    "user": _user,
}
