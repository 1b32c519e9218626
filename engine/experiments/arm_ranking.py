"""Makes the ranking of each arm, and combines them into the one that is shown and logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from feedrank.engine.experiments.arm_servers import ArmRequest
from feedrank.engine.experiments.bucketing import Assignment
from feedrank.engine.experiments.exploration import sample_slate
from feedrank.engine.experiments.hashing import hash32
from feedrank.engine.experiments.interleaving import Interleaved, balanced_interleaving, team_draft
from feedrank.engine.retrieval.diversity import diversify
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.fallback import FULL, FallbackChain
from feedrank.engine.serving.impression import RankedList, merge_interleaved
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.types import Matrix, ResolvedRequest, Scores

_INTERLEAVERS: dict[str, Callable[[Sequence[Sequence[str]], int, int], Interleaved]] = {
    "team-draft": team_draft,
    "balanced": balanced_interleaving,
}


def rank_for_arm(
    arm_request: ArmRequest,
    fallback_chain: FallbackChain,
    resolved: ResolvedRequest,
    ranking_id: str,
    budget: LatencyBudget,
    on_ranked: Callable[[Matrix, Scores], None],
) -> RankedList:
    """Make the ranking of one arm for a request. on_ranked: called with the features and scores of all candidates."""
    snapshot, options = arm_request.snapshot, arm_request.request
    given = None if options.items is None else snapshot.catalogue.ids.rows(options.items)
    level, ranking = fallback_chain.run(snapshot, resolved, budget, given, arm_request.pipeline)
    on_ranked(ranking.features, ranking.scores)
    extra: dict[str, Any] = {"served": {"arm": dict(arm_request.overrides)}} if arm_request.overrides else {}
    if options.diversity:
        indices = diversify(
            ranking.rows, ranking.scores, options.n, options.diversity, snapshot.catalogue, snapshot.item_vectors
        )
        budget.record("diversity")
    elif arm_request.explore is not None and level == FULL and np.isfinite(ranking.scores).all():
        seed = hash32(ranking_id)
        indices, propensities = sample_slate(ranking.scores, options.n, arm_request.explore, seed)
        extra |= {"propensities": propensities.tolist(), "seed": seed}
    else:
        indices = np.arange(min(options.n, len(ranking.order)))
    return replace(
        RankedList.from_ranking(level, ranking.take(indices), snapshot, arm_request.pipeline, options), extra=extra
    )


def combine_arms(
    lists: Sequence[RankedList],
    arm_names: Sequence[str],
    assignment: Assignment,
    request: RecommendationRequest,
    ranking_id: str,
) -> RankedList:
    """Combine the arms' rankings into the one to show, interleaved if there are several, with its experiments.

    arm_names: names of the arms, in the order of `lists`.
    """
    shown = lists[0]
    if assignment.interleaved_arms:
        seed = hash32(ranking_id)
        merged = _INTERLEAVERS[assignment.interleaving]([ranked.items for ranked in lists], request.n, seed)
        shown = merge_interleaved(lists, merged.teams, merged.items, arm_names)
        served: dict[str, Any] = {"interleaving": assignment.interleaving}
        if assignment.interleaving == "balanced":  # `balanced_credit` needs the ranks in both rankings
            served["places"] = [_ranks_in(ranked.items, merged.items) for ranked in lists]
        shown = replace(shown, extra={**shown.extra, "seed": seed, "served": served})
    if not assignment.exposures:
        return shown
    variants = [[exposure.experiment.name, exposure.variant] for exposure in assignment.exposures]
    extra = {**shown.extra, "experiment": variants[0][0], "variant": variants[0][1]}
    return replace(shown, extra={**extra, "served": {**shown.extra.get("served", {}), "experiments": variants}})


def _ranks_in(ranked_items: Sequence[str], items: Sequence[str]) -> list[int]:
    ranks = {name: rank for rank, name in enumerate(ranked_items)}
    return [ranks.get(item, -1) for item in items]
