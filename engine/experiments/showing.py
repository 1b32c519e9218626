"""From the lists of the arms to the one that is shown, with all that the log must know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.asked import Asked
from engine.diversity import diversified
from engine.experiments.enrolment import Enrolled
from engine.experiments.exploration import explored
from engine.experiments.hashing import hash32
from engine.experiments.interleaving import Interleaved, balanced, team_draft
from engine.experiments.trials import Serving
from engine.fallback import FULL, Ladder
from engine.told import Shown, mixed
from engine.types import Matrix, Request, Scores
from engine.watch import Watch

_WAYS: dict[str, Callable[[Sequence[Sequence[str]], int, int], Interleaved]] = {
    "team-draft": team_draft,
    "balanced": balanced,
}


def list_of(
    one: Serving, ladder: Ladder, request: Request, ranking_id: str, watch: Watch,
    ranked: Callable[[Matrix, Scores], None],
) -> Shown:  # fmt: skip
    """The list that one arm makes of a request. ranked: told of all candidates' rows and scores."""
    live, asked = one.live, one.asked
    given = None if asked.items is None else live.catalogue.ids.rows(asked.items)
    step, ranking = ladder.run(live, request, watch, given, one.pipeline)
    ranked(ranking.features, ranking.scores)
    more: dict[str, Any] = {"served": {"arm": dict(one.told)}} if one.told else {}
    if asked.diversity:
        places = diversified(ranking.rows, ranking.scores, asked.n, asked.diversity, live.catalogue, live.vectors)
        watch.mark("diversity")
    elif one.explore is not None and step == FULL and np.isfinite(ranking.scores).all():
        seed = hash32(ranking_id)
        places, shares = explored(ranking.scores, asked.n, one.explore, seed)
        more |= {"propensities": shares.tolist(), "seed": seed}
    else:
        places = np.arange(min(asked.n, len(ranking.order)))
    return replace(Shown.of(step, ranking.at(places), live, one.pipeline, asked), more=more)


def as_one(lists: Sequence[Shown], names: Sequence[str], enrolled: Enrolled, asked: Asked, ranking_id: str) -> Shown:
    """The list, interleaved where there are several, told which experiments it is part of. names: of the arms."""
    shown = lists[0]
    if enrolled.mixed:
        seed = hash32(ranking_id)
        chosen = _WAYS[enrolled.interleaving]([one.names for one in lists], asked.n, seed)
        shown = mixed(lists, chosen.teams, chosen.items, names)
        served: dict[str, Any] = {"interleaving": enrolled.interleaving}
        if enrolled.interleaving == "balanced":  # its credit asks for the places in both lists
            served["places"] = [_places(one.names, chosen.items) for one in lists]
        shown = replace(shown, more={**shown.more, "seed": seed, "served": served})
    if not enrolled.exposures:
        return shown
    told = [[one.experiment.name, one.variant] for one in enrolled.exposures]
    more = {**shown.more, "experiment": told[0][0], "variant": told[0][1]}
    return replace(shown, more={**more, "served": {**shown.more.get("served", {}), "experiments": told}})


def _places(names: Sequence[str], items: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(names)}
    return [places.get(item, -1) for item in items]
