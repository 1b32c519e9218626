"""Makes the ranking of each arm, and combines them into the one that is shown and logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from feedrank.engine.experiments.arm_servers import Serving
from feedrank.engine.experiments.bucketing import Enrolled
from feedrank.engine.experiments.exploration import explored
from feedrank.engine.experiments.hashing import hash32
from feedrank.engine.experiments.interleaving import Interleaved, balanced, team_draft
from feedrank.engine.retrieval.diversity import diversified
from feedrank.engine.serving.deadline import Watch
from feedrank.engine.serving.fallback import FULL, Ladder
from feedrank.engine.serving.impression import Shown, mixed
from feedrank.engine.serving.request import Asked
from feedrank.engine.types import Matrix, Request, Scores

_WAYS: dict[str, Callable[[Sequence[Sequence[str]], int, int], Interleaved]] = {
    "team-draft": team_draft,
    "balanced": balanced,
}


def list_of(
    one: Serving, ladder: Ladder, request: Request, ranking_id: str, watch: Watch,
    ranked: Callable[[Matrix, Scores], None],
) -> Shown:  # fmt: skip
    """Make the ranking of one arm for a request. on_ranked: called with the features and scores of all candidates."""
    snapshot, options = one.live, one.asked
    given = None if options.items is None else snapshot.catalogue.ids.rows(options.items)
    level, ranking = ladder.run(snapshot, request, watch, given, one.pipeline)
    ranked(ranking.features, ranking.scores)
    extra: dict[str, Any] = {"served": {"arm": dict(one.told)}} if one.told else {}
    if options.diversity:
        indices = diversified(
            ranking.rows, ranking.scores, options.n, options.diversity, snapshot.catalogue, snapshot.vectors
        )
        watch.mark("diversity")
    elif one.explore is not None and level == FULL and np.isfinite(ranking.scores).all():
        seed = hash32(ranking_id)
        indices, propensities = explored(ranking.scores, options.n, one.explore, seed)
        extra |= {"propensities": propensities.tolist(), "seed": seed}
    else:
        indices = np.arange(min(options.n, len(ranking.order)))
    return replace(Shown.of(level, ranking.at(indices), snapshot, one.pipeline, options), more=extra)


def as_one(lists: Sequence[Shown], names: Sequence[str], enrolled: Enrolled, asked: Asked, ranking_id: str) -> Shown:
    """Combine the arms' rankings into the one to show, interleaved if there are several, with its experiments.

    arm_names: names of the arms, in the order of `lists`.
    """
    shown = lists[0]
    if enrolled.mixed:
        seed = hash32(ranking_id)
        merged = _WAYS[enrolled.interleaving]([ranked.names for ranked in lists], asked.n, seed)
        shown = mixed(lists, merged.teams, merged.items, names)
        served: dict[str, Any] = {"interleaving": enrolled.interleaving}
        if enrolled.interleaving == "balanced":  # `balanced_credit` needs the ranks in both rankings
            served["places"] = [_places(ranked.names, merged.items) for ranked in lists]
        shown = replace(shown, more={**shown.more, "seed": seed, "served": served})
    if not enrolled.exposures:
        return shown
    variants = [[exposure.experiment.name, exposure.variant] for exposure in enrolled.exposures]
    extra = {**shown.more, "experiment": variants[0][0], "variant": variants[0][1]}
    return replace(shown, more={**extra, "served": {**shown.more.get("served", {}), "experiments": variants}})


def _places(names: Sequence[str], items: Sequence[str]) -> list[int]:
    ranks = {name: rank for rank, name in enumerate(names)}
    return [ranks.get(item, -1) for item in items]
