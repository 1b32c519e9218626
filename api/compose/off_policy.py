"""Off-policy evaluation: estimates the reward of a bundle, or of another variant, from rankings with propensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.api.clock import clock_ms
from feedrank.api.compose.serving import build_snapshot
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.pipeline import EXPLICIT
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import QueryVectors
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles import bundle
from feedrank.models.bundles.snapshot import RestoredState
from feedrank.models.off_policy.estimate import Estimate, EstimateSettings, estimate, estimate_slates
from feedrank.models.off_policy.log import Floats
from feedrank.models.off_policy.logged_rankings import LoggedRankings, RankingFilter, read_logged_rankings
from feedrank.models.off_policy.policies import SlatePolicy, empirical_policy
from feedrank.models.training.training import Progress

SINGLE_ITEM_METHODS, SLATE_METHODS = ("ips", "snips", "dm", "dr"), ("snips", "snrips", "rips", "cascade-dr")
"""Default estimators for logs of single items and for logs of slates."""
MAX_SCORE_CELLS = 400_000_000
"""Maximum number of (slate, position, candidate) cells in memory."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a bundle's policy picks items: Plackett-Luce sampling by score."""

    temperature: float = 0.0
    """0: the top items are shown."""
    depth: int = 50
    """Number of top items that are sampled from."""


@dataclass(frozen=True, slots=True)
class Estimation:
    """How rewards are estimated."""

    methods: Sequence[str] = ()
    """Names of the estimators; empty: those that fit the log."""
    settings: EstimateSettings = field(default_factory=EstimateSettings)
    seed: int = 7


@dataclass(frozen=True, eq=False, slots=True)
class OffPolicyResult:
    """The off-policy estimates for a candidate policy."""

    logged: LoggedRankings
    logged_value: float
    """Mean reward per ranking of the logging policy."""
    estimates: dict[str, Estimate]
    on_policy_value: float | None = None
    """Mean reward per ranking in the candidate's own log, if there is one."""


def evaluate_variant(
    journal: Journal, selection: RankingFilter, variant: str, estimation: Estimation
) -> OffPolicyResult:
    """Evaluate another variant on this variant's log; its policy is the item frequencies at each position.

    The variant's clicks are used only for `on_policy_value`. Raises ValueError for slates of several items.
    """
    log = _read_log(journal, selection)
    other_selection = RankingFilter(variant, selection.surface, selection.since, selection.reward_type)
    other_log = _read_log(journal, other_selection, require_propensities=False)
    if not (log.is_single_item and other_log.is_single_item):
        raise ValueError("found lists of several items, expected rankings of one item to count a variant's policy")
    names = log.items
    rows = np.array([names.add(item) for item in other_log.items.names(other_log.rows)], np.int32)
    n_positions = int(max(log.position.max(), other_log.position.max())) + 1
    policy = empirical_policy(rows, other_log.position, n_positions, len(names))
    methods = estimation.methods or SINGLE_ITEM_METHODS
    estimates = estimate(log.to_bandit_log(), policy, methods, estimation.settings, seed=estimation.seed)
    return OffPolicyResult(log, float(log.reward.mean()), estimates, float(other_log.reward.mean()))


def evaluate_bundle(
    home: HomePaths, config: Config, journal: Journal, selection: RankingFilter, name: str, sampling: Sampling,
    estimation: Estimation, progress: Progress,
) -> OffPolicyResult:  # fmt: skip
    """Evaluate a bundle: rank every logged request again, from the state at that time.

    name: that of the bundle. Raises ValueError if the scores do not fit in memory.
    """
    opened = bundle.load(bundle.path_of(home.bundles, name))
    log = _read_log(journal, selection)
    progress("requests ranked again", 0, len(log))
    catalogue = opened.item_model.catalogue
    state = BehaviouralState(catalogue, opened.builder.spec)
    snapshot = build_snapshot(home, config, opened, RestoredState(state, Vocabulary()), TextEncoders(home, opened))
    rankings = _rank_logged_requests(snapshot, journal, log, progress)
    width = max(len(candidate_scores) for _, candidate_scores in rankings)
    cells = len(log) * int(np.diff(log.offsets).max()) * width
    if cells > MAX_SCORE_CELLS:
        raise ValueError(
            f"{len(log):,} rankings of up to {width:,} candidates need {cells * 8 / 1e9:.0f} GB; choose a later --since"
        )
    scores = np.full((len(log), width), -np.inf)
    for index, (_, candidate_scores) in enumerate(rankings):
        scores[index, : len(candidate_scores)] = candidate_scores
    if sampling.temperature > 0:
        scores[:, sampling.depth :] = -np.inf
    slates = log.to_slate_log(np.concatenate([positions for positions, _ in rankings]))
    policy = SlatePolicy.from_scores(scores, slates, sampling.temperature)
    methods = estimation.methods or SLATE_METHODS
    estimates = estimate_slates(slates, policy, methods, estimation.settings, seed=estimation.seed)
    return OffPolicyResult(log, float(log.reward.sum() / len(log)), estimates)


def _read_log(journal: Journal, selection: RankingFilter, require_propensities: bool = True) -> LoggedRankings:
    """Read the rankings of a journal, without events of the future."""
    future = FutureEvents(clock_ms())
    events = (event for _, event in future.skip(journal.read_by_effective_time()))
    log = read_logged_rankings(events, selection, require_propensities)
    return replace(log, notes=(*log.notes, *future.notes))


def _rank_logged_requests(
    snapshot: ServingSnapshot, journal: Journal, log: LoggedRankings, progress: Progress
) -> list[tuple[NDArray[np.int32], Floats]]:
    """Rank every logged request with the candidate, replaying the journal in order.

    Interactions that stand before their ranking are observed right after it. Returns, per ranking, the positions of the
    shown items in the candidate's order, and the candidate's scores in that order. Items that the candidate did not
    find come last, with a score of -inf.
    """
    ranking_ids = {event.id for event in log.events}
    unread: list[Event] = []
    rankings: list[tuple[NDArray[np.int32], Floats]] = []
    early: dict[str, list[Event]] = {}  # id of a ranking to come -> interactions that stand before it
    for _, event in FutureEvents(clock_ms()).skip(journal.read_by_effective_time()):
        if isinstance(event, ItemEvent):  # the candidate ranks the items of its catalogue, as it has them
            continue
        if isinstance(event, InteractionEvent) and event.ranking is not None and event.ranking in ranking_ids:
            early.setdefault(event.ranking, []).append(event)
            continue
        if isinstance(event, RankingEvent) and event.id in ranking_ids:
            snapshot.observe(unread)
            unread = []
            ranking_ids.remove(event.id)
            rankings.append(_rank_logged_request(snapshot, event))
            if len(rankings) % 100 == 0:
                progress("requests ranked again", len(rankings), len(log))
        unread.append(event)
        unread += early.pop(event.id, [])
    return rankings


def _rank_logged_request(snapshot: ServingSnapshot, event: RankingEvent) -> tuple[NDArray[np.int32], Floats]:
    record = RankingRecord.from_event(event)
    parsed = record.request
    vectors = (
        snapshot.encode_query(parsed.query) if parsed.query and snapshot.encode_query is not None else QueryVectors()
    )
    request = snapshot.resolve(event.timestamp / 1000, parsed, vectors)
    items = parsed.items if record.source == EXPLICIT else None
    ranking = snapshot.pipeline.run(request, explicit=None if items is None else snapshot.catalogue.ids.rows(items))
    names = snapshot.catalogue.ids.names(ranking.rows) if items is None else [items[n] for n in ranking.order.tolist()]
    position = {name: index for index, name in enumerate(names)}
    missing = [item for item in event.items if item not in position]
    position |= {item: len(names) + index for index, item in enumerate(missing)}
    scores = np.concatenate([ranking.scores.astype(np.float64), np.full(len(missing), -np.inf)])
    scores = np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)
    return np.array([position[item] for item in event.items], np.int32), scores
