"""A served ranking told once more: made again from what the journal says of it, and held against what was shown."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.events import RankingEvent
from engine.pipeline import Pipeline
from engine.types import Rows, Scores
from engine.watch import Watch

_STAGES = {"encode": "encode", "rank": "features"}
"""What may be left out -> the stage that is not begun then."""


class Hindsight(Watch):
    """Takes no time, and leaves out what was left out then."""

    def __init__(self, skipped: Sequence[str]) -> None:
        super().__init__(lambda: 0.0)
        self._barred = {_STAGES[what] for what in skipped if what in _STAGES}

    def knows(self, stage: str) -> bool:
        """Whether the stage was begun then."""
        return stage not in self._barred

    def allows(self, *stages: str, units: int = 1) -> bool:
        """Whether there was time for the first of these stages then."""
        return stages[0] not in self._barred


@dataclass(frozen=True, eq=False, slots=True)
class RecordedScores:
    """The pair scores that one ranking had, in the order of recall; a score cache that learns nothing."""

    known: Scores

    def scores(self, text: str, rows: Rows) -> Scores:
        """What was known then; NaN where recall finds another number of candidates now."""
        if len(rows) != len(self.known):
            return np.full(len(rows), np.nan, np.float32)
        return self.known.copy()

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Nothing is added to what was."""


def recorded_pairs(event: RankingEvent) -> Scores:
    """The pair scores that a ranking had, in the order of recall; none where there was one phase."""
    told = b64decode(event.extra.get("served", {}).get("pairs", ""), validate=True)
    return np.frombuffer(told, "<f4").astype(np.float32)


def with_pairs(pipeline: Pipeline, known: Scores) -> Pipeline:
    """A pipeline whose second phase knows these pair scores, and no others."""
    if pipeline.rescoring is None:
        return pipeline
    return replace(pipeline, rescoring=replace(pipeline.rescoring, cache=RecordedScores(known), best=0))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place, from 1, at which two rankings are not the same."""

    place: int
    served: tuple[str, float | None] | None
    """Item and score; None: the list had ended."""
    again: tuple[str, float | None] | None
    features: tuple[str, ...]
    """Those that differ there, of the same item."""


def difference(served: RankingEvent, again: RankingEvent, names: Sequence[str]) -> Difference | None:
    """Where a ranking that was made again first differs from the one that was served, in item or score; None: nowhere.

    names: of the features.
    """
    old, new = _entries(served), _entries(again)
    for place in range(max(len(old), len(new))):
        one, other = (entries[place] if place < len(entries) else None for entries in (old, new))
        if one != other:
            same = one is not None and other is not None and one[0] == other[0]
            features = _differing(served, again, place, names) if same else ()
            return Difference(place + 1, one, other, features)
    return None


def _entries(event: RankingEvent) -> list[tuple[str, float | None]]:
    return list(zip(event.items, event.extra["scores"], strict=True))


def _differing(served: RankingEvent, again: RankingEvent, place: int, names: Sequence[str]) -> tuple[str, ...]:
    stored = [event.extra.get("features", {}) for event in (served, again)]
    if not all(stored) or stored[0]["fingerprint"] != stored[1]["fingerprint"]:
        return ()
    one, other = (np.frombuffer(b64decode(own["data"]), "<u4").reshape(-1, len(names))[place] for own in stored)
    return tuple(names[column] for column in np.flatnonzero(one != other).tolist())
