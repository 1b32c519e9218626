"""Explains the scores of a ranking from its logged features."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import Matrix


def explain_ranking(record: RankingRecord, snapshot: ServingSnapshot) -> list[dict[str, Any]]:
    """Explain each item of a ranking: recall score, features and TreeSHAP contributions.

    With the base, the contributions sum to the score. `categories` has the text of each feature that is a code.
    Features are empty if no rows were logged or their fingerprint is another one; contributions are empty if another
    bundle serves now.
    """
    recalled = record.recall.scores or (None,) * len(record.items)
    rows = logged_feature_rows(record, snapshot)
    if rows is None:
        return [_explanation(score, {}, {}, None, {}) for score in recalled]
    names = snapshot.pipeline.featurizer.names
    texts = _category_texts(snapshot)
    # another bundle's ranker may read the same features, but its contributions do not make this score
    same = record.bundle == snapshot.pipeline.bundle and record.team is None
    explain = getattr(snapshot.pipeline.ranker, "contributions", None) if same else None
    parts = None if explain is None else explain(rows)
    explanations = []
    for position, score in enumerate(recalled):
        features = {name: _finite_or_none(value) for name, value in zip(names, rows[position].tolist(), strict=True)}
        categories = {
            name: values[int(code)] for name, values in texts.items() if (code := features.get(name)) is not None
        }
        if parts is None:
            explanations.append(_explanation(score, features, {}, None, categories))
            continue
        *contributions, base = parts[position].tolist()
        of_features = dict(zip(names, contributions, strict=True))
        explanations.append(_explanation(score, features, of_features, base, categories))
    return explanations


def explained_features(record: RankingRecord, snapshot: ServingSnapshot) -> list[dict[str, Any]]:
    """Describe the features of `explain_ranking`, in column order; empty where it has none."""
    if logged_feature_rows(record, snapshot) is None:
        return []
    return [asdict(feature) for feature in snapshot.pipeline.featurizer.features]


def logged_feature_rows(record: RankingRecord, snapshot: ServingSnapshot) -> Matrix | None:
    """(items, F) logged feature rows of a ranking; None if the fingerprint is not that of the serving features."""
    featurizer = snapshot.pipeline.featurizer
    if record.features is None or record.features.fingerprint != featurizer.fingerprint:
        return None
    return record.features.decode(len(featurizer.names))


def _category_texts(snapshot: ServingSnapshot) -> dict[str, tuple[str, ...]]:
    """Return feature -> the texts of its codes, for the features that are codes."""
    model = getattr(snapshot.pipeline.featurizer, "item_model", None)
    vocabularies = getattr(model, "vocabularies", {})
    is_code = (feature.name for feature in snapshot.pipeline.featurizer.features if feature.is_category)
    return {name: vocabularies[name].values for name in is_code if name in vocabularies}


def _explanation(
    recall_score: Any, features: dict[str, Any], contributions: dict[str, float], base: float | None,
    categories: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    return {
        "recall_score": recall_score, "features": features, "contributions": contributions, "base": base,
        "categories": categories,
    }  # fmt: skip


def _finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
