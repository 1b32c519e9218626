"""Makes the rankings of a request's arms, and combines them into the one that is shown and logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedrank.engine.events.logged_features import LoggedRows
from feedrank.engine.experiments.arm_servers import ArmRequest, ArmServers
from feedrank.engine.experiments.bucketing import Assignment
from feedrank.engine.experiments.exploration import sample_slate
from feedrank.engine.experiments.hashing import hash32
from feedrank.engine.experiments.interleaving import Interleaved, balanced_interleaving, team_draft
from feedrank.engine.serving.deadline import LatencyBudget
from feedrank.engine.serving.pipeline import FULL, FallbackChain, Reading
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import (
    OnRanked,
    RankingJob,
    ServingSnapshot,
    StateReading,
    embed_query,
)
from feedrank.engine.types import QueryVectors

_INTERLEAVERS: dict[str, Callable[[Sequence[Sequence[str]], int, int], Interleaved]] = {
    "team-draft": team_draft,
    "balanced": balanced_interleaving,
}


@dataclass(frozen=True, slots=True)
class ArmJob(RankingJob):
    """A request as one arm ranks it."""

    arm_request: ArmRequest


@dataclass(frozen=True, slots=True)
class AssignedRequest:
    """A request that is assigned to arms, from its query's embedding to the ranking that combines theirs."""

    ranking_id: str
    request: RecommendationRequest
    main: ServingSnapshot
    """The snapshot that serves arms without a bundle of their own."""
    servers: ArmServers
    assignment: Assignment

    def embed_queries(self, budget: LatencyBudget) -> dict[str, QueryVectors]:
        """Encode the query for each arm's bundle. Slow: call it without the lock."""
        return {
            arm.bundle: embed_query(self.servers.snapshot_of(arm.bundle, self.main), self.request, budget)
            for arm in self.assignment.arms
        }

    def resolve(self, timestamp: int, vectors: dict[str, QueryVectors], lock: Reading) -> list[ArmJob]:
        """Resolve the request for each arm; none if an arm's snapshot is no longer loaded.

        timestamp: epoch milliseconds. The caller holds the lock of the state.
        """
        jobs = []
        arm_requests = self.servers.arm_requests(self.main, self.assignment, self.request) or ()
        for arm_request, arm in zip(arm_requests, self.assignment.arms, strict=bool(arm_requests)):
            snapshot, request = arm_request.snapshot, arm_request.request
            resolved = snapshot.resolve(timestamp / 1000, request, vectors[arm.bundle])
            reading = StateReading(snapshot, request, lock)
            jobs.append(
                ArmJob(self.ranking_id, timestamp, request, resolved, snapshot, arm_request.pipeline, reading,
                       arm_request)
            )  # fmt: skip
        return jobs

    def rank(
        self, jobs: Sequence[ArmJob], chain: FallbackChain, budget: LatencyBudget, on_ranked: OnRanked
    ) -> RankingRecord:
        """Rank with each arm and combine the rankings. Call it without the lock. Raises StateChangedError.

        on_ranked: called with the candidates of arms that use the main snapshot.
        """
        records = []
        for job in jobs:
            notify = on_ranked if job.snapshot is self.main else _ignore  # other bundles have other features
            records.append(rank_for_arm(job, chain, budget, notify))
        return combine_arms(records, [job.arm_request.name for job in jobs], self.assignment)


def rank_for_arm(job: ArmJob, chain: FallbackChain, budget: LatencyBudget, on_ranked: OnRanked) -> RankingRecord:
    """Make the ranking of one arm. on_ranked: called with the features and scores of all candidates."""
    arm_request = job.arm_request
    level, ranking = job.rank_candidates(chain, budget, on_ranked)
    propensities, seed = None, None
    may_explore = arm_request.explore is not None and level == FULL and np.isfinite(ranking.scores).all()
    if arm_request.explore is not None and may_explore and not job.request.diversity:
        seed = hash32(job.id)
        indices, probabilities = sample_slate(ranking.scores, job.request.n, arm_request.explore, seed)
        propensities = tuple(probabilities.tolist())
    else:
        indices = job.select_items(ranking, budget)
    return replace(
        RankingRecord.from_ranking(job, level, ranking.take(indices)),
        arm_overrides=dict(arm_request.overrides),
        propensities=propensities,
        seed=seed,
    )


def combine_arms(records: Sequence[RankingRecord], arm_names: Sequence[str], assignment: Assignment) -> RankingRecord:
    """Combine the arms' rankings into the one to show, interleaved if there are several, with its experiments.

    arm_names: names of the arms, in the order of `records`.
    """
    shown = records[0]
    if assignment.interleaved_arms:
        shown = interleave(records, arm_names, assignment.interleaving)
    variants = tuple((exposure.experiment.name, exposure.variant) for exposure in assignment.exposures)
    return replace(shown, experiments=variants)


def interleave(records: Sequence[RankingRecord], arm_names: Sequence[str], method: str) -> RankingRecord:
    """Interleave the arms' rankings; each item keeps the scores and features of its team's ranking.

    An item that is credited to no arm takes those of the first arm that has it.
    """
    first = records[0]
    seed = hash32(first.id)
    merged = _INTERLEAVERS[method]([record.items for record in records], first.request.n, seed)
    ranks = [{item: rank for rank, item in enumerate(record.items)} for record in records]
    sources = [
        team if team >= 0 else next(index for index, rank_of in enumerate(ranks) if item in rank_of)
        for team, item in zip(merged.teams, merged.items, strict=True)
    ]
    picks = [(index, ranks[index][item]) for index, item in zip(sources, merged.items, strict=True)]
    recall_scores = tuple(records[index].recall.scores[rank] for index, rank in picks)
    return replace(
        first,
        items=tuple(merged.items),
        scores=tuple(records[index].scores[rank] for index, rank in picks),
        recall=replace(first.recall, scores=recall_scores),
        fallback=next((record.fallback for record in records if record.fallback != FULL), FULL),
        features=_gather_features(records, picks),
        cross_encoder_scores="",
        arm_overrides={},
        propensities=None,
        interleaving=method,
        team=tuple(arm_names[team] if team >= 0 else "" for team in merged.teams),
        # `balanced_credit` needs the ranks in both rankings
        ranks=tuple(tuple(rank_of.get(item, -1) for item in merged.items) for rank_of in ranks)
        if method == "balanced"
        else (),
        seed=seed,
    )


def _gather_features(records: Sequence[RankingRecord], picks: Sequence[tuple[int, int]]) -> LoggedRows | None:
    """Take one feature row per (arm index, rank); None unless all arms have rows of the same features."""
    logged = [record.features for record in records]
    fingerprints = {rows.fingerprint if rows else None for rows in logged}
    if len(fingerprints) > 1 or None in fingerprints or not picks:
        return None
    matrices = [rows.decode(len(rows.to_bytes() or b"") // (4 * rows.rows)) for rows in logged if rows]
    rows = [matrices[index][rank] for index, rank in picks]  # type: ignore[index]  # they were encoded just now
    return LoggedRows.encode(str(fingerprints.pop()), np.stack(rows))


def _ignore(features: object, scores: object) -> None:
    """Do nothing (no-op callback)."""
