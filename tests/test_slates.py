"""Off-policy evaluation of slates: formulas by hand, exact expectations over every slate, Plackett-Luce."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.models.off_policy import estimators, slates
from feedrank.models.off_policy.estimate import SLATE_METHODS, EstimateSettings, estimate_slates
from feedrank.models.off_policy.log import SlateLog
from feedrank.models.off_policy.policies import (
    SlatePolicy,
    plackett_luce,
    plackett_luce_conditionals,
    plackett_luce_marginals,
)
from feedrank.models.off_policy.reward_model import RewardModelSettings, predict_slate_rewards
from feedrank.models.off_policy.support import SupportLimits

HAND = SlateLog(
    actions=np.array([[0, 1], [1, 2]], np.int32),
    rewards=np.array([[1.0, 1.0], [0.0, 1.0]]),
    conditional=np.array([[0.5, 0.5], [0.25, 0.5]]),
    marginal=np.array([[0.5, 0.4], [0.25, 0.5]]),
)
CHOSEN = np.array([[0.25, 1.0], [0.5, 0.25]])
MARGINAL = np.array([[0.25, 0.2], [0.5, 0.25]])
ANYTHING = SupportLimits(
    min_ess=0,
    min_rewarded_ess=0,
    max_unsupported_mass=1,
    max_mean_deviation=np.inf,
    max_row_share=1,
    max_cluster_share=1,
    max_lost_weight=1,
)

EVERY = np.array(list(permutations(range(4), 3)), np.int32)
"""All 24 slates of three of four items."""
LOGGING, CANDIDATE = np.array([0.3, -0.2, 0.1, 0.4]), np.array([1.0, 0.0, -1.0, 0.5])


def chances(scores: np.ndarray, of: np.ndarray = EVERY) -> np.ndarray:
    """(S, K) conditional probabilities of slates."""
    return plackett_luce(np.tile(scores, (len(of), 1)), of, 1.0)


def marginals(scores: np.ndarray) -> np.ndarray:
    """(S, K) exact, summed over every slate."""
    whole = chances(scores).prod(axis=1)
    same = EVERY[:, None, :] == EVERY[None, :, :]
    return (same * whole[None, :, None]).sum(axis=1)


def world() -> tuple[SlateLog, SlatePolicy]:
    """Every slate once; weighted by its probability under the logging policy, a mean is an exact expectation."""
    log = SlateLog(EVERY, np.zeros(EVERY.shape), chances(LOGGING), marginals(LOGGING))
    conditional = plackett_luce_conditionals(np.tile(CANDIDATE, (len(EVERY), 1)), EVERY, 1.0)
    return log, SlatePolicy(chances(CANDIDATE), marginals(CANDIDATE), conditional)


def drawn(seed: int, rows: int) -> tuple[SlateLog, SlatePolicy, float]:
    """A log of slates where clicks at earlier positions prevent later ones, and the true value of the candidate."""
    generator = np.random.default_rng(seed)
    click = np.array([0.3, 0.2, 0.1, 0.25])[EVERY]
    click = click * np.cumprod(np.column_stack((np.ones(len(click)), 1 - click[:, :-1])), axis=1)
    at = generator.choice(len(EVERY), rows, p=chances(LOGGING).prod(axis=1))
    rewards = (generator.random((rows, 3)) < click[at]).astype(float)
    log, policy = world()
    whole = replace(log, actions=EVERY[at], rewards=rewards, conditional=log.conditional[at], marginal=log.marginal[at])
    candidate = SlatePolicy(policy.logged_probabilities[at], policy.marginal[at], policy.conditional[at])
    return whole, candidate, float(policy.logged_probabilities.prod(axis=1) @ click.sum(axis=1))


def test_the_formulas_by_hand():
    steps = HAND.conditional_weights(CHOSEN)
    np.testing.assert_allclose(steps, [[0.5, 2.0], [2.0, 0.5]])
    along = slates.cumulative_weights(steps)
    np.testing.assert_allclose(along, [[0.5, 1.0], [2.0, 1.0]])
    rewards = HAND.rewards
    assert slates.slate_ips(along[:, -1], rewards).value == pytest.approx((1 * 2 + 1 * 1) / 2)
    assert slates.slate_snips(along[:, -1], rewards).value == pytest.approx((1 * 2 + 1 * 1) / (1 + 1))
    assert slates.rips(along, rewards).value == pytest.approx(((0.5 * 1 + 1 * 1) + (2 * 0 + 1 * 1)) / 2)
    assert slates.snrips(along, rewards).value == pytest.approx(0.5 / 2.5 + 2 / 2)
    weights = HAND.marginal_weights(MARGINAL)
    np.testing.assert_allclose(weights, [[0.5, 0.5], [2.0, 0.5]])
    assert slates.iips(weights, rewards).value == pytest.approx(((0.5 + 0.5) + (0 + 0.5)) / 2)
    assert slates.sniips(weights, rewards).value == pytest.approx(0.5 / 2.5 + 1 / 1)


def test_cascade_dr_by_hand():
    expected, predicted = np.array([[0.7, 0.6], [0.7, 0.3]]), np.array([[0.8, 0.5], [0.6, 0.2]])
    # first slate: 0.5 (1 - 0.8) + 0.7 = 0.8, then 1 (1 - 0.5) + 0.5 x 0.6 = 0.8
    # second: 2 (0 - 0.6) + 0.7 = -0.5, then 1 (1 - 0.2) + 2 x 0.3 = 1.4
    found = slates.cascade_dr(
        slates.cumulative_weights(HAND.conditional_weights(CHOSEN)), HAND.rewards, expected, predicted
    )
    np.testing.assert_allclose(found.numerator[:, 0], [1.6, 0.9])
    assert found.value == pytest.approx(1.25)


def test_a_slate_of_one_is_a_row():
    weights, reward = np.array([[0.5], [2.0], [1.5]]), np.array([[1.0], [0.0], [1.0]])
    expected, predicted = np.array([[0.4], [0.4], [0.4]]), np.array([[0.3], [0.5], [0.2]])
    ips, snips = estimators.ips(weights[:, 0], reward[:, 0]), estimators.snips(weights[:, 0], reward[:, 0])
    for method in (slates.rips, slates.iips):
        assert method(weights, reward).value == pytest.approx(ips.value)
    for method in (slates.snrips, slates.sniips):
        assert method(weights, reward).value == pytest.approx(snips.value)
    dr = estimators.dr(weights[:, 0], reward[:, 0], expected[:, 0], predicted[:, 0])
    assert slates.cascade_dr(weights, reward, expected, predicted).value == pytest.approx(dr.value)


CLICKS = {
    "its own item": np.array([0.3, 0.2, 0.1, 0.25])[EVERY],
    "and those above": np.where(np.roll(EVERY, 1, axis=1) == 0, [0.1, 0.0, 0.0], 0.3),
    "the whole slate": np.where(EVERY[:, 2:] == 0, 0.1, 0.3) * np.ones(3),
}
"""What a click depends on -> its chance at each position of every slate."""
UNBIASED = {
    "its own item": ("slate_ips", "iips", "rips", "cascade_dr"),
    "and those above": ("slate_ips", "rips", "cascade_dr"),
    "the whole slate": ("slate_ips",),
}


@pytest.mark.parametrize("depends", CLICKS)
def test_each_is_unbiased_for_the_viewer_it_believes_in(depends):
    log, policy = world()
    click, chance = CLICKS[depends].copy(), log.conditional.prod(axis=1)
    if depends == "and those above":
        click[:, 0] = 0.1
    truth = policy.logged_probabilities.prod(axis=1) @ click.sum(axis=1)
    along, weights = (
        slates.cumulative_weights(log.conditional_weights(policy.logged_probabilities)),
        log.marginal_weights(policy.marginal),
    )
    wrong = np.random.default_rng(0).random((*EVERY.shape, 4))  # a model of the position and what is above it
    _, prefix = np.unique(EVERY[:, :2], axis=0, return_inverse=True)
    wrong[:, 0], wrong[:, 1], wrong[:, 2] = wrong[0, 0], wrong[EVERY[:, 0], 1], wrong[prefix, 2]
    predicted = np.take_along_axis(wrong, EVERY[:, :, None].astype(int), axis=2)[:, :, 0]
    found = {
        "slate_ips": slates.slate_ips(along[:, -1], click),
        "iips": slates.iips(weights, click),
        "rips": slates.rips(along, click),
        "cascade_dr": slates.cascade_dr(along, click, (policy.conditional * wrong).sum(axis=2), predicted),
    }
    exact = {
        name for name, ratios in found.items() if chance @ ratios.numerator[:, 0] == pytest.approx(truth, abs=1e-9)
    }
    assert exact == set(UNBIASED[depends])


def test_a_candidate_that_is_the_logging_policy_earns_the_plain_mean():
    log, policy, _ = drawn(0, 500)
    same = SlatePolicy(log.conditional, log.marginal, policy.conditional)
    found = estimate_slates(log, same, [name for name in SLATE_METHODS if name != "cascade-dr"], seed=0)
    for answer in found.values():
        assert answer.value == pytest.approx(log.rewards.sum(axis=1).mean())
        assert answer.ess == pytest.approx(500)


def test_positions_can_be_weighted():
    settings = EstimateSettings(limits=ANYTHING)
    policy = SlatePolicy(CHOSEN, MARGINAL)
    found = estimate_slates(HAND, policy, ("rips",), settings, seed=0, position_weights=np.array([1.0, 0.5]))
    assert found["rips"].value == pytest.approx(((0.5 + 0.5) + (0 + 0.5)) / 2)
    with pytest.raises(ValueError, match="expected \\(2,\\)"):
        estimate_slates(HAND, policy, ("rips",), settings, seed=0, position_weights=np.ones(3))


def test_intervals_cover_the_truth_and_a_model_makes_them_narrower():
    repeats, covered, errors = 100, {}, {}
    for seed in range(repeats):
        log, policy, truth = drawn(seed, 1000)
        for name, answer in estimate_slates(log, policy, tuple(SLATE_METHODS), seed=seed).items():
            covered[name] = covered.get(name, 0) + (answer.low <= truth <= answer.high)
            errors[name] = errors.get(name, 0.0) + answer.standard_error / repeats
    for name in ("ips", "snips", "rips", "snrips", "cascade-dr"):  # what is above matters, so not iips
        assert 0.88 <= covered[name] / repeats <= 1, f"{name} covers {covered[name]} of {repeats}"
    assert errors["cascade-dr"] < errors["rips"] < errors["ips"]


def test_empty_positions_change_nothing():
    log, policy, _ = drawn(1, 400)
    pad = lambda column, value: np.column_stack((column, np.full(400, value)))  # noqa: E731
    longer = SlateLog(
        pad(log.actions, -1).astype(np.int32), pad(log.rewards, 0.0), pad(log.conditional, 0.0), pad(log.marginal, 0.0)
    )
    conditional = np.concatenate((policy.conditional, np.zeros((400, 1, 4))), axis=1)
    candidate = SlatePolicy(pad(policy.logged_probabilities, 0.0), pad(policy.marginal, 0.0), conditional)
    names = [name for name in SLATE_METHODS if not name.startswith("sn")]
    found, padded = (estimate_slates(*given, names, seed=0) for given in ((log, policy), (longer, candidate)))
    for name in names:
        assert (padded[name].value, padded[name].low) == pytest.approx((found[name].value, found[name].low))


def test_the_slate_model_counts_what_is_to_come():
    log, policy, _ = drawn(2, 3000)
    always = replace(log, rewards=np.ones(log.rewards.shape))
    q = predict_slate_rewards(always, policy, always.rewards, RewardModelSettings(smoothing=0.01), seed=0)
    np.testing.assert_allclose(q.mean(axis=(0, 2)), [3, 2, 1], atol=0.01)


def test_support_is_refused_by_method():
    log, _, _ = drawn(3, 2000)
    sharp = SlatePolicy.from_scores(np.tile(4 * CANDIDATE, (2000, 1)), log, 1.0)
    found = estimate_slates(
        log, sharp, ("ips", "rips"), EstimateSettings(limits=replace(ANYTHING, min_ess=300)), seed=0
    )
    assert "effective sample size" in found["ips"].refusal
    assert found["rips"].refusal.startswith("at position 2: the effective sample size of 2,000 rows is 18")
    one = estimate_slates(log, sharp, ("ips",), EstimateSettings(limits=ANYTHING), seed=0)
    assert one["ips"].refusal is None


@pytest.mark.parametrize("rule", ["mse", 1.5])
def test_slates_are_clipped_on_record(rule):
    log, policy, _ = drawn(4, 2000)
    plain, clipped = (
        estimate_slates(
            log, policy, ("ips", "snrips", "cascade-dr"), EstimateSettings(clip=by, limits=ANYTHING), seed=0
        )
        for by in (None, rule)
    )
    for name in ("ips", "snrips"):
        record = clipped[name].clipping
        assert record.reason.startswith(str(rule) if rule == "mse" else "given")
        assert clipped[name].support.largest_shares[0] <= plain[name].support.largest_shares[0]
    assert clipped["ips"].clipping.bias == pytest.approx(clipped["ips"].value - plain["ips"].value)
    assert clipped["cascade-dr"] == plain["cascade-dr"]


def test_plackett_luce_by_hand():
    scores = np.log(np.array([[4.0, 2.0, 1.0, 1.0]]))
    found = plackett_luce(scores, np.array([[1, 0, 3]], np.int32), 1.0)
    np.testing.assert_allclose(found, [[2 / 8, 4 / 6, 1 / 2]])
    np.testing.assert_allclose(plackett_luce(scores, np.array([[1, -1, -1]], np.int32), 1.0), [[0.25, 1, 1]])
    every = plackett_luce_conditionals(scores, np.array([[1, 0, -1]], np.int32), 1.0)
    np.testing.assert_allclose(every, [[[4 / 8, 2 / 8, 1 / 8, 1 / 8], [4 / 6, 0, 1 / 6, 1 / 6], [0, 0, 0, 0]]])


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.floats(0.05, 20))
def test_plackett_luce_is_a_distribution_over_slates(scores, temperature):
    whole = plackett_luce(np.tile(scores, (24, 1)), EVERY, temperature).prod(axis=1)
    assert whole.sum() == pytest.approx(1)


def test_a_low_temperature_shows_the_best_of_what_is_left():
    scores = np.array([[3e8, 1.0, 2e8, -np.inf]] * 3)
    logged = np.array([[0, 2, 1], [0, 1, 2], [2, 0, 1]], np.int32)
    for temperature in (1e-300, 1e-3, 0.0):
        found = plackett_luce(scores, logged, temperature)
        np.testing.assert_allclose(found, [[1, 1, 1], [1, 0, 1], [0, 1, 1]])
    np.testing.assert_allclose(plackett_luce(np.zeros((1, 4)), np.array([[2, 1]], np.int32), 0.0), [[1 / 4, 1 / 3]])
    with pytest.raises(ValueError, match="longer than there are items"):
        plackett_luce(np.array([[0.0, -np.inf]]), np.array([[0, 1]], np.int32), 1.0)


def test_sampled_marginals_are_near_the_exact_ones():
    found = plackett_luce_marginals(np.tile(CANDIDATE, (24, 1)), EVERY, 1.0, seed=0, draws=4000)
    np.testing.assert_allclose(found, marginals(CANDIDATE), atol=0.04)
    assert np.abs(found - marginals(CANDIDATE)).mean() < 0.006


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match="after an empty position"):
        replace(HAND, actions=np.array([[-1, 1], [1, 2]], np.int32))
    with pytest.raises(ValueError, match="shows an item twice"):
        replace(HAND, actions=np.array([[1, 1], [1, 2]], np.int32))
    with pytest.raises(ValueError, match="an empty position has a reward"):
        replace(HAND, actions=np.array([[0, -1], [1, 2]], np.int32))
    with pytest.raises(ValueError, match="not in"):
        replace(HAND, conditional=np.array([[0.0, 1], [1, 1]]))
    with pytest.raises(ValueError, match="no marginal propensities"):
        estimate_slates(replace(HAND, marginal=None), SlatePolicy(CHOSEN, MARGINAL), ("iips",), seed=0)
    with pytest.raises(ValueError, match="needs the candidate's marginal"):
        estimate_slates(HAND, SlatePolicy(CHOSEN), ("iips",), seed=0)
    with pytest.raises(ValueError, match="every item at every position"):
        estimate_slates(HAND, SlatePolicy(CHOSEN), ("cascade-dr",), seed=0)
    with pytest.raises(ValueError, match="expected 0 or more"):
        plackett_luce(np.zeros((2, 3)), HAND.actions, -1.0)
