"""Always-valid inference, verdicts, readouts and their pages."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from feedrank.engine.experiments.analysis_plan import AnalysisPlan, CustomMetric, Guardrail
from feedrank.models.experiments import readout_table
from feedrank.models.experiments.confidence_sequence import (
    ConfidenceSequence,
    boundary_multiplier,
    confidence_sequences,
    confidence_sequences_from_moments,
    log_likelihood_ratio,
    mixing_variance,
)
from feedrank.models.experiments.lift import Interval, lifts
from feedrank.models.experiments.moments import cumulative_moments
from feedrank.models.experiments.outcomes import BUILT_IN_COLUMNS, Outcomes, find_metric
from feedrank.models.experiments.plan_metrics import check_metrics
from feedrank.models.experiments.readout import compute_readout, readout_json
from feedrank.models.experiments.readout_page import readout_page
from feedrank.models.experiments.sample_ratio import sample_ratio_test
from feedrank.models.experiments.simulator import SimulatedExperiment, simulate_experiment
from feedrank.models.experiments.verdict import check_guardrail, decide

WORLD = SimulatedExperiment(users=1_000, lifts=(0.1,))
CTR = find_metric("ctr")


def test_the_boundary_is_where_the_likelihood_ratio_is_one_over_alpha():
    variance = np.array([0.5, 2.0, 1e-6])
    tau2 = 0.3
    half = boundary_multiplier(variance, tau2, 0.05) * np.sqrt(variance)
    written = np.sqrt(variance * (variance + tau2) / tau2 * np.log((variance + tau2) / (variance * 0.05**2)))
    np.testing.assert_allclose(half, written)
    np.testing.assert_allclose(np.exp(log_likelihood_ratio(half, variance, tau2)), 20)


def test_the_mixture_is_narrowest_when_the_planned_units_are_in():
    chosen = mixing_variance(1.0, 1.0, 0.05)
    widths = boundary_multiplier(np.ones(1), chosen, 0.05)[0]
    assert widths < min(boundary_multiplier(np.ones(1), chosen * by, 0.05)[0] for by in (0.7, 1.4)) < widths * 1.02
    assert mixing_variance(4.0, 0.25, 0.05) == pytest.approx(chosen)  # a quarter of the units, four times the variance


def test_a_confidence_sequence_is_the_formula_at_each_look():
    outcomes = simulate_experiment(replace(WORLD, users=3_000))
    (found,) = confidence_sequences(outcomes, CTR, planned_units=3_000)
    assert found.enough_data.all()
    day = 5
    (fixed,) = lifts(outcomes.until_day(day), CTR)
    assert found.estimate[day] == pytest.approx(fixed.absolute.value)
    np.testing.assert_allclose(
        [found.fixed_low[day], found.fixed_high[day], found.fixed_p[day]],
        [fixed.absolute.low, fixed.absolute.high, fixed.p],
    )
    share = cumulative_moments(outcomes, CTR).count[0].sum() / 3_000
    first = np.array([lifts(outcomes.until_day(n), CTR)[0].control for n in (0, day)])
    tau2 = mixing_variance(found.variance[0] / first[0] ** 2, share, 0.05)
    assert found.tau2 == pytest.approx(tau2)
    half = boundary_multiplier(found.variance[day : day + 1], tau2 * first[1] ** 2, 0.05)[0] * math.sqrt(
        found.variance[day]
    )
    np.testing.assert_allclose([found.low[day], found.high[day]], found.estimate[day] + np.array([-half, half]))
    assert (np.diff(found.p) <= 0).all()
    assert (found.high - found.low > found.fixed_high - found.fixed_low).all()
    assert ((found.low > 0) == (found.relative_low > 0)).all()  # both intervals agree on the sign
    assert ((found.high < 0) == (found.relative_high < 0)).all()


def test_daily_looks_keep_the_error_rate():
    worlds = (SimulatedExperiment(users=400), SimulatedExperiment(users=600, click_rate=0.006, click_rate_cv=1.2))
    for world in worlds:
        wrong = peeked = 0
        for seed in range(120):
            (found,) = confidence_sequences(
                simulate_experiment(replace(world, seed=seed)), CTR, planned_units=world.users
            )
            wrong += found.p[-1] <= 0.05
            peeked += np.nanmin(found.fixed_p) <= 0.05
        assert wrong / 120 <= 0.05
        assert peeked / 120 >= 0.1


def test_a_real_lift_is_found_and_its_intervals_hold_at_every_look():
    held = found = 0
    for seed in range(60):
        world = SimulatedExperiment(users=1_500, lifts=(0.25,), seed=seed)
        (looked,) = confidence_sequences(simulate_experiment(world), CTR, planned_units=1_500)
        held += bool(((looked.relative_low <= 0.25) & (looked.relative_high >= 0.25))[looked.enough_data].all())
        found += looked.p[-1] <= 0.05
    assert held >= 56
    assert found >= 54


def test_few_units_or_clicks_give_no_interval():
    outcomes = simulate_experiment(replace(WORLD, users=60))
    (found,) = confidence_sequences(outcomes, CTR, planned_units=1_000)
    assert not found.enough_data.any()
    assert (found.p == 1).all()
    assert np.isnan(found.low).all()
    assert math.isnan(found.tau2)
    rare = simulate_experiment(replace(WORLD, click_rate=0.0005, click_rate_cv=0.5))
    (found,) = confidence_sequences(rare, CTR, planned_units=1_000)
    assert (found.units[-1] > 400).all()
    assert not found.enough_data.any()
    with pytest.raises(ValueError, match="planned units"):
        confidence_sequences(outcomes, CTR, planned_units=0)


PLAN = AnalysisPlan("ctr", min_days=7, min_units=1_000, planned_units=5_000)
FAIR = sample_ratio_test(np.array([1_000, 1_000, 1_000]), arms=["a", "b", "c"])


def confidence_sequence(arm: str, low: float, high: float, metric: str = "ctr") -> ConfidenceSequence:
    """A confidence sequence with this last interval, for the difference and the relative lift."""
    one = {"low": low, "high": high, "estimate": (low + high) / 2}
    column = {name: np.array([value]) for name, value in one.items()}
    relative = {"relative": column["estimate"], "relative_low": column["low"], "relative_high": column["high"]}
    other = dict.fromkeys(("variance", "p", "fixed_low", "fixed_high", "fixed_p"), np.ones(1))
    whole = np.ones(1, np.int64)
    return ConfidenceSequence(
        metric, arm, 0.05, 1.0, whole, whole[:, None], np.ones(1, np.bool_), **column, **relative, **other
    )


@pytest.mark.parametrize(
    ("b", "c", "days", "units", "word", "reason"),
    [
        ((0.01, 0.05), (-0.1, 0.1), 7, 3_000, "ship", "b changes ctr by +3.0% [+1.0%, +5.0%] against a after 7 days"),
        ((0.01, 0.05), (0.02, 0.08), 7, 3_000, "ship", "c changes ctr by +5.0% .*the best of 2 such arms"),
        ((0.01, 0.05), (-0.1, 0.1), 6, 3_000, "continue", "at least 7 days"),
        ((0.01, 0.05), (-0.1, 0.1), 7, 2_999, "continue", "needs at least .* 3,000 units"),
        ((-0.01, 0.05), (-0.1, 0.1), 9, 3_000, "continue", "5,000 planned: nothing is significant yet"),
        ((-0.01, 0.05), (-0.1, 0.1), 9, 5_000, "keep control", "no arm is significantly better, with all 5,000"),
        ((-0.05, -0.01), (-0.1, 0.1), 9, 5_000, "keep control", "c changes ctr"),
        ((-0.05, -0.01), (-0.1, -0.04), 1, 50, "stop", "b changes .* significantly worse; c changes .* worse"),
        ((math.nan, math.nan), (math.nan, math.nan), 1, 50, "continue", "too few units to compare ctr"),
    ],
)
def test_verdicts(b, c, days, units, word, reason):
    found = decide(PLAN, FAIR, [confidence_sequence("b", *b), confidence_sequence("c", *c)], [], days=days, units=units)
    assert found.decision == word
    assert re.search(reason.replace("[", r"\[").replace("+", r"\+"), found.sentence), found.sentence


def test_the_minimum_of_units_counts_for_every_declared_arm():
    ratio, winner = sample_ratio_test(np.array([1_500, 1_500]), arms=["a", "b"]), [confidence_sequence("b", 0.01, 0.05)]
    assert decide(PLAN, ratio, winner, [], days=9, units=3_000).decision == "ship"
    assert decide(PLAN, ratio, winner, [], days=9, units=3_000, declared_arms=3).decision == "ship"
    found = decide(PLAN, ratio, winner, [], days=9, units=3_000, declared_arms=4)
    assert found.sentence.endswith("the plan needs at least 7 days and 4,000 units")


def test_cuped_is_on_by_default_where_there_is_earlier_behaviour():
    outcomes = simulate_experiment(WORLD)
    assert compute_readout(replace(outcomes, pre_period={}), AnalysisPlan("ctr")).plan.cuped is False
    before = {name: np.ones(len(outcomes.arm_of)) for name in outcomes.columns}
    assert compute_readout(replace(outcomes, pre_period=before), AnalysisPlan("ctr")).plan.cuped is True
    assert compute_readout(replace(outcomes, pre_period=before), AnalysisPlan("ctr", cuped=False)).plan.cuped is False


def test_a_sample_ratio_mismatch_comes_first():
    off = sample_ratio_test(np.array([1_000, 1_300]), arms=["a", "b"])
    found = decide(PLAN, off, [confidence_sequence("b", 0.01, 0.05)], [], days=9, units=2_300)
    assert found.decision == "invalid"
    assert "found a 1,000, b 1,300 units, expected 1,150, 1,150" in found.sentence


def test_a_guardrail_takes_an_arm_out_and_the_last_arm_stops_the_test():
    guardrail = Guardrail("mrr", 0.02)
    broken = check_guardrail(guardrail, confidence_sequence("b", -0.08, -0.03, "mrr"), higher_is_better=True)
    assert broken.breached
    assert not check_guardrail(guardrail, confidence_sequence("b", -0.08, -0.01, "mrr"), higher_is_better=True).breached
    assert check_guardrail(guardrail, confidence_sequence("b", 0.03, 0.08, "mrr"), higher_is_better=False).breached
    assert not check_guardrail(
        guardrail, confidence_sequence("b", math.nan, math.nan, "mrr"), higher_is_better=True
    ).breached
    both = [confidence_sequence("b", 0.05, 0.09), confidence_sequence("c", 0.01, 0.05)]
    found = decide(PLAN, FAIR, both, [broken], days=7, units=3_000)
    assert (found.decision, found.arm) == ("ship", "c")
    found = decide(PLAN, FAIR, both[:1], [broken], days=1, units=300)
    assert found.decision == "stop"
    assert "b violates guardrail mrr: gain -5.5% [-8.0%, -3.0%], allowed -2.0%" in found.sentence


def test_a_metric_where_lower_is_better():
    plan = replace(PLAN, primary="wait", metrics={"wait": CustomMetric("wait", "sum", "unit", higher_is_better=False)})
    found = decide(plan, FAIR, [confidence_sequence("b", -0.05, -0.01, "wait")], [], days=9, units=3_000)
    assert found.sentence.startswith("ship b: b changes wait by -3.0%")


def test_an_invalid_plan_says_what_is_wrong():
    with pytest.raises(ValueError, match="found the metric 'saves'"):
        check_metrics(AnalysisPlan("saves"))
    with pytest.raises(ValueError, match="alpha is 5"):
        AnalysisPlan(alpha=5)
    with pytest.raises(ValueError, match="planned_units is 0"):
        AnalysisPlan(planned_units=0)
    with pytest.raises(ValueError, match="guardrail of ctr is 2"):
        Guardrail("ctr", 2)
    with pytest.raises(ValueError, match="3 weights for 2 arms"):
        compute_readout(simulate_experiment(WORLD), AnalysisPlan(), weights=(1, 1, 1))


@pytest.mark.parametrize("lifts_", [(0.3,), (0.3, -0.3)])
def test_a_readout_becomes_json_and_a_page(lifts_):
    outcomes = simulate_experiment(SimulatedExperiment(users=3_000, lifts=lifts_))
    segments = {"surface": np.array(["home", "<b>search"])[np.arange(3_000) % 2]}
    outcomes = replace(outcomes, segments=segments)
    guardrails = (Guardrail("rankings_per_unit", 0.05),)
    plan = AnalysisPlan("ctr", guardrails, min_units=500, planned_units=3_000, cuped=True, resamples=100)
    found = compute_readout(outcomes, plan)
    assert (found.verdict.decision, found.verdict.arm) == ("ship", "b")
    assert len(found.lifts) == len(found.bootstrap_lifts) == 8 * len(lifts_)
    assert [one.alpha for one in found.confidence_sequences] == [0.05 / len(lifts_)] * 2 * len(lifts_)
    as_json = readout_json(found)
    assert json.loads(json.dumps(as_json, allow_nan=False)) == as_json
    assert as_json["verdict"]["sentence"] == found.verdict.sentence
    text = readout_page(as_json, "A <test>")
    assert "A &lt;test&gt;" in text
    assert "&lt;b&gt;search" in text
    assert "<b>search" not in text
    assert text.count("<svg") == text.count("</svg>") > 2
    assert "http" not in text
    assert "src=" not in text
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(readout_table.readout_summary(found))
    assert "rankings_per_unit" in console.export_text()


def test_the_bound_of_many_arms_is_wider():
    moments = cumulative_moments(simulate_experiment(SimulatedExperiment(users=2_000, lifts=(0.1, 0.1))), CTR)
    one, shared = (
        confidence_sequences_from_moments(moments, "ctr", planned_units=2_000, alpha=alpha)[0].last_difference
        for alpha in (0.05, 0.025)
    )
    assert shared.low < one.low < one.high < shared.high
    assert Interval(1.0, 0.0, 3.0).negated() == Interval(-1.0, -3.0, 0.0)


@st.composite
def small(draw) -> Outcomes:
    """Arms, units and rows of any small kind, zeros and empty ones among them."""
    arms, units, days = draw(st.integers(2, 3)), draw(st.integers(0, 8)), draw(st.integers(0, 5))
    arm_of = draw(st.lists(st.integers(0, arms - 1), min_size=units, max_size=units))
    rows = draw(
        st.lists(st.tuples(st.integers(0, days), st.integers(0, max(units - 1, 0))), max_size=20 if units else 0)
    )
    day, unit = (np.array([row[n] for row in sorted(set(rows))], np.int32) for n in (0, 1))
    number = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(1e-6, 1e6), st.sampled_from([1e-12, 1e9]))

    def columns(n: int) -> dict[str, np.ndarray]:
        return {name: np.array(draw(st.lists(number, min_size=n, max_size=n)), np.float64) for name in BUILT_IN_COLUMNS}

    before = columns(units) if draw(st.booleans()) else {}
    segments = {"kind": np.array([f"{n % 2}" for n in range(units)], np.str_)} if draw(st.booleans()) else {}
    return Outcomes(tuple("abc"[:arms]), np.array(arm_of, np.int32), unit, day, columns(len(unit)), before, segments)


@settings(deadline=None, max_examples=25)
@given(small(), st.booleans())
def test_any_outcomes_give_a_readout_without_warnings(outcomes, cuped):
    plan = AnalysisPlan(
        "ctr", guardrails=(Guardrail("mrr", 0.1),), min_days=1, min_units=1, planned_units=5, cuped=cuped,
        min_units_for_ci=1, min_converting_units=0, resamples=20,
    )  # fmt: skip
    found = compute_readout(outcomes, plan)
    text = readout_page(json.loads(json.dumps(readout_json(found), allow_nan=False)))
    assert "nan" not in text
    Console(file=io.StringIO()).print(readout_table.readout_summary(found))
    for lift in found.lifts:
        for span in (lift.absolute, lift.relative):
            assert not span.low > span.value + 1e-6 * abs(span.value)
            assert not span.high < span.value - 1e-6 * abs(span.value)
