"""Off-policy evaluation of single items: formulas by hand, exact expectations, intervals, refusals, real logs."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.models.off_policy import estimators
from feedrank.models.off_policy.clipping import clip
from feedrank.models.off_policy.estimate import METHODS, EstimateSettings, estimate
from feedrank.models.off_policy.intervals import bootstrap_interval, normal_interval, skewness_corrected_interval
from feedrank.models.off_policy.log import BanditLog
from feedrank.models.off_policy.policies import Policy, empirical_policy, uniform_policy
from feedrank.models.off_policy.ratio_estimate import RatioEstimate, mean_estimate
from feedrank.models.off_policy.reward_model import RewardModelSettings, assign_folds, predict_rewards, smoothed_rates
from feedrank.models.off_policy.support import SupportLimits, diagnose, effective_sample_size, find_unsupported_mass

LOGGING = np.array([0.5, 0.25, 0.25])
CANDIDATE = np.array([0.25, 0.5, 0.25])
HAND = BanditLog(
    action=np.array([0, 1, 1, 0], np.int32),
    position=np.zeros(4, np.int32),
    reward=np.array([1.0, 0.0, 1.0, 0.0]),
    propensity=np.array([0.5, 0.25, 0.25, 0.5]),
)
WEIGHTS = np.array([0.5, 2.0, 2.0, 0.5])  # 0.25 / 0.5, 0.5 / 0.25, ...
Q = np.tile([0.4, 0.2, 0.6], (4, 1))
EXPECTED = np.full(4, 0.35)  # 0.25 x 0.4 + 0.5 x 0.2 + 0.25 x 0.6
PREDICTED = np.array([0.4, 0.2, 0.2, 0.4])
ANYTHING = SupportLimits(
    min_ess=0,
    min_rewarded_ess=0,
    max_unsupported_mass=1,
    max_mean_deviation=np.inf,
    max_row_share=1,
    max_cluster_share=1,
    max_lost_weight=1,
)


def simulated(seed: int, rows: int = 3000, users: int | None = None) -> tuple[BanditLog, Policy, float]:
    """Ten items at two positions clicked 2 to 20 % of the time, and the true value of a sharper candidate policy."""
    generator = np.random.default_rng(seed)
    click = np.linspace(0.02, 0.2, 20).reshape(2, 10)
    logging = np.stack((np.linspace(1, 3, 10), np.linspace(3, 1, 10)))
    logging /= logging.sum(axis=1, keepdims=True)
    policy = Policy(click / click.sum(axis=1, keepdims=True))
    cluster, times, drawn = None, np.ones(rows), generator.random(rows)
    if users is not None:
        cluster = generator.integers(users, size=rows)
        times = generator.choice([0.3, 1.7], users)[cluster]
        drawn = (generator.random(users)[cluster] + 0.1 * drawn) % 1  # one user is shown much the same
    position = generator.integers(2, size=rows).astype(np.int32)
    action = (drawn[:, None] > np.cumsum(logging, axis=1)[position]).sum(axis=1).clip(0, 9).astype(np.int32)
    reward = (generator.random(rows) < times * click[position, action]).astype(float)
    truth = float((policy.probabilities * click).sum(axis=1).mean())
    return BanditLog(action, position, reward, logging[position, action], cluster=cluster), policy, truth


def test_the_formulas_by_hand():
    np.testing.assert_allclose(HAND.importance_weights(CANDIDATE[HAND.action]), WEIGHTS)
    # w r = 0.5, 0, 2, 0
    assert estimators.ips(WEIGHTS, HAND.reward).value == pytest.approx(2.5 / 4)
    assert estimators.snips(WEIGHTS, HAND.reward).value == pytest.approx(2.5 / 5)
    assert estimators.dm(WEIGHTS, HAND.reward, EXPECTED, PREDICTED).value == pytest.approx(0.35)
    # w (r - q) = 0.5 x 0.6, 2 x -0.2, 2 x 0.8, 0.5 x -0.4 = 0.3, -0.4, 1.6, -0.2; their sum is 1.3
    assert estimators.dr(WEIGHTS, HAND.reward, EXPECTED, PREDICTED).value == pytest.approx(0.35 + 1.3 / 4)
    assert estimators.sndr(WEIGHTS, HAND.reward, EXPECTED, PREDICTED).value == pytest.approx(0.35 + 1.3 / 5)


def test_estimate_gives_the_same_by_name():
    found = estimate(
        HAND, Policy(CANDIDATE[None]), tuple(METHODS), EstimateSettings(limits=ANYTHING), seed=0, predictions=Q
    )
    values = {name: answer.value for name, answer in found.items()}
    assert values == pytest.approx({"ips": 0.625, "snips": 0.5, "dm": 0.35, "dr": 0.675, "sndr": 0.61})
    assert found["dr"].ess == pytest.approx(25 / 8.5)  # 5^2 / (0.25 + 4 + 4 + 0.25)


def test_the_errors_by_hand():
    snips = estimators.snips(WEIGHTS, HAND.reward)
    # w (r - 0.5) / mean(w) = (0.25, -1, 1, -0.25) / 1.25
    np.testing.assert_allclose(snips.influence, [0.2, -0.8, 0.8, -0.2])
    assert normal_interval(snips).standard_error == pytest.approx(np.sqrt((0.04 + 0.64 + 0.64 + 0.04) * 4 / 3) / 4)
    # sums of two clusters: -0.6 and 0.6
    clustered = normal_interval(snips, np.array(["a", "a", "b", "b"]))
    assert clustered.standard_error == pytest.approx(np.sqrt((0.36 + 0.36) * 2) / 4)
    assert clustered.clusters == 2
    # t with one degree of freedom is 12.706 at 97.5 %
    assert clustered.high == pytest.approx(0.5 + 12.706 * 0.3, abs=1e-3)


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_agree_where_nothing_is_skewed(clustered):
    values = np.random.default_rng(0).normal(3, 1, 2000)
    cluster = np.arange(2000) // 5 if clustered else None
    plain = normal_interval(mean_estimate(values), cluster)
    for other in (
        skewness_corrected_interval(mean_estimate(values), cluster),
        bootstrap_interval(mean_estimate(values), cluster, seed=1),
    ):
        np.testing.assert_allclose([other.low, other.high], [plain.low, plain.high], atol=0.2 * plain.standard_error)


def test_the_skewed_interval_reaches_up_where_clicks_are_few():
    clicks = np.zeros(2000)
    clicks[:20] = 1
    plain, moved = normal_interval(mean_estimate(clicks)), skewness_corrected_interval(mean_estimate(clicks))
    assert moved.low > plain.low
    assert moved.high > plain.high
    np.testing.assert_allclose([moved.low, moved.high], [0.0065, 0.0155], atol=0.0005)  # Wilson's: 0.0065, 0.0154


def test_few_values_or_many_clusters_are_resampled_alike(monkeypatch):
    log, policy, _ = simulated(0)
    snips = estimators.snips(log.importance_weights(policy.logged_probabilities(log)), log.reward)
    few = bootstrap_interval(snips, seed=0)
    shaken = RatioEstimate(snips.numerator + np.arange(3000)[:, None] * 1e-12, snips.denominator)
    many = bootstrap_interval(shaken, seed=0)
    monkeypatch.setattr("feedrank.models.off_policy.intervals.MAX_BOOTSTRAP_CLUSTERS", 1000)
    bundled = bootstrap_interval(shaken, seed=0)
    for other in (many, bundled):
        np.testing.assert_allclose([other.low, other.high], [few.low, few.high], atol=0.2 * few.standard_error)
    assert bootstrap_interval(snips, seed=0) == few
    assert bootstrap_interval(snips, seed=1) != few


@given(st.integers(0, 10**6))
def test_a_candidate_that_is_the_logging_policy_earns_the_plain_mean(seed):
    generator = np.random.default_rng(seed)
    reward, propensity = generator.random(30), generator.uniform(0.1, 1, 30)
    log = BanditLog(np.arange(30, dtype=np.int32), np.zeros(30, np.int32), reward, propensity)
    weights = log.importance_weights(propensity)
    for estimator in (estimators.ips, estimators.snips):
        assert estimator(weights, reward).value == pytest.approx(reward.mean())


@given(st.floats(1e-3, 1e3))
def test_snips_is_invariant_to_the_scale_of_weights(scale):
    found, scaled = (estimators.snips(by * WEIGHTS, HAND.reward) for by in (1.0, scale))
    assert scaled.value == pytest.approx(found.value)
    np.testing.assert_allclose(scaled.influence, found.influence)


def test_a_perfect_model_leaves_dr_no_error():
    found = estimators.dr(WEIGHTS, PREDICTED, EXPECTED, PREDICTED)
    assert found.value == pytest.approx(0.35)
    assert normal_interval(found).standard_error == pytest.approx(0)


def test_dr_is_unbiased_with_a_wrong_model_and_dm_is_not():
    click, wrong = np.array([0.1, 0.3, 0.2]), np.array([0.9, 0.0, 0.5])
    # over every outcome (item, click or not) with its probability under the logging policy: an exact expectation
    item, reward = np.repeat(np.arange(3), 2), np.tile([0.0, 1.0], 3)
    chance = LOGGING[item] * np.where(reward == 1, click[item], 1 - click[item])
    weights, expected = (CANDIDATE / LOGGING)[item], np.full(6, CANDIDATE @ wrong)
    dr = estimators.dr(weights, reward, expected, wrong[item])
    assert chance @ dr.numerator[:, 0] == pytest.approx(CANDIDATE @ click)
    assert chance @ expected != pytest.approx(CANDIDATE @ click, abs=0.05)


@pytest.mark.parametrize("users", [None, 200])
def test_intervals_cover_the_truth_about_95_times_in_100(users):
    repeats, covered = 150, {}
    for seed in range(repeats):
        log, policy, truth = simulated(seed, 2000, users)
        answers = estimate(log, policy, tuple(METHODS), seed=seed)
        snips = estimators.snips(log.importance_weights(policy.logged_probabilities(log)), log.reward)
        others = {
            "normal": normal_interval(snips, log.cluster),
            "bootstrap": bootstrap_interval(snips, log.cluster, seed=seed, resamples=300),
        }
        for name, found in (answers | others).items():
            covered[name] = covered.get(name, 0) + (found.low <= truth <= found.high)
    for name, times in covered.items():
        assert 0.90 <= times / repeats <= 0.99, f"{name} covers {times} of {repeats}"


def test_ignoring_user_clusters_gives_too_narrow_intervals():
    log, policy, _ = simulated(0, 2000, 50)
    alone = replace(log, cluster=None)
    settings = EstimateSettings(limits=ANYTHING)
    clustered, rows = (estimate(of, policy, ("snips",), settings, seed=0)["snips"] for of in (log, alone))
    assert clustered.standard_error > 1.2 * rows.standard_error
    assert (clustered.clusters, rows.clusters) == (50, 2000)


def test_a_wrong_model_widens_the_interval_of_dm_to_that_of_dr():
    log, policy, _ = simulated(1)
    wrong = np.full((len(log), 10), 0.5)
    found = estimate(log, policy, ("dm", "dr"), seed=0, predictions=wrong)
    assert found["dm"].value == pytest.approx(0.5)
    assert found["dm"].low <= found["dr"].low < found["dr"].value < found["dm"].high


def test_rates_are_learnt_from_other_folds():
    action, position = np.array([0, 0, 1, 1], np.int32), np.zeros(4, np.int32)
    fold = np.array([0, 1, 0, 1])
    found = smoothed_rates(action, position, np.array([1.0, 0.0, 1.0, 0.0]), fold, 2, 2, smoothing=1.0)
    # fold 0 learns from fold 1, without clicks; fold 1 from fold 0, all clicked
    np.testing.assert_allclose(found[:, 0], [[0, 0], [1, 1]])
    found = smoothed_rates(action, position, np.array([1.0, 0.0, 0.0, 0.0]), fold, 2, 2, smoothing=1.0)
    # of fold 0: rate of all 1/2, of item 0 (1 + 1/2) / 2, of item 1 (0 + 1/2) / 2, of the place 1/2
    np.testing.assert_allclose(found[1, 0], [(1 + 0.75) / 2, (0 + 0.25) / 2])


def test_no_row_is_predicted_by_itself_or_by_its_user():
    log, _, _ = simulated(2, 500, 60)
    fold = assign_folds(log.cluster, 500, 5, seed=3)
    assert all(len(set(fold[log.cluster == user])) == 1 for user in np.unique(log.cluster))
    flipped = replace(log, reward=np.where(log.cluster == log.cluster[0], 1 - log.reward, log.reward))
    before, after = (predict_rewards(of, 10, seed=3) for of in (log, flipped))
    same = fold == fold[0]
    np.testing.assert_array_equal(before[same], after[same])
    assert np.abs(before[~same] - after[~same]).max() > 0


@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
def test_reward_models_learn_from_the_context(kind):
    generator = np.random.default_rng(4)
    context = generator.normal(size=(3000, 2))
    action = generator.integers(4, size=3000).astype(np.int32)
    log_odds = -2 + context[:, :1] + np.array([0.0, 0.5, 1.0, 1.5])
    truth = 1 / (1 + np.exp(-log_odds))
    reward = (generator.random(3000) < truth[np.arange(3000), action]).astype(float)
    log = BanditLog(action, np.zeros(3000, np.int32), reward, np.full(3000, 0.25), context=context)
    found = predict_rewards(log, 4, RewardModelSettings(kind, folds=3), seed=0)
    assert found.shape == (3000, 4)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.85
    assert abs(found.mean() - truth.mean()) < 0.02


def test_clipping_by_hand():
    weights, reward = np.array([1.0, 1.0, 1.0, 10.0]), np.array([0.0, 1.0, 0.0, 1.0])
    kept, record = clip(weights, reward, 2.0)
    np.testing.assert_array_equal(kept, [1, 1, 1, 2])
    assert (record.threshold, record.clipped, record.reason) == (2.0, 1, "given")
    assert record.lost_weight == pytest.approx(8 / 13)
    assert record.bias == pytest.approx(3 / 4 - 11 / 4)


@pytest.mark.parametrize("rule", ["mse", "slope"])
def test_the_threshold_is_chosen_on_record(rule):
    heavy = np.arange(2000) % 200 == 0  # ten rows
    weights, reward = np.where(heavy, 40.0, 0.8), (np.arange(2000) % 10 == 3).astype(float)
    reward[0] = 1.0  # one of ten, as of the rest
    kept, record = clip(weights, reward - 0.1, rule)  # what is heavy earns no other than the rest
    np.testing.assert_allclose(kept, 0.8)
    assert record.clipped == 10
    assert record.reason.startswith(f"{rule}: ")
    unclipped = (np.inf, 0, 0, 0)
    for residual, most_lost in ((reward - 0.1, 0.1), (np.where(heavy, 0.9, reward - 0.1), 1.0)):
        kept, record = clip(
            weights, residual, rule, max_lost_weight=most_lost
        )  # too much would be lost; the heavy earn more
        if rule == "mse" or most_lost < 1:
            assert (record.threshold, record.clipped, record.lost_weight, record.bias) == unclipped
            np.testing.assert_array_equal(kept, weights)


def test_a_clipped_interval_covers_the_unclipped_estimate():
    log, policy, _ = simulated(6)
    plain, clipped = (estimate(log, policy, ("ips", "dr"), EstimateSettings(clip=rule), seed=0) for rule in (None, 1.5))
    assert clipped["ips"].value < plain["ips"].value < clipped["ips"].high
    record = clipped["ips"].clipping
    assert record.bias == pytest.approx(clipped["ips"].value - plain["ips"].value)
    assert clipped["ips"].ess > plain["ips"].ess
    assert clipped["dr"] == plain["dr"]  # what a model is left with has an error that no interval knows


def test_support_by_hand():
    assert effective_sample_size(np.array([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)
    found = diagnose(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]), np.array([7, 8, 8]))
    assert found.largest_shares == pytest.approx((0.5, 0.25, 0.25))
    assert found.largest_cluster_share == pytest.approx(0.75)
    assert found.rewarded_ess == pytest.approx(9 / 5)
    assert found.overlap_summary.startswith("good overlap: 3 rows, effective sample size 3")


def test_unsupported_actions_are_found_by_position():
    log = BanditLog(np.array([0, 1, 0], np.int32), np.array([0, 0, 1], np.int32), np.zeros(3), np.full(3, 0.5))
    by_position, mass = find_unsupported_mass(log, uniform_policy(2, 4))
    np.testing.assert_allclose(by_position, [0.5, 0.75])
    assert mass == pytest.approx((2 * 0.5 + 0.75) / 3)
    _, mass = find_unsupported_mass(log, uniform_policy(2, 4), logging_probabilities=np.full((2, 4), 0.25))
    assert mass == 0


def refusal(log: BanditLog, policy: Policy, **limits: float) -> str | None:
    settings = EstimateSettings(limits=replace(ANYTHING, **limits))
    answer = estimate(log, policy, ("snips",), settings, seed=0)["snips"]
    assert np.isnan([answer.value, answer.low, answer.high, answer.standard_error]).all() == (
        answer.refusal is not None
    )
    return answer.refusal


def test_thin_support_is_refused():
    log, policy, _ = simulated(7)
    assert refusal(log, policy) is None
    assert estimate(log, policy, seed=0)["snips"].refusal is None
    few = BanditLog(log.action[:60], log.position[:60], log.reward[:60], log.propensity[:60])
    assert "log more rows, or choose a candidate closer" in refusal(few, policy, min_ess=100)
    assert "number of rewarded rows is 0.0" in refusal(replace(log, reward=np.zeros(3000)), policy, min_rewarded_ess=10)
    beyond = Policy(np.column_stack((policy.probabilities * 0.9, np.full(2, 0.1))))
    assert "10 % of the candidate's mass" in refusal(log, beyond, max_unsupported_mass=0.01)
    assert "the mean weight is 0.9" in refusal(log, beyond, max_mean_deviation=4)  # seen without knowing what was shown
    wrong_propensity = replace(log, propensity=np.full(3000, 0.05))
    assert "the propensities are not those" in refusal(wrong_propensity, policy, max_mean_deviation=4)
    heavy = replace(log, propensity=np.where(np.arange(3000) == 5, 1e-5, log.propensity))
    assert "one row has" in refusal(heavy, policy, max_row_share=0.05)
    user = replace(log, cluster=np.maximum(np.arange(3000), 1000))
    assert "one cluster has 33 %" in refusal(user, policy, max_cluster_share=0.1)
    settings = EstimateSettings(clip=0.5)
    assert "clipping removed" in estimate(log, policy, ("snips",), settings, seed=0)["snips"].refusal


def test_a_candidate_without_overlap_is_refused():
    log = replace(HAND, action=np.zeros(4, np.int32))
    policy = Policy(np.array([[0.0, 0.5, 0.5]]))
    for clipping in (None, "mse"):
        found = estimate(log, policy, tuple(METHODS), EstimateSettings(clip=clipping), seed=0, predictions=Q)
        assert all("rows is 0.0" in answer.refusal for answer in found.values())


def test_policies():
    action, position = np.array([0, 0, 1, 2], np.int32), np.array([0, 0, 0, 1], np.int32)
    counted = empirical_policy(action, position, 2, 3)
    np.testing.assert_allclose(counted.probabilities, [[2 / 3, 1 / 3, 0], [0, 0, 1]])
    log = BanditLog(action, position, np.zeros(4), np.ones(4))
    np.testing.assert_allclose(counted.logged_probabilities(log), [2 / 3, 2 / 3, 1 / 3, 1])
    by_row = Policy(np.tile([0.2, 0.3, 0.5], (4, 1)), by_position=False)
    np.testing.assert_allclose(by_row.logged_probabilities(log), [0.2, 0.2, 0.3, 0.5])


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"1 of 4 are not in \(0, 1\]"):
        replace(HAND, propensity=np.array([0.5, 0.0, 0.5, 0.5]))
    with pytest.raises(ValueError, match=r"reward has shape \(3,\); expected \(4,\)"):
        replace(HAND, reward=np.zeros(3))
    with pytest.raises(ValueError, match="expected integers"):
        replace(HAND, action=np.zeros(4))
    with pytest.raises(ValueError, match="NaN or infinite"):
        replace(HAND, reward=np.array([np.nan, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"expected \(4,\)"):
        replace(HAND, cluster=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"a row sums to 0\.9"):
        Policy(np.array([[0.4, 0.5]]))
    with pytest.raises(ValueError, match="policy has items 0 to 0"):
        estimate(HAND, uniform_policy(1, 1), seed=0)
    with pytest.raises(ValueError, match=r"positions \[1\] have no row"):
        empirical_policy(HAND.action, HAND.position, 2, 2)
    with pytest.raises(ValueError, match="expected ips, snips, dm, dr, sndr"):
        estimate(HAND, uniform_policy(1, 3), ("slope",), seed=0)
    with pytest.raises(ValueError, match="no interval is called"):
        EstimateSettings(interval="t")
    with pytest.raises(ValueError, match="no clipping rule"):
        clip(WEIGHTS, HAND.reward, "best")
    with pytest.raises(ValueError, match="4 clusters for 5 folds"):
        predict_rewards(HAND, 3, seed=0)
    with pytest.raises(ValueError, match="all weights are 0"):
        estimators.snips(np.zeros(4), HAND.reward)
    with pytest.raises(ValueError, match="rewards other than 0 and 1"):
        predict_rewards(replace(HAND, reward=np.full(4, 0.5)), 3, RewardModelSettings("logistic", folds=2), seed=0)


@pytest.mark.data
@pytest.mark.parametrize("campaign", ["men", "women"])
def test_the_random_log_estimates_the_click_rate_of_thompson_sampling(sample_data, campaign):
    def read(policy: str) -> BanditLog:
        with gzip.open(sample_data("open_bandit_sample") / f"{policy}_{campaign}.csv.gz", "rt") as file:
            rows = list(csv.DictReader(file))
        item, position, click, propensity = (
            np.array([float(row[name]) for row in rows])
            for name in ("item_id", "position", "click", "propensity_score")
        )
        return BanditLog(item.astype(np.int32), position.astype(np.int32) - 1, click, propensity)

    log, own = read("random"), read("bts")
    policy = empirical_policy(own.action, own.position, 3, int(max(log.action.max(), own.action.max())) + 1)
    for kind in ("skewed", "normal", "bootstrap"):
        found = estimate(log, policy, ("snips", "dr"), EstimateSettings(interval=kind), seed=0)
        for answer in found.values():
            assert answer.refusal is None
            assert answer.low <= own.reward.mean() <= answer.high
            assert answer.ess > 2000
