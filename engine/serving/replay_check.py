"""Replay checks: recompute a logged ranking under its recorded conditions and compare it with what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.types import Rows, Scores

_GATING_STAGES = {"encode_query": "encode_query", "rank": "features"}
"""Skipped part -> the stage whose time check led to the skip."""


class ReplayBudget(LatencyBudget):
    """A latency budget that measures no time and skips what the logged ranking skipped."""

    def __init__(self, skipped: Sequence[str]) -> None:
        super().__init__(lambda: 0.0)
        self._skipped_stages = {_GATING_STAGES[part] for part in skipped if part in _GATING_STAGES}

    def may_start(self, stage: str) -> bool:
        """Return True if the logged ranking started this stage."""
        return stage not in self._skipped_stages

    def has_time_for(self, *stages: str, units: int = 1) -> bool:
        """Return True if the logged ranking had time for the first of these stages."""
        return stages[0] not in self._skipped_stages


@dataclass(frozen=True, eq=False, slots=True)
class RecordedScoreCache:
    """A read-only cache of the cross-encoder scores of one logged ranking."""

    recorded: Scores
    """(candidates,) in recall order."""

    def scores(self, text: str, rows: Rows) -> Scores:
        """Return the recorded scores; all NaN where recall now returns another number of candidates."""
        if len(rows) != len(self.recorded):
            return np.full(len(rows), np.nan, np.float32)
        return self.recorded.copy()

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Do nothing: the record does not change."""

    def forget(self) -> None:
        """Do nothing: the record does not change."""


def with_recorded_scores(pipeline: Pipeline, scores: Scores) -> Pipeline:
    """Return a copy of the pipeline whose reranker uses only these recorded cross-encoder scores."""
    if pipeline.reranker is None:
        return pipeline
    return replace(pipeline, reranker=replace(pipeline.reranker, cache=RecordedScoreCache(scores), top_k=0))


@dataclass(frozen=True, slots=True)
class RankingDifference:
    """The first position at which a logged and a replayed ranking differ."""

    position: int
    """From 1."""
    served: tuple[str, float | None] | None
    """Item and score as logged; None: that list is shorter."""
    replayed: tuple[str, float | None] | None
    """Item and score as replayed; None: that list is shorter."""
    features: tuple[str, ...]
    """Names of the features that differ there, if the item is the same."""


def first_difference(
    served: RankingRecord, replayed: RankingRecord, feature_names: Sequence[str]
) -> RankingDifference | None:
    """Find the first position at which item, score or features of the replayed ranking differ; None if identical."""
    old, new = _scored_items(served), _scored_items(replayed)
    for index in range(max(len(old), len(new))):
        before, after = (entries[index] if index < len(entries) else None for entries in (old, new))
        same_item = before is not None and after is not None and before[0] == after[0]
        features = _differing_features(served, replayed, index, feature_names) if same_item else ()
        if before != after or features:
            return RankingDifference(index + 1, before, after, features)
    return None


def _scored_items(record: RankingRecord) -> list[tuple[str, float | None]]:
    return list(zip(record.items, record.scores, strict=True))


def _differing_features(
    served: RankingRecord, replayed: RankingRecord, index: int, feature_names: Sequence[str]
) -> tuple[str, ...]:
    old, new = served.features, replayed.features
    if old is None or new is None or old.fingerprint != new.fingerprint:
        return ()
    before, after = old.decode(len(feature_names)), new.decode(len(feature_names))
    if before is None or after is None:
        return ()
    differs = before[index].view(np.uint32) != after[index].view(np.uint32)  # NaN equals NaN by its bits
    return tuple(feature_names[column] for column in np.flatnonzero(differs).tolist())
