"""What is shown, as it is told: a list in ids, and the ranking event that is written and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.asked import Asked
from engine.events import RankingEvent
from engine.fallback import FULL
from engine.live import Live
from engine.pipeline import Pipeline
from engine.served import stored_features, stored_scores
from engine.types import Matrix, Ranking, Scores


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """A list of n items as one pipeline makes it."""

    names: list[str]
    scores: Scores
    """(n,)"""
    recall_scores: Scores
    """(n,) what recall gave to what is shown."""
    features: Matrix
    """(n, F); (0, F) where nothing was ranked."""
    fingerprint: str
    recalled: list[str]
    """What would have been shown without the ranker."""
    found: int
    """How many recall found."""
    source: str
    pairs: Scores
    """Of all candidates, in the order of recall."""
    bundle: str
    step: str = FULL
    more: dict[str, Any] = field(default_factory=dict)
    """Further parts of the event, such as propensities."""

    @classmethod
    def of(cls, step: str, ranking: Ranking, live: Live, pipeline: Pipeline, asked: Asked) -> Shown:
        """Of a ranking that is cut to what is shown."""
        found = ranking.found
        if asked.items is None:
            names = live.catalogue.ids.names(ranking.rows)
            recalled = live.catalogue.ids.names(found.rows[: len(names)])
        else:
            names, recalled = [asked.items[place] for place in ranking.order.tolist()], list(asked.items[: asked.n])
        return cls(
            names, ranking.scores, found.scores[ranking.order], ranking.features, pipeline.featurizer.fingerprint,
            recalled, len(found.rows), found.source, ranking.pairs, pipeline.bundle, step,
        )  # fmt: skip


def mixed(lists: Sequence[Shown], teams: Sequence[int], items: Sequence[str], names: Sequence[str]) -> Shown:
    """The interleaved list: each item as the ranker whose choice it was has it. names: of the rankers."""
    places = [{name: place for place, name in enumerate(one.names)} for one in lists]
    # what all would show is told as whoever has it first does
    makers = [
        team if team >= 0 else next(place for place, own in enumerate(places) if item in own)
        for team, item in zip(teams, items, strict=True)
    ]
    picks = [(team, places[team][item]) for team, item in zip(makers, items, strict=True)]
    same = len({one.fingerprint for one in lists}) == 1 and all(len(one.features) == len(one.names) for one in lists)
    first = lists[0]
    features = np.array([lists[team].features[place] for team, place in picks]) if same and picks else None
    return Shown(
        list(items),
        _gathered([one.scores for one in lists], picks),
        _gathered([one.recall_scores for one in lists], picks),
        first.features[:0] if features is None else features,
        first.fingerprint,
        first.recalled,
        first.found,
        first.source,
        no_scores(),
        first.bundle,
        next((one.step for one in lists if one.step != FULL), FULL),
        {"team": [names[team] if team >= 0 else "" for team in teams]},
    )


def ranking_event(
    ranking_id: str, moment: int, asked: Asked, live: Live, shown: Shown, skipped: Sequence[str]
) -> RankingEvent:
    """The event of a list at a moment, in epoch milliseconds. live: what it is told of the journal by."""
    more = dict(shown.more)
    served: dict[str, Any] = {
        "offset": live.offset,
        "items": live.items_offset,
        "recall": {"items": shown.recalled, "scores": _numbers(shown.recall_scores), "found": shown.found},
        **more.pop("served", {}),
    }
    served |= {"pairs": stored_scores(shown.pairs)} if len(shown.pairs) else {}
    served |= {"step": shown.step} if shown.step != FULL else {}
    served |= {"skipped": list(skipped)} if skipped else {}
    served |= {"asked": narrowed} if (narrowed := asked.narrowed()) else {}
    extra: dict[str, Any] = {
        "positions": list(range(1, len(shown.names) + 1)),
        "scores": _numbers(shown.scores),
        "bundle": shown.bundle,
        "served": served,
        **more,
    }
    if len(shown.features):
        extra["features"] = stored_features(shown.fingerprint, shown.features)
    extra |= {"surface": asked.surface} if asked.surface else {}
    return RankingEvent(
        id=ranking_id,
        timestamp=moment,
        items=tuple(shown.names),
        user=asked.user,
        session=asked.session,
        fields={**asked.context, "source": shown.source, **asked.said()},
        extra=extra,
    )


def no_scores() -> Scores:
    """An empty column of scores."""
    return np.empty(0, np.float32)


def _gathered(columns: Sequence[Scores], picks: Sequence[tuple[int, int]]) -> Scores:
    found: NDArray[np.float32] = np.array([columns[team][place] for team, place in picks], np.float32)
    return found


def _numbers(scores: Any) -> list[float | None]:
    """JSON-ready: None for what is not a number."""
    return [float(one) if np.isfinite(one) else None for one in scores]
