"""Lifts, CUPED, sample ratios, corrections, sample sizes, segments and days: against closed forms and simulations."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import tea_tasting as tt
from scipy import stats

from feedrank.models.experiments.lift import bootstrap_lifts, lifts, lifts_from_moments, welch_interval
from feedrank.models.experiments.moments import (
    compare_to_control,
    cumulative_moments,
    final_moments,
    moments_from_counts,
)
from feedrank.models.experiments.novelty import novelty_effects
from feedrank.models.experiments.outcomes import BUILT_IN_COLUMNS, BUILT_IN_METRICS, Metric, Outcomes, find_metric
from feedrank.models.experiments.p_value_correction import benjamini_hochberg, holm
from feedrank.models.experiments.power import (
    always_valid_boundary,
    required_sample_size,
    required_sample_size_from_outcomes,
)
from feedrank.models.experiments.sample_ratio import sample_ratio_test
from feedrank.models.experiments.segments import segment_lifts
from feedrank.models.experiments.simulator import SimulatedExperiment, simulate_experiment

WORLD = SimulatedExperiment(users=1_000, lifts=(0.1,))
CTR = find_metric("ctr")


def outcomes_of(arm_of: list[int], rows: list[tuple[int, int, float, float]], arms: int = 2) -> Outcomes:
    """Rows are (unit, day, clicks, impressions)."""
    table = np.array(rows, np.float64).reshape(-1, 4)
    columns = {name: np.ones(len(table)) for name in BUILT_IN_COLUMNS} | {
        "clicks": table[:, 2],
        "impressions": table[:, 3],
    }
    names = tuple("abcdef"[:arms])
    unit, day = table[:, 0].astype(np.int32), table[:, 1].astype(np.int32)
    return Outcomes(names, np.array(arm_of, np.int32), unit, day, columns, {}, {})


def by_hand(outcomes: Outcomes, arm: int) -> tuple[float, float]:
    """The click rate of an arm and its variance by the delta method, written out."""
    clicks, shown = (outcomes.unit_totals(name)[outcomes.arm_of == arm] for name in ("clicks", "impressions"))
    kept = ~np.isnan(clicks)
    clicks, shown, n = clicks[kept], shown[kept], kept.sum()
    rate = clicks.sum() / shown.sum()
    (vx, vxy), (_, vy) = np.cov(clicks, shown)
    return rate, (vx - 2 * rate * vxy + rate**2 * vy) / shown.mean() ** 2 / n


def test_the_delta_method_is_the_formula():
    outcomes = simulate_experiment(WORLD)
    (lift,) = lifts(outcomes, CTR)
    (first, v0), (other, v1) = by_hand(outcomes, 0), by_hand(outcomes, 1)
    half = stats.t(lift.units[0] + lift.units[1] - 2).ppf(0.975) * math.sqrt(v0 + v1)
    np.testing.assert_allclose([lift.control, lift.value, lift.absolute.value], [first, other, other - first])
    np.testing.assert_allclose(
        [lift.absolute.low, lift.absolute.high], [other - first - half, other - first + half], 1e-3
    )
    log_half = 1.962 * math.sqrt(v0 / first**2 + v1 / other**2)
    bounds = [other / first * math.exp(-log_half) - 1, other / first * math.exp(log_half) - 1]
    np.testing.assert_allclose([lift.relative.low, lift.relative.high], bounds, atol=1e-4)


def test_a_variance_of_rounding_errors_gives_no_ratio_interval():
    """An arm of identical units: the rounding error of its variance has either sign."""
    rows = [(0, 0, 1.0, 1.0), (1, 0, 0.0, 0.5), (2, 0, 1e-12, 0.0), (3, 0, 1.0, 1e-12)]
    (lift,) = lifts(outcomes_of([0, 0, 1, 1], rows), CTR)
    assert lift.absolute.low <= lift.absolute.value <= lift.absolute.high
    assert math.isnan(lift.relative.low)
    assert lift.note == "the variance is lost in rounding: the relative lift has no interval"


def test_an_arm_of_identical_units_is_compared():
    rows = [(unit, 0, 1.0, 2.0) for unit in range(40)] + [(40 + unit, 0, float(unit % 3), 2.0) for unit in range(40)]
    (lift,) = lifts(outcomes_of([0] * 40 + [1] * 40, rows), CTR)
    assert lift.relative.low < lift.relative.value < lift.relative.high


def test_the_variance_is_over_units_and_not_rows():
    outcomes = simulate_experiment(replace(WORLD, click_rate_cv=1.5, rankings_per_day=2.0, lifts=(0.0,)))
    (lift,) = lifts(outcomes, CTR)
    n = [outcomes.columns["impressions"][outcomes.arm_of[outcomes.unit] == arm].sum() for arm in (0, 1)]
    naive = math.sqrt(lift.control * (1 - lift.control) * (1 / n[0] + 1 / n[1]))
    assert (lift.absolute.high - lift.absolute.low) / 2 / 1.96 > 2 * naive


@pytest.mark.parametrize("name", ["ctr", "ctr_per_unit", "clicks_per_unit"])
def test_the_bootstrap_agrees_with_the_delta_method(name):
    outcomes, metric = simulate_experiment(WORLD), find_metric(name)
    (delta,), (drawn,) = lifts(outcomes, metric), bootstrap_lifts(outcomes, metric, seed=3)
    assert drawn.absolute.value == pytest.approx(delta.absolute.value)
    for mine, theirs in ((drawn.absolute, delta.absolute), (drawn.relative, delta.relative)):
        np.testing.assert_allclose(
            [mine.low, mine.high], [theirs.low, theirs.high], atol=0.15 * (theirs.high - theirs.low)
        )
    assert drawn == bootstrap_lifts(outcomes, metric, seed=3)[0] != bootstrap_lifts(outcomes, metric, seed=4)[0]


def test_a_mean_over_units_is_welchs_t_test():
    outcomes = simulate_experiment(WORLD)
    (lift,) = lifts(outcomes, find_metric("clicks_per_unit"))
    clicks = outcomes.unit_totals("clicks")
    sides = [clicks[(outcomes.arm_of == arm) & ~np.isnan(clicks)] for arm in (1, 0)]
    found = stats.ttest_ind(*sides, equal_var=False)
    np.testing.assert_allclose([lift.p, lift.absolute.low], [found.pvalue, found.confidence_interval().low])
    beside = compare_to_control(final_moments(outcomes, find_metric("clicks_per_unit")), 1)
    half, p = welch_interval(beside.difference, beside.variance, beside.units, 0.05)
    np.testing.assert_allclose([p[0], half[0]], [lift.p, lift.absolute.high - lift.absolute.value])


def test_counts_are_units_that_click_or_do_not():
    (lift,) = lifts_from_moments(moments_from_counts(["a", "b"], np.array([100, 140]), np.array([2000, 2000])), "ctr")
    error = math.sqrt((0.05 * 0.95 + 0.07 * 0.93) / 1999)
    assert lift.p == pytest.approx(2 * stats.norm.sf(0.02 / error), rel=0.02)
    assert lift.relative.value == pytest.approx(0.4)


def test_cuped_reduces_the_variance_by_the_correlation():
    outcomes = simulate_experiment(replace(WORLD, users=4_000, stable_rate_share=0.8))
    metric = find_metric("clicks_per_unit")
    plain, adjusted = (lifts(outcomes, metric, cuped=used)[0] for used in (False, True))
    clicks, before = outcomes.unit_totals("clicks"), outcomes.pre_period["clicks"]
    seen = ~np.isnan(clicks)
    correlation = np.corrcoef(clicks[seen], before[seen])[0, 1]
    assert adjusted.variance_reduction == pytest.approx(correlation**2, abs=0.02)
    assert math.isnan(plain.variance_reduction)
    half = (plain.absolute.high - plain.absolute.low) / 2
    assert abs(adjusted.absolute.value - plain.absolute.value) < half
    width = (adjusted.absolute.high - adjusted.absolute.low) / 2 / half
    assert width == pytest.approx(math.sqrt(1 - adjusted.variance_reduction), abs=0.001)


@pytest.mark.parametrize("name", ["ctr", "ctr_per_unit", "clicks_per_unit", "mrr"])
def test_our_cuped_agrees_with_the_library(name):
    outcomes, metric = simulate_experiment(WORLD), find_metric(name)
    (lift,) = lifts(outcomes, metric, cuped=True)
    beside = compare_to_control(cumulative_moments(outcomes, metric, cuped=True), 1)
    assert beside.difference[-1] == pytest.approx(lift.absolute.value, abs=1e-12)
    half, p = welch_interval(beside.difference, beside.variance, beside.units, 0.05)
    np.testing.assert_allclose([half[-1], p[-1]], [lift.absolute.high - lift.absolute.value, lift.p])


def test_a_missing_covariate_changes_nothing():
    outcomes = simulate_experiment(replace(WORLD, pre_period_days=0))
    assert lifts(outcomes, CTR, cuped=True)[0].absolute == lifts(outcomes, CTR)[0].absolute
    silent = replace(outcomes, pre_period={name: np.zeros(1_000) for name in BUILT_IN_COLUMNS})
    assert lifts(silent, CTR, cuped=True)[0].absolute == lifts(outcomes, CTR)[0].absolute


@pytest.mark.parametrize(
    ("arm_of", "rows", "word"),
    [
        ([0, 1], [], "no units in the control"),
        ([0, 1], [(0, 0, 1, 5)], "no units in this arm"),
        ([0, 1], [(0, 0, 1, 5), (1, 0, 1, 5)], "an arm has one unit"),
        ([0, 0, 1, 1], [(0, 0, 1, 5), (1, 0, 2, 5), (2, 0, 0, 5), (3, 0, 0, 5)], "the metric is 0 in this arm"),
        ([0, 0, 1, 1], [(0, 0, 0, 5), (1, 0, 0, 5), (2, 0, 1, 5), (3, 0, 0, 5)], "the metric is 0 in the control"),
        ([0, 0, 1, 1], [(n, 0, 0, 5) for n in range(4)], "the metric is 0 in both"),
        ([0, 0, 1, 1], [(n, 0, 1, 5) for n in range(4)], "the variance is 0"),
        ([0, 0, 1, 1], [(n, 0, 0, 0) for n in range(4)], "the denominator is 0"),
        ([0, 0, 1, 1], [(0, 0, 1, 5), (1, 0, 2, 5), (2, 0, 3, 5), (3, 0, 1, 5)], "few units"),
    ],
)
def test_an_undefined_lift_says_why(arm_of, rows, word):
    outcomes = outcomes_of(arm_of, rows)
    for found in (
        lifts(outcomes, CTR),
        lifts(outcomes, CTR, cuped=True),
        bootstrap_lifts(outcomes, CTR, seed=0, resamples=50),
    ):
        assert word in found[0].note


def test_errors_name_what_is_missing(monkeypatch):
    outcomes = simulate_experiment(WORLD)
    with pytest.raises(ValueError, match=r"no column 'saves'.*declare"):
        lifts(outcomes, Metric("saves", "saves"))
    with pytest.raises(ValueError, match="0 resamples"):
        bootstrap_lifts(outcomes, CTR, seed=0, resamples=0)
    monkeypatch.setitem(sys.modules, "tea_tasting", None)
    with pytest.raises(ImportError, match=r"feedrank\[experiments\]"):
        lifts(outcomes, CTR)


def test_the_sample_ratio_is_a_chi_square():
    found = sample_ratio_test(np.array([5_000, 5_300]), arms=["a", "b"])
    assert found.statistic == pytest.approx(300**2 / 10_300)
    assert found.p == pytest.approx(math.erfc(math.sqrt(found.statistic / 2)))  # one degree of freedom
    assert not found.mismatch
    assert sample_ratio_test(np.array([49_000, 51_000])).mismatch
    three = sample_ratio_test(np.array([200, 100, 130]), (2, 1, 1))
    assert three.p == pytest.approx(math.exp(-three.statistic / 2))  # two
    assert three.p == pytest.approx(stats.chisquare([200, 100, 130], [215, 107.5, 107.5]).pvalue)
    assert math.isnan(sample_ratio_test(np.array([9, 0])).p)
    assert not sample_ratio_test(np.array([0, 0])).mismatch
    with pytest.raises(ValueError, match="one above 0 for each"):
        sample_ratio_test(np.array([1, 2]), (1, 2, 3))


def test_corrections_by_hand():
    p = [0.01, 0.04, float("nan"), 0.03, 0.2]
    np.testing.assert_allclose(holm(p), [0.04, 0.09, np.nan, 0.09, 0.2])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, 0.16 / 3, np.nan, 0.16 / 3, 0.2])
    assert np.isnan(holm([float("nan")])).all()
    assert len(benjamini_hochberg([])) == 0
    known = [one for one in p if not math.isnan(one)]
    theirs = tt.adjust_fwer(
        {n: tt.experiment.ExperimentResult({"x": {"pvalue": one}}) for n, one in enumerate(known)},
        arbitrary_dependence=True, method="bonferroni",
    )  # fmt: skip
    np.testing.assert_allclose(holm(known), [theirs[n]["x"]["pvalue_adj"] for n in range(len(known))])


def test_the_sample_size_is_that_of_the_textbook():
    found = required_sample_size(0.05, 0.05 * 0.95, mde=0.1, impressions_per_unit=1, units_per_day=5_000)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    units = 2 * z**2 * 0.05 * 0.95 / 0.005**2
    assert found.fixed_horizon.units[0] == pytest.approx(units, abs=1.5)
    assert found.fixed_horizon.impressions == sum(found.fixed_horizon.units)
    assert found.fixed_horizon.days == math.ceil(sum(found.fixed_horizon.units) / 5_000)
    assert always_valid_boundary(0.05) == pytest.approx(3.03, abs=0.01)
    more = ((always_valid_boundary(0.05) + stats.norm.ppf(0.8)) / z) ** 2
    assert found.sequential.units[0] == pytest.approx(units * more, rel=1e-3)
    uneven = required_sample_size(0.05, 0.05 * 0.95, mde=0.1, weights=(3, 1, 1))
    smallest = (stats.norm.ppf(1 - 0.025 / 2) + stats.norm.ppf(0.8)) ** 2 * 0.05 * 0.95 / 0.005**2 * (1 + 1 / 3)
    np.testing.assert_allclose(uneven.fixed_horizon.units, [3 * smallest, smallest, smallest], rtol=1e-3)
    assert math.isnan(uneven.fixed_horizon.days)
    assert required_sample_size(0.5, 0.001, mde=1.0).fixed_horizon.units == (2, 2)
    with pytest.raises(ValueError, match="an mde that is not 0"):
        required_sample_size(0.05, 0.04, mde=0.0)


def test_a_test_of_that_size_has_the_stated_power():
    world = replace(WORLD, users=3_000, lifts=(0.0,))
    required = required_sample_size_from_outcomes(simulate_experiment(world), CTR, mde=0.15, power=0.8)
    assert required is not None
    users = round(sum(required.fixed_horizon.units) / 0.95)  # a few never come
    found = [
        lifts(simulate_experiment(replace(world, users=users, lifts=(0.15,), seed=seed)), CTR)[0].p <= 0.05
        for seed in range(150)
    ]
    assert 0.71 <= np.mean(found) <= 0.89
    assert required_sample_size_from_outcomes(outcomes_of([0, 1], [(0, 0, 1, 5), (1, 0, 1, 5)]), CTR, mde=0.1) is None


def test_segments_are_lifts_of_their_units_with_p_corrected():
    outcomes = simulate_experiment(replace(WORLD, lifts=(0.3, 0.0)))
    surface = np.array(["home", "search"])[np.arange(1_000) % 2]
    outcomes = replace(outcomes, segments={"surface": surface, "all": np.full(1_000, "everyone")})
    found = segment_lifts(outcomes, CTR)
    assert [(one.segment, one.value, one.lift.arm) for one in found[-2:]] == [("all", "everyone", arm) for arm in "bc"]
    assert found[-2].lift == lifts(outcomes, CTR)[0]
    assert sum(sum(one.lift.units) for one in found[:4]) == sum(sum(one.lift.units) for one in found[-2:])
    np.testing.assert_allclose([one.adjusted_p for one in found], benjamini_hochberg([one.lift.p for one in found]))
    assert len(segment_lifts(outcomes, CTR, segments=["surface"], max_values=1, method="holm")) == 2
    with pytest.raises(ValueError, match="no segment 'country'"):
        segment_lifts(outcomes, CTR, segments=["country"])


def test_daily_lifts_use_the_rows_of_the_day_only():
    outcomes = simulate_experiment(WORLD)
    (found,) = novelty_effects(outcomes, CTR)
    (alone,) = lifts(replace(outcomes, **rows_of(outcomes, 3)), CTR)
    (whole,) = lifts(outcomes, CTR)
    assert found.relative[3] == pytest.approx(alone.absolute.value / whole.control)
    assert found.low[3] == pytest.approx(alone.absolute.low / whole.control)
    assert tuple(found.units[3]) == alone.units


def rows_of(outcomes: Outcomes, day: int) -> dict[str, object]:
    kept = outcomes.day == day
    columns = {name: column[kept] for name, column in outcomes.columns.items()}
    return {"unit": outcomes.unit[kept], "day": outcomes.day[kept], "columns": columns}


def test_novelty_effects_are_found_where_an_effect_fades_only():
    steady = [
        novelty_effects(simulate_experiment(replace(WORLD, users=400, days=7, seed=seed)), CTR)[0]
        for seed in range(150)
    ]
    assert 0.02 <= np.mean([one.p < 0.05 for one in steady]) <= 0.09
    (gone,) = novelty_effects(
        simulate_experiment(replace(WORLD, users=8_000, lifts=(0.6,), lift_decay=1.0, seed=1)), CTR
    )
    assert gone.trend == "fading"
    assert gone.slope.low < -0.6 / 13 < gone.slope.high < 0
    (short,) = novelty_effects(simulate_experiment(replace(WORLD, days=2)), CTR)
    assert (short.trend, math.isnan(short.p)) == ("unknown", True)


def test_the_simulator_follows_its_settings():
    world = replace(WORLD, users=20_000, lifts=(0.2,), weights=(3, 1), arrival_days=3)
    outcomes = simulate_experiment(world)
    columns = outcomes.columns
    assert set(columns) == set(outcomes.pre_period) == set(BUILT_IN_COLUMNS)
    assert (np.diff(outcomes.day) >= 0).all()
    assert outcomes.units[0] / 20_000 == pytest.approx(0.75, abs=0.02)
    (lift,) = lifts(outcomes, CTR)
    assert lift.control == pytest.approx(0.05, rel=0.03)
    assert lift.relative.low < 0.2 < lift.relative.high
    assert (columns["clicked_rankings"] <= np.minimum(columns["clicks"], columns["rankings"])).all()
    assert (columns["reciprocal_rank"] <= columns["clicked_rankings"] + 1e-9).all()
    assert (columns["impressions"] == 10 * columns["rankings"]).all()
    again = simulate_experiment(world)
    assert all((again.columns[name] == columns[name]).all() for name in BUILT_IN_COLUMNS)
    with pytest.raises(ValueError, match="found 3 weights"):
        replace(world, weights=(1, 1, 1))


def test_all_metrics_can_be_read():
    outcomes = simulate_experiment(WORLD)
    assert all(np.isfinite(lifts(outcomes, metric)[0].p) for metric in BUILT_IN_METRICS)
