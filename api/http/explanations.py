"""Why each item of a ranking is where it is, by the feature rows that it was served with."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.events import RankingEvent
from engine.live import Live
from engine.types import Matrix


def of_event(event: RankingEvent, live: Live) -> list[dict[str, Any]]:
    """For each item: what recall gave it, its features, and their contributions, which with the base make its score.

    Nothing but the recall score is said where the rows are not there, or are of another list of features; and no
    contributions where another bundle serves now.
    """
    recalled = recall_of(event).get("scores") or [None] * len(event.items)
    rows = served_rows(event, live)
    if rows is None:
        return [_why(score, {}, {}, None) for score in recalled]
    names = live.pipeline.featurizer.names
    # another bundle's ranker may read the same features, but its contributions do not make this score
    same = event.extra.get("bundle") == live.pipeline.bundle and "team" not in event.extra
    explain = getattr(live.pipeline.ranker, "contributions", None) if same else None
    parts = None if explain is None else explain(rows)
    found = []
    for place, score in enumerate(recalled):
        features = {name: _number(value) for name, value in zip(names, rows[place].tolist(), strict=True)}
        if parts is None:
            found.append(_why(score, features, {}, None))
            continue
        *own, base = parts[place].tolist()
        found.append(_why(score, features, dict(zip(names, own, strict=True)), base))
    return found


def recall_of(event: RankingEvent) -> Mapping[str, Any]:
    """What a ranking says of recall; nothing where that is not as the recommender writes it, but was sent in so."""
    found = event.extra.get("served", {}).get("recall")
    whole = isinstance(found, Mapping) and all(
        isinstance(found.get(name), list) and len(found[name]) == len(event.items) for name in ("items", "scores")
    )
    return found if whole and isinstance(found, Mapping) else {}


def served_rows(event: RankingEvent, live: Live) -> Matrix | None:
    """(items, F) the feature rows in a ranking event, where they are of the features that are live."""
    stored = event.extra.get("features") or {}
    builder = live.pipeline.featurizer
    if stored.get("fingerprint") != builder.fingerprint or stored.get("rows") != len(event.items):
        return None
    try:
        values = np.frombuffer(b64decode(stored["data"], validate=True), "<f4")
        return np.asarray(values.reshape(len(event.items), len(builder.names)), np.float32)
    except (KeyError, TypeError, ValueError):  # it was sent in so
        return None


def _why(score: Any, features: dict[str, Any], parts: dict[str, float], base: float | None) -> dict[str, Any]:
    return {"recall_score": score, "features": features, "contributions": parts, "base": base}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
