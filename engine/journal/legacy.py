"""Upgrades events that a journal of version 0.1 stored: the one place that still knows the names of that version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
