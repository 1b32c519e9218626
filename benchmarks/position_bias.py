"""Position bias on simulated clicks: is true relevance found better with debiasing, and is the curve the true one?

Lists of 20 in the order of a policy that knows relevance with noise; place k is examined with probability 1/k. The
ranker sees four noisy signals of relevance and the policy's own score, as it would in a log of its predecessor. The log
is made of events and read, joined and labelled as any other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from benchmarks.bars import Bar
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.evaluation.simulator import SimulatedLog, SimulatorSettings, simulate
from feedrank.models.training.labels import impression_labels
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

SEEDS = 5
WORLD = SimulatorSettings(list_length=20, policy_noise=2.0)
"""The policy is a weak predecessor: its scores have a correlation of 0.45 with relevance."""


def position_bias() -> list[Bar]:
    """Means over the seeds."""
    gains, curves = [], []
    for seed in range(SEEDS):
        train = simulate(replace(WORLD, seed=seed))
        test = simulate(replace(WORLD, rankings=2_000, seed=1_000 + seed))
        plain, debiased = (_trained(train, debias, seed) for debias in (False, True))
        gains.append(_ndcg(debiased, test) / _ndcg(plain, test) - 1)
        assert debiased.position_bias is not None
        truth = 1 / debiased.position_bias.positions
        curves.append(spearmanr(debiased.position_bias.propensities, truth).statistic)
    return [
        Bar("simulated log, examination 1/rank: nDCG@10 against true relevance, debiased over plain",
            100 * float(np.mean(gains)), "%", 5, "higher"),
        Bar("the learnt position-bias curve: rank correlation with the truth", float(np.mean(curves)), "", 0.95,
            "higher"),
    ]  # fmt: skip


def _trained(world: SimulatedLog, debias: bool, seed: int) -> LambdaRanker:
    events = list(world.events())
    log = events_to_table(events, Vocabulary(f"i{n}" for n in range(world.relevance.size)))
    clicked = impression_labels(log)
    features = world.features[log.rankings.items]  # item n is row n of the world
    clicks = np.add.reduceat(clicked, log.rankings.offsets[:-1])
    kept = np.flatnonzero(clicks > 0)
    cut = int(0.8 * len(kept))
    names = tuple([f"signal_{n}" for n in range(features.shape[1] - 1)] + ["policy"])
    settings = LambdaRankSettings(debias=debias, seed=seed)

    def part(groups: np.ndarray) -> QueryGroups:
        length = world.relevance.shape[1]
        rows = (groups[:, None] * length + np.arange(length)).ravel()
        offsets = np.arange(len(groups) + 1, dtype=np.int64) * length
        return QueryGroups(features[rows], clicked[rows], offsets, log.rankings.positions[rows])

    return LambdaRanker.train([part(kept[:cut])], part(kept[cut:]), names, "simulated", settings)


def _ndcg(ranker: LambdaRanker, world: SimulatedLog) -> float:
    scores = ranker.score(world.features)
    by = order(scores, world.offsets)
    return float(evaluate(["ndcg@10"], world.grades.ravel()[by], world.offsets)["ndcg@10"].mean())


if __name__ == "__main__":
    from benchmarks.bars import measure

    measure("position_bias", position_bias)
