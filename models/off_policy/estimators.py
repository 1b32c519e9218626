"""Estimators of a candidate's mean reward from a log of single items.

weights: (N,) candidate over log for what was shown (`BanditLog.weights`), clipped or not. expected: (N,) the reward
model's mean reward under the candidate; predicted: (N,) that of what was shown.
"""

from __future__ import annotations

import numpy as np

from models.off_policy.log import Floats
from models.off_policy.ratios import Ratios, mean


def ips(weights: Floats, reward: Floats) -> Ratios:
    """mean(w r): unbiased where the log can show all that the candidate shows. Source: Horvitz & Thompson 1952."""
    return mean(weights * reward)


def snips(weights: Floats, reward: Floats) -> Ratios:
    """mean(w r) / mean(w): a little biased, much steadier. Source: Swaminathan & Joachims 2015."""
    return Ratios((weights * reward)[:, None], weights[:, None])


def dm(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> Ratios:
    """mean(q(x, candidate)): as good as the reward model is. Source: the direct method of Dudik et al. 2014.

    The value is that of the model alone. Its error is that of the model too, which the spread of its predictions
    doesn't show: the influence values are those of `dr`, which are the right ones where the model is a rate per cell of
    what the propensities follow (Hirano, Imbens & Ridder 2003), and a bias of the model is not in them.
    """
    correction = weights * (reward - predicted)
    return mean(expected + correction - correction.mean())


def dr(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> Ratios:
    """mean(q(x, candidate) + w (r - q(x, a))): unbiased with any model that has not seen the row.

    Source: Dudik, Erhan, Langford & Li 2014; cross-fitting: Chernozhukov et al. 2018.
    """
    return mean(expected + weights * (reward - predicted))


def sndr(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> Ratios:
    """mean(q(x, candidate)) + mean(w (r - q)) / mean(w). Source: Thomas & Brunskill 2016, with one step."""
    above = np.stack((expected, weights * (reward - predicted)), axis=1)
    return Ratios(above, np.stack((np.ones(len(weights)), weights), axis=1))
