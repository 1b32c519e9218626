"""Position bias: the simulator follows its model, and a debiased ranker finds what users would have clicked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.evaluation.simulator import SimulatedLog, SimulatorSettings, attraction, simulate
from feedrank.models.training.labels import impression_labels
from feedrank.models.training.position_bias import PositionBias
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

WORLD = SimulatorSettings(rankings=2_500, list_length=12, policy_noise=3.0, signals=3)
SETTINGS = LambdaRankSettings(rounds=60, patience=20, threads=1)
NAMES = ("signal_0", "signal_1", "signal_2", "policy")


def groups(world: SimulatedLog, first: int, last: int, positions: bool = True) -> QueryGroups:
    length = world.relevance.shape[1]
    kept = np.flatnonzero(world.clicks.any(axis=1))
    kept = kept[int(first * len(kept) / 10) : int(last * len(kept) / 10)]
    rows = (kept[:, None] * length + np.arange(length)).ravel()
    shown_positions = np.tile(np.arange(1, length + 1, dtype=np.int32), len(kept)) if positions else None
    clicks = world.clicks.ravel()[rows].astype(np.float32)
    return QueryGroups(world.features[rows], clicks, np.arange(len(kept) + 1, dtype=np.int64) * length, shown_positions)


def ndcg(ranker: LambdaRanker, world: SimulatedLog) -> float:
    by = order(ranker.score(world.features), world.offsets)
    return float(evaluate(["ndcg@10"], world.grades.ravel()[by], world.offsets)["ndcg@10"].mean())


@pytest.fixture(scope="module")
def debiased() -> LambdaRanker:
    world = simulate(WORLD)
    return LambdaRanker.train([groups(world, 0, 8)], groups(world, 8, 10), NAMES, "x", SETTINGS)


def test_examination_by_position() -> None:
    world = simulate(SimulatorSettings(rankings=40_000, list_length=5, eta=1.0))
    np.testing.assert_allclose(world.examined.mean(axis=0), 1 / np.arange(1, 6), atol=0.01)
    expected = world.attraction.mean(axis=0) / np.arange(1, 6)
    np.testing.assert_allclose(world.clicks.mean(axis=0), expected, atol=0.01)
    assert (attraction(world.relevance) == world.attraction).all()


def test_a_cascade_ends_at_the_first_click() -> None:
    world = simulate(SimulatorSettings(rankings=5_000, examination="cascade"))
    assert world.clicks.sum(axis=1).max() == 1
    clicked = world.clicks.any(axis=1)
    assert (world.examined[~clicked]).all()
    assert (world.examined[clicked].sum(axis=1) - 1 == world.clicks[clicked].argmax(axis=1)).all()


def test_the_same_seed_is_the_same_world() -> None:
    first, again, other = (simulate(SimulatorSettings(rankings=50, seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.clicks, again.clicks)
    assert not np.array_equal(first.relevance, other.relevance)


def test_simulated_events_equal_the_arrays() -> None:
    world = simulate(SimulatorSettings(rankings=200, list_length=6))
    log = events_to_table(world.events(), Vocabulary(f"i{n}" for n in range(1_200)))
    assert np.array_equal(impression_labels(log).reshape(200, 6) > 0, world.clicks)
    assert log.rankings.positions.reshape(200, 6).tolist() == [[1, 2, 3, 4, 5, 6]] * 200


def test_debiased_finds_relevance_better(debiased: LambdaRanker) -> None:
    world, test = simulate(WORLD), simulate(replace(WORLD, rankings=1_000, seed=9))
    plain = LambdaRanker.train([groups(world, 0, 8, False)], groups(world, 8, 10, False), NAMES, "x", SETTINGS)
    assert plain.position_bias is None
    assert ndcg(debiased, test) > 1.03 * ndcg(plain, test)


def test_the_curve_is_that_of_the_world(debiased: LambdaRanker) -> None:
    curve = debiased.position_bias
    assert curve is not None
    assert curve.positions.tolist() == list(range(1, 13))
    assert curve.biases[0] == 0
    assert spearmanr(curve.propensities, 1 / curve.positions).statistic > 0.9


def test_positions_are_used_only_where_all_rows_have_one() -> None:
    world = simulate(SimulatorSettings(rankings=300))
    names = (*(f"s{n}" for n in range(4)), "policy")
    parts = [groups(world, 0, 8), groups(world, 8, 10)]
    assert parts[0].positions is not None
    parts[0].positions[3] = -1
    settings = LambdaRankSettings(rounds=5, threads=1)
    assert LambdaRanker.train(parts[:1], parts[1], names, "x", settings).position_bias is None
    whole = groups(world, 0, 8)
    assert LambdaRanker.train([whole], parts[1], names, "x", settings).position_bias is not None
    off = LambdaRankSettings(rounds=5, threads=1, debias=False)
    assert LambdaRanker.train([whole], parts[1], names, "x", off).position_bias is None


def test_the_propensity_curve_is_stored_with_the_ranker(debiased: LambdaRanker, tmp_path: Path) -> None:
    written = debiased.save(tmp_path)
    assert [path.name for path in written] == ["ranker-0.txt", "position-bias.json"]
    again = LambdaRanker.load(tmp_path, NAMES, "x")
    assert again.position_bias is not None
    assert debiased.position_bias is not None
    np.testing.assert_allclose(again.position_bias.biases, debiased.position_bias.biases, atol=1e-6)
    features = simulate(SimulatorSettings(rankings=20, list_length=12, signals=3)).features
    assert np.array_equal(again.score(features), debiased.score(features))


def test_inverse_propensity_weights_of_clicks() -> None:
    curve = PositionBias(np.array([1, 2, 3]), np.log([1.0, 0.5, 0.01]))
    found = curve.inverse_propensity_gains(np.array([1.0, 1, 3, 0, 1]), np.array([1, 2, 2, 1, 3], np.int32))
    np.testing.assert_allclose(found, [1, 2, 6, 0, 20], rtol=1e-6)


def test_more_trees_on_top_of_a_ranker(debiased: LambdaRanker) -> None:
    world = simulate(SimulatorSettings(rankings=1_000, list_length=12, signals=3, seed=4))
    settings = LambdaRankSettings(rounds=10, threads=1, refit=False)
    for positions in (True, False):
        parts = groups(world, 0, 8, positions), groups(world, 8, 10, positions)
        more = LambdaRanker.train(parts[:1], parts[1], NAMES, "x", settings, init_model=debiased)
        assert debiased.trees < more.trees <= debiased.trees + 10
        with pytest.raises(ValueError, match="trained on other features"):
            LambdaRanker.train(parts[:1], parts[1], NAMES, "another", settings, init_model=debiased)
