"""Replay checks: recompute a logged ranking under its recorded conditions and compare it with what was shown."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.events.events import RankingEvent
from feedrank.engine.serving.deadline import Watch
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.types import Rows, Scores

_STAGES = {"encode": "encode", "rank": "features"}
"""Skipped part -> the stage whose time check led to the skip."""


class Hindsight(Watch):
    """A latency budget that measures no time and skips what the logged ranking skipped."""

    def __init__(self, skipped: Sequence[str]) -> None:
        super().__init__(lambda: 0.0)
        self._barred = {_STAGES[part] for part in skipped if part in _STAGES}

    def knows(self, stage: str) -> bool:
        """Return True if the logged ranking started this stage."""
        return stage not in self._barred

    def allows(self, *stages: str, units: int = 1) -> bool:
        """Return True if the logged ranking had time for the first of these stages."""
        return stages[0] not in self._barred


@dataclass(frozen=True, eq=False, slots=True)
class RecordedScores:
    """A read-only cache of the cross-encoder scores of one logged ranking."""

    known: Scores
    """(candidates,) in recall order."""

    def scores(self, text: str, rows: Rows) -> Scores:
        """Return the recorded scores; all NaN where recall now returns another number of candidates."""
        if len(rows) != len(self.known):
            return np.full(len(rows), np.nan, np.float32)
        return self.known.copy()

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Do nothing: the record does not change."""


def recorded_pairs(event: RankingEvent) -> Scores:
    """Decode the cross-encoder scores of a logged ranking, in recall order; empty if there was no cross-encoder.

    Raises ValueError where the stored value is damaged.
    """
    data = b64decode(event.extra.get("served", {}).get("pairs", ""), validate=True)
    return np.frombuffer(data, "<f4").astype(np.float32)


def with_pairs(pipeline: Pipeline, known: Scores) -> Pipeline:
    """Return a copy of the pipeline whose reranker uses only these recorded cross-encoder scores."""
    if pipeline.rescoring is None:
        return pipeline
    return replace(pipeline, rescoring=replace(pipeline.rescoring, cache=RecordedScores(known), best=0))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first position at which a logged and a replayed ranking differ."""

    place: int
    """From 1."""
    served: tuple[str, float | None] | None
    """Item and score as logged; None: that list is shorter."""
    again: tuple[str, float | None] | None
    """Item and score as replayed; None: that list is shorter."""
    features: tuple[str, ...]
    """Names of the features that differ there, if the item is the same."""


def difference(served: RankingEvent, again: RankingEvent, names: Sequence[str]) -> Difference | None:
    """Find the first position at which item or score of the replayed ranking differ; None if they are identical."""
    old, new = _entries(served), _entries(again)
    for index in range(max(len(old), len(new))):
        before, after = (entries[index] if index < len(entries) else None for entries in (old, new))
        if before != after:
            same_item = before is not None and after is not None and before[0] == after[0]
            features = _differing(served, again, index, names) if same_item else ()
            return Difference(index + 1, before, after, features)
    return None


def _entries(event: RankingEvent) -> list[tuple[str, float | None]]:
    return list(zip(event.items, event.extra["scores"], strict=True))


def _differing(served: RankingEvent, again: RankingEvent, place: int, names: Sequence[str]) -> tuple[str, ...]:
    stored = [event.extra.get("features", {}) for event in (served, again)]
    if not all(stored) or stored[0]["fingerprint"] != stored[1]["fingerprint"]:
        return ()
    before, after = (np.frombuffer(b64decode(rows["data"]), "<u4").reshape(-1, len(names))[place] for rows in stored)
    return tuple(names[column] for column in np.flatnonzero(before != after).tolist())
