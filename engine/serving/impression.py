"""Impression logging: the ranked list in ids, and the ranking event that is logged and returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.logged_features import encode_features, encode_scores
from feedrank.engine.serving.fallback import FULL
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import Matrix, Ranking, Scores


@dataclass(frozen=True, eq=False, slots=True)
class RankedList:
    """The n items that one pipeline ranks first, with all that their log entry needs."""

    items: list[str]
    """Item ids, best first."""
    scores: Scores
    """(n,) ranker scores."""
    recall_scores: Scores
    """(n,) recall scores of these items."""
    features: Matrix
    """(n, F) feature rows; (0, F) where nothing was scored."""
    fingerprint: str
    """Digest of the feature list."""
    recall_items: list[str]
    """The ids that would have been shown in recall order."""
    candidate_count: int
    """How many candidates recall returned."""
    source: str
    """The name of the retriever."""
    cross_encoder_scores: Scores
    """(candidate_count,) cross-encoder scores in recall order; (0,): there is no cross-encoder."""
    bundle: str
    """The name of the bundle that ranked them."""
    fallback: str = FULL
    """The level of the fallback chain."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys of the event's `extra`, such as propensities."""

    @classmethod
    def from_ranking(
        cls,
        fallback: str,
        ranking: Ranking,
        snapshot: ServingSnapshot,
        pipeline: Pipeline,
        request: RecommendationRequest,
    ) -> RankedList:
        """Build the list from a ranking that is already cut to the items shown."""
        candidates = ranking.candidates
        if request.items is None:
            items = snapshot.catalogue.ids.names(ranking.rows)
            recall_items = snapshot.catalogue.ids.names(candidates.rows[: len(items)])
        else:
            items = [request.items[index] for index in ranking.order.tolist()]
            recall_items = list(request.items[: request.n])
        return cls(
            items,
            ranking.scores,
            candidates.scores[ranking.order],
            ranking.features,
            pipeline.featurizer.fingerprint,
            recall_items,
            len(candidates.rows),
            candidates.source,
            ranking.cross_encoder_scores,
            pipeline.bundle,
            fallback,
        )


def merge_interleaved(
    lists: Sequence[RankedList], teams: Sequence[int], items: Sequence[str], arm_names: Sequence[str]
) -> RankedList:
    """Merge the arms' lists into the interleaved list; each item keeps the scores and features of its team's list.

    lists: one per arm. teams: per item, the index of its arm, negative if shared by all (the first list that has the
    item is used). items: the interleaved ids. arm_names: one per arm.
    """
    positions = [{item: position for position, item in enumerate(ranked.items)} for ranked in lists]
    list_indices = [
        team if team >= 0 else next(index for index, position_of in enumerate(positions) if item in position_of)
        for team, item in zip(teams, items, strict=True)
    ]
    picks = [(index, positions[index][item]) for index, item in zip(list_indices, items, strict=True)]
    same_features = len({ranked.fingerprint for ranked in lists}) == 1 and all(
        len(ranked.features) == len(ranked.items) for ranked in lists
    )
    first = lists[0]
    features = np.array([lists[i].features[position] for i, position in picks]) if same_features and picks else None
    return RankedList(
        list(items),
        _gather([ranked.scores for ranked in lists], picks),
        _gather([ranked.recall_scores for ranked in lists], picks),
        first.features[:0] if features is None else features,
        first.fingerprint,
        first.recall_items,
        first.candidate_count,
        first.source,
        empty_scores(),
        first.bundle,
        next((ranked.fallback for ranked in lists if ranked.fallback != FULL), FULL),
        {"team": [arm_names[team] if team >= 0 else "" for team in teams]},
    )


def build_ranking_event(
    ranking_id: str,
    timestamp: int,
    request: RecommendationRequest,
    snapshot: ServingSnapshot,
    ranked_list: RankedList,
    skipped: Sequence[str],
) -> RankingEvent:
    """Build the ranking event of a list.

    timestamp: epoch milliseconds. snapshot: its journal offsets are logged for replay. skipped: the parts that were
    skipped or cut short for the deadline.
    """
    more_extra = dict(ranked_list.extra)
    served: dict[str, Any] = {
        "offset": snapshot.offset,
        "items": snapshot.items_offset,
        "recall": {
            "items": ranked_list.recall_items,
            "scores": _json_floats(ranked_list.recall_scores),
            "found": ranked_list.candidate_count,
        },
        **more_extra.pop("served", {}),
    }
    served |= (
        {"pairs": encode_scores(ranked_list.cross_encoder_scores)} if len(ranked_list.cross_encoder_scores) else {}
    )
    served |= {"step": ranked_list.fallback} if ranked_list.fallback != FULL else {}
    served |= {"skipped": list(skipped)} if skipped else {}
    served |= {"asked": options} if (options := request.non_default_options()) else {}
    extra: dict[str, Any] = {
        "positions": list(range(1, len(ranked_list.items) + 1)),
        "scores": _json_floats(ranked_list.scores),
        "bundle": ranked_list.bundle,
        "served": served,
        **more_extra,
    }
    if len(ranked_list.features):
        extra["features"] = encode_features(ranked_list.fingerprint, ranked_list.features)
    extra |= {"surface": request.surface} if request.surface else {}
    return RankingEvent(
        id=ranking_id,
        timestamp=timestamp,
        items=tuple(ranked_list.items),
        user=request.user,
        session=request.session,
        fields={**request.context, "source": ranked_list.source, **request.logged_fields()},
        extra=extra,
    )


def empty_scores() -> Scores:
    """Return an empty column of scores."""
    return np.empty(0, np.float32)


def _gather(columns: Sequence[Scores], picks: Sequence[tuple[int, int]]) -> Scores:
    """Take one value per (list index, position) from the lists' columns."""
    values: NDArray[np.float32] = np.array([columns[index][position] for index, position in picks], np.float32)
    return values


def _json_floats(scores: Any) -> list[float | None]:
    """Convert scores to a JSON-ready list; None for NaN and infinity."""
    return [float(score) if np.isfinite(score) else None for score in scores]
