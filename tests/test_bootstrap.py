"""Bootstrap intervals: coverage in a simulation, seeds, paired differences, and missing values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.models.evaluation import bootstrap
from feedrank.models.evaluation.bootstrap import difference, interval


def test_the_interval_is_the_normal_one_for_many_groups():
    values = np.random.default_rng(1).normal(0.4, 0.2, 4000)
    found = interval(values, seed=5)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == values.mean()
    assert (found.groups, found.skipped) == (4000, 0)
    np.testing.assert_allclose([found.low, found.high], [found.mean - half, found.mean + half], atol=0.1 * half)


@pytest.mark.parametrize("draw", ["hits", "gains"])
def test_the_interval_covers_the_true_mean_about_95_times_in_100(draw):
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        values = (
            (generator.random(80) < 0.3).astype(float) if draw == "hits" else generator.beta(1.0, 7.0 / 3.0, size=80)
        )
        found = interval(values, seed=seed, resamples=600)
        covered += found.low <= 0.3 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_drawing_counts_of_few_values_is_the_same_as_drawing_rows():
    values = np.random.default_rng(3).integers(0, 2, 400).astype(float)
    by_counts = interval(values, seed=0, resamples=20_000)
    by_rows = interval(values + np.arange(400) * 1e-12, seed=0, resamples=20_000)  # no two are equal
    np.testing.assert_allclose([by_counts.low, by_counts.high], [by_rows.low, by_rows.high], atol=0.004)


@pytest.mark.parametrize("few", [True, False])
def test_the_size_of_a_chunk_does_not_matter(monkeypatch, few):
    values = np.random.default_rng(4).random(101)
    values = np.round(values) if few else values
    whole = interval(values, seed=9, resamples=500)
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 700)
    assert interval(values, seed=9, resamples=500) == whole


def test_the_seed_decides():
    values = np.random.default_rng(5).random(50)
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_a_wider_level_is_a_wider_interval():
    values = np.random.default_rng(6).random(50)
    narrow, wide = interval(values, seed=1, level=0.5), interval(values, seed=1, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(-1, 1), st.just(float("nan"))), max_size=40))
def test_nan_is_left_out_and_the_mean_is_inside(values):
    column = np.array(values, np.float64)
    kept = column[~np.isnan(column)]
    found = interval(column, seed=0, resamples=100)
    assert (found.groups, found.skipped) == (len(kept), len(column) - len(kept))
    if len(kept):
        assert kept.min() - 1e-12 <= found.low <= found.mean <= found.high <= kept.max() + 1e-12
    else:
        assert np.isnan([found.mean, found.low, found.high]).all()


def test_equal_values_have_no_width():
    found = interval(np.full(30, 0.1), seed=0)
    np.testing.assert_allclose([found.low, found.high], 0.1)


def test_a_paired_difference_is_more_sensitive_than_two_intervals():
    generator = np.random.default_rng(7)
    hard = generator.normal(0.5, 0.3, 200)  # what groups have in common
    first, second = hard + 0.02 + generator.normal(0, 0.05, 200), hard
    alone = interval(first, seed=0), interval(second, seed=0)
    assert alone[0].low < alone[1].high
    found = difference(first, second, seed=0)
    assert 0 < found.low < found.mean < found.high
    assert found.one_sided_p == 0.0
    assert difference(second, first, seed=0).one_sided_p == 1.0


def test_a_difference_of_zero_is_not_better():
    values = np.random.default_rng(8).random(40)
    found = difference(values, values, seed=0)
    assert (found.mean, found.low, found.high, found.one_sided_p) == (0.0, 0.0, 0.0, 1.0)
    # Gains and losses of the same size: ties of the resampled mean with 0 count as not better, despite rounding.
    found = difference(np.tile([0.1, 0.0], 10), np.tile([0.0, 0.1], 10), seed=0, resamples=4000)
    assert 0.55 < found.one_sided_p < 0.62  # half of the rest, and the 12.5 % of resamples that draw ten of each


def test_nan_in_either_excludes_the_pair():
    first, second = np.array([1.0, np.nan, 0.5, 0.2]), np.array([0.5, 0.1, np.nan, 0.1])
    found = difference(first, second, seed=0)
    assert (found.groups, found.skipped) == (2, 2)
    np.testing.assert_allclose(found.mean, 0.3)
    empty = difference(np.array([np.nan]), np.array([0.0]), seed=0)
    assert np.isnan([empty.mean, empty.one_sided_p]).all()


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match="same groups in the same order"):
        difference(np.zeros(3), np.zeros(1), seed=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(np.zeros(3), seed=0, level=95)
    with pytest.raises(ValueError, match="0 resamples"):
        interval(np.zeros(3), seed=0, resamples=0)
