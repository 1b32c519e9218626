"""Listwise features: z-scores and percentiles within a request, against slow references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.features.families.listwise import group_percentile, group_zscore

NUMBERS = st.sampled_from([float("nan"), -2.0, 0.0, 0.5, 0.5, 3.25, 1e6])
GROUPS = st.lists(st.lists(NUMBERS, max_size=6), min_size=1, max_size=4)


def flat(groups: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
    return np.array([value for group in groups for value in group], np.float32), offsets


@settings(deadline=None)
@given(groups=GROUPS)
def test_group_percentile(groups: list[list[float]]) -> None:
    column, offsets = flat(groups)
    expected = []
    for group in groups:
        known = [value for value in group if value == value]
        expected += [sum(one > value for one in known) / len(known) if value == value else np.nan for value in group]
    np.testing.assert_allclose(group_percentile(column, offsets), np.array(expected, np.float32), rtol=1e-6)


@settings(deadline=None)
@given(groups=GROUPS)
def test_group_zscore(groups: list[list[float]]) -> None:
    column, offsets = flat(groups)
    expected: list[float] = []
    for group in groups:
        values = np.array(group, np.float64)
        known = values[~np.isnan(values)]
        flat_ = len(known) == 0 or known.std() <= 1e-6
        expected += [np.nan if np.isnan(v) else 0.0 if flat_ else (v - known.mean()) / known.std() for v in values]
    two = np.stack([column, -column], axis=1)
    found = group_zscore(two, offsets)
    np.testing.assert_allclose(found[:, 0], np.array(expected, np.float32), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], -found[:, 0], rtol=1e-6)


@pytest.mark.parametrize("base", [0, 1_000, 175_000])
def test_group_zscore_of_large_numbers_close_together(base: float) -> None:
    column = np.float32(base) + np.array([0, 0.5, 1], np.float32)
    found = group_zscore(column[:, None], np.array([0, 3]))[:, 0]
    np.testing.assert_allclose(found, [-1.2247449, 0, 1.2247449], rtol=1e-4)
