"""Impression logging: the ranked list in ids, and the ranking event that is logged and returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.logged_features import stored_features, stored_scores
from feedrank.engine.serving.fallback import FULL
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import Asked
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.engine.types import Matrix, Ranking, Scores


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """The n items that one pipeline ranks first, with all that their log entry needs."""

    names: list[str]
    """Item ids, best first."""
    scores: Scores
    """(n,) ranker scores."""
    recall_scores: Scores
    """(n,) recall scores of these items."""
    features: Matrix
    """(n, F) feature rows; (0, F) where nothing was scored."""
    fingerprint: str
    """Digest of the feature list."""
    recalled: list[str]
    """The ids that would have been shown in recall order."""
    found: int
    """How many candidates recall returned."""
    source: str
    """The name of the retriever."""
    pairs: Scores
    """(candidate_count,) cross-encoder scores in recall order; (0,): there is no cross-encoder."""
    bundle: str
    """The name of the bundle that ranked them."""
    step: str = FULL
    """The level of the fallback chain."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further keys of the event's `extra`, such as propensities."""

    @classmethod
    def of(cls, step: str, ranking: Ranking, live: Live, pipeline: Pipeline, asked: Asked) -> Shown:
        """Build the list from a ranking that is already cut to the items shown."""
        candidates = ranking.found
        if asked.items is None:
            items = live.catalogue.ids.names(ranking.rows)
            recall_items = live.catalogue.ids.names(candidates.rows[: len(items)])
        else:
            items = [asked.items[index] for index in ranking.order.tolist()]
            recall_items = list(asked.items[: asked.n])
        return cls(
            items, ranking.scores, candidates.scores[ranking.order], ranking.features, pipeline.featurizer.fingerprint,
            recall_items, len(candidates.rows), candidates.source, ranking.pairs, pipeline.bundle, step,
        )  # fmt: skip


def mixed(lists: Sequence[Shown], teams: Sequence[int], items: Sequence[str], names: Sequence[str]) -> Shown:
    """Merge the arms' lists into the interleaved list; each item keeps the scores and features of its team's list.

    lists: one per arm. teams: per item, the index of its arm, negative if shared by all (the first list that has the
    item is used). items: the interleaved ids. arm_names: one per arm.
    """
    positions = [{item: position for position, item in enumerate(ranked.names)} for ranked in lists]
    list_indices = [
        team if team >= 0 else next(index for index, position_of in enumerate(positions) if item in position_of)
        for team, item in zip(teams, items, strict=True)
    ]
    picks = [(index, positions[index][item]) for index, item in zip(list_indices, items, strict=True)]
    same_features = len({ranked.fingerprint for ranked in lists}) == 1 and all(
        len(ranked.features) == len(ranked.names) for ranked in lists
    )
    first = lists[0]
    features = np.array([lists[i].features[position] for i, position in picks]) if same_features and picks else None
    return Shown(
        list(items),
        _gathered([ranked.scores for ranked in lists], picks),
        _gathered([ranked.recall_scores for ranked in lists], picks),
        first.features[:0] if features is None else features,
        first.fingerprint,
        first.recalled,
        first.found,
        first.source,
        no_scores(),
        first.bundle,
        next((ranked.step for ranked in lists if ranked.step != FULL), FULL),
        {"team": [names[team] if team >= 0 else "" for team in teams]},
    )


def ranking_event(
    ranking_id: str, moment: int, asked: Asked, live: Live, shown: Shown, skipped: Sequence[str]
) -> RankingEvent:
    """Build the ranking event of a list.

    timestamp: epoch milliseconds. snapshot: its journal offsets are logged for replay. skipped: the parts that were
    skipped or cut short for the deadline.
    """
    more_extra = dict(shown.more)
    served: dict[str, Any] = {
        "offset": live.offset,
        "items": live.items_offset,
        "recall": {"items": shown.recalled, "scores": _numbers(shown.recall_scores), "found": shown.found},
        **more_extra.pop("served", {}),
    }
    served |= {"pairs": stored_scores(shown.pairs)} if len(shown.pairs) else {}
    served |= {"step": shown.step} if shown.step != FULL else {}
    served |= {"skipped": list(skipped)} if skipped else {}
    served |= {"asked": options} if (options := asked.narrowed()) else {}
    extra: dict[str, Any] = {
        "positions": list(range(1, len(shown.names) + 1)),
        "scores": _numbers(shown.scores),
        "bundle": shown.bundle,
        "served": served,
        **more_extra,
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
    """Return an empty column of scores."""
    return np.empty(0, np.float32)


def _gathered(columns: Sequence[Scores], picks: Sequence[tuple[int, int]]) -> Scores:
    """Take one value per (list index, position) from the lists' columns."""
    values: NDArray[np.float32] = np.array([columns[index][position] for index, position in picks], np.float32)
    return values


def _numbers(scores: Any) -> list[float | None]:
    """Convert scores to a JSON-ready list; None for NaN and infinity."""
    return [float(score) if np.isfinite(score) else None for score in scores]
