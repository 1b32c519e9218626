"""Off-policy evaluation: estimates the reward of a bundle, or of another variant, from rankings with propensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.api.compose.serving import live
from feedrank.api.compose.text_signals import TextModels
from feedrank.api.config import Config
from feedrank.api.home import Home
from feedrank.engine.events.events import Event, RankingEvent
from feedrank.engine.events.vocabulary import Ids
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.pipeline import GIVEN
from feedrank.engine.serving.request import Asked
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.engine.types import QueryVectors
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle
from feedrank.models.bundles.snapshot import Living
from feedrank.models.off_policy.estimate import Estimate, EstimateSettings, estimate, estimate_slates
from feedrank.models.off_policy.log import Floats
from feedrank.models.off_policy.logged_rankings import Chosen, Logged, logged
from feedrank.models.off_policy.policies import SlatePolicy, frequencies
from feedrank.models.training.training import Progress

SINGLE, SLATES = ("ips", "snips", "dm", "dr"), ("snips", "snrips", "rips", "cascade-dr")
"""Default estimators for logs of single items and for logs of slates."""
MOST_CELLS = 400_000_000
"""Maximum number of (slate, position, candidate) cells in memory."""


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """The off-policy estimates for a candidate policy."""

    logged: Logged
    shown: float
    """Mean reward per ranking of the logging policy."""
    estimates: dict[str, Estimate]
    on_policy: float | None = None
    """Mean reward per ranking in the candidate's own log, if there is one."""


def of_variant(
    journal: Journal, chosen: Chosen, variant: str, methods: Sequence[str], settings: EstimateSettings, seed: int
) -> Answer:
    """Evaluate another variant on this variant's log; its policy is the item frequencies at each position.

    The variant's clicks are used only for `on_policy`. Raises ValueError for slates of several items.
    """
    log = logged((event for _, event in journal.in_order()), chosen)
    other_log = logged(
        (event for _, event in journal.in_order()), Chosen(variant, chosen.surface, chosen.since, chosen.reward), False
    )
    if not (log.single and other_log.single):
        raise ValueError("found lists of several items, expected rankings of one item to count a variant's policy")
    names = log.items
    rows = np.array([names.add(item) for item in other_log.items.names(other_log.rows)], np.int32)
    n_positions = int(max(log.position.max(), other_log.position.max())) + 1
    policy = frequencies(rows, other_log.position, n_positions, len(names))
    estimates = estimate(log.bandit(), policy, methods or SINGLE, settings, seed=seed)
    return Answer(log, float(log.reward.mean()), estimates, float(other_log.reward.mean()))


def of_bundle(
    home: Home, config: Config, journal: Journal, chosen: Chosen, name: str, drawn: tuple[float, int],
    methods: Sequence[str], settings: EstimateSettings, seed: int, progress: Progress,
) -> Answer:  # fmt: skip
    """Evaluate a bundle: rank every logged request again, from the state at that time.

    drawn: temperature and depth of Plackett-Luce sampling by score; at temperature 0 the top items are shown. Raises
    ValueError if the scores do not fit in memory.
    """
    opened = bundle.load(home.bundles / name)
    log = logged((event for _, event in journal.in_order()), chosen)
    progress("requests ranked again", 0, len(log))
    catalogue = opened.knowledge.catalogue
    state = BehaviouralState(catalogue, opened.builder.spec)
    snapshot = live(home, config, opened, Living(state, Ids()), TextModels(home, opened))
    rankings = _again(snapshot, journal, log, progress)
    width = max(len(candidate_scores) for _, candidate_scores in rankings)
    cells = len(log) * int(np.diff(log.offsets).max()) * width
    if cells > MOST_CELLS:
        raise ValueError(
            f"{len(log):,} rankings of up to {width:,} candidates need {cells * 8 / 1e9:.0f} GB; choose a later --since"
        )
    scores = np.full((len(log), width), -np.inf)
    for index, (_, candidate_scores) in enumerate(rankings):
        scores[index, : len(candidate_scores)] = candidate_scores
    temperature, depth = drawn
    if temperature > 0:
        scores[:, depth:] = -np.inf
    slates = log.slates(np.concatenate([positions for positions, _ in rankings]))
    policy = SlatePolicy.ranking_by(scores, slates, temperature)
    names = methods or SLATES
    logged_value = float(log.reward.sum() / len(log))
    return Answer(log, logged_value, estimate_slates(slates, policy, names, settings, seed=seed))


def _again(made: Live, journal: Journal, own: Logged, progress: Progress) -> list[tuple[NDArray[np.int32], Floats]]:
    """Rank every logged request with the candidate, replaying the journal in order.

    Returns, per ranking, the positions of the shown items in the candidate's order, and the candidate's scores in that
    order. Items that the candidate did not find come last, with a score of -inf.
    """
    ranking_ids = {event.id for event in own.events}
    unread: list[Event] = []
    rankings: list[tuple[NDArray[np.int32], Floats]] = []
    for _, event in journal.in_order():
        if isinstance(event, RankingEvent) and event.id in ranking_ids:
            made.observe(unread)
            unread = []
            rankings.append(_one(made, event))
            if len(rankings) % 100 == 0:
                progress("requests ranked again", len(rankings), len(own))
        unread.append(event)
    return rankings


def _one(made: Live, event: RankingEvent) -> tuple[NDArray[np.int32], Floats]:
    parsed = Asked.of(event)
    vectors = made.encode(parsed.query) if parsed.query and made.encode is not None else QueryVectors()
    request = made.request(event.timestamp / 1000, parsed, vectors)
    items = parsed.items if event.fields.get("source") == GIVEN else None
    ranking = made.pipeline.run(request, given=None if items is None else made.catalogue.ids.rows(items))
    names = made.catalogue.ids.names(ranking.rows) if items is None else [items[n] for n in ranking.order.tolist()]
    position = {name: index for index, name in enumerate(names)}
    missing = [item for item in event.items if item not in position]
    position |= {item: len(names) + index for index, item in enumerate(missing)}
    scores = np.concatenate([ranking.scores.astype(np.float64), np.full(len(missing), -np.inf)])
    scores = np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)
    return np.array([position[item] for item in event.items], np.int32), scores
