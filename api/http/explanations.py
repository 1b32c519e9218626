"""Explains the scores of a ranking from its logged features."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import numpy as np

from feedrank.engine.events.events import RankingEvent
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import Matrix


def explain_ranking(event: RankingEvent, snapshot: ServingSnapshot) -> list[dict[str, Any]]:
    """Explain each item of a ranking: recall score, features and TreeSHAP contributions.

    With the base, the contributions sum to the score. Features are empty if no rows were logged or their fingerprint
    is another one; contributions are empty if another bundle serves now.
    """
    recalled = logged_recall(event).get("scores") or [None] * len(event.items)
    rows = logged_feature_rows(event, snapshot)
    if rows is None:
        return [_explanation(score, {}, {}, None) for score in recalled]
    names = snapshot.pipeline.featurizer.names
    # another bundle's ranker may read the same features, but its contributions do not make this score
    same = event.extra.get("bundle") == snapshot.pipeline.bundle and "team" not in event.extra
    explain = getattr(snapshot.pipeline.ranker, "contributions", None) if same else None
    parts = None if explain is None else explain(rows)
    explanations = []
    for position, score in enumerate(recalled):
        features = {name: _finite_or_none(value) for name, value in zip(names, rows[position].tolist(), strict=True)}
        if parts is None:
            explanations.append(_explanation(score, features, {}, None))
            continue
        *contributions, base = parts[position].tolist()
        explanations.append(_explanation(score, features, dict(zip(names, contributions, strict=True)), base))
    return explanations


def logged_recall(event: RankingEvent) -> Mapping[str, Any]:
    """Return the logged recall of a ranking; empty if a client sent the event and the field has another shape."""
    recall = event.extra.get("served", {}).get("recall")
    is_valid = isinstance(recall, Mapping) and all(
        isinstance(recall.get(name), list) and len(recall[name]) == len(event.items) for name in ("items", "scores")
    )
    return recall if is_valid and isinstance(recall, Mapping) else {}


def logged_feature_rows(event: RankingEvent, snapshot: ServingSnapshot) -> Matrix | None:
    """(items, F) logged feature rows of a ranking; None if the fingerprint is not that of the serving features."""
    stored = event.extra.get("features") or {}
    builder = snapshot.pipeline.featurizer
    if stored.get("fingerprint") != builder.fingerprint or stored.get("rows") != len(event.items):
        return None
    try:
        values = np.frombuffer(b64decode(stored["data"], validate=True), "<f4")
        return np.asarray(values.reshape(len(event.items), len(builder.names)), np.float32)
    except (KeyError, TypeError, ValueError):  # a client sent the event in another shape
        return None


def _explanation(
    recall_score: Any, features: dict[str, Any], contributions: dict[str, float], base: float | None
) -> dict[str, Any]:
    return {"recall_score": recall_score, "features": features, "contributions": contributions, "base": base}


def _finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
