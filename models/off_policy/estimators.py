"""Implements estimators of a candidate's mean reward from a log of single items.

weights: (N,) importance weights of the shown items (`BanditLog.importance_weights`), clipped or not. expected: (N,) the
reward model's mean reward under the candidate. predicted: (N,) its reward of the shown item.
"""

from __future__ import annotations

import numpy as np

from feedrank.models.off_policy.log import Floats
from feedrank.models.off_policy.ratio_estimate import RatioEstimate, mean_estimate


def ips(weights: Floats, reward: Floats) -> RatioEstimate:
    """mean(w r): unbiased if the log can show all that the candidate shows. Source: Horvitz & Thompson 1952."""
    return mean_estimate(weights * reward)


def snips(weights: Floats, reward: Floats) -> RatioEstimate:
    """mean(w r) / mean(w): slightly biased, with much less variance. Source: Swaminathan & Joachims 2015."""
    return RatioEstimate((weights * reward)[:, None], weights[:, None])


def dm(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> RatioEstimate:
    """mean(q(x, candidate)): as good as the reward model is. Source: the direct method of Dudik et al. 2014.

    The value is that of the model alone, and so is its error, which the variance of the predictions doesn't show. So
    the influence values are those of `dr`. They are exact if the model is a rate per cell of the variables that the
    propensities depend on (Hirano, Imbens & Ridder 2003), and do not include the model's bias.
    """
    correction = weights * (reward - predicted)
    return mean_estimate(expected + correction - correction.mean())


def dr(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> RatioEstimate:
    """mean(q(x, candidate) + w (r - q(x, a))): unbiased with any model that was not trained on the row.

    Source: Dudik, Erhan, Langford & Li 2014; cross-fitting: Chernozhukov et al. 2018.
    """
    return mean_estimate(expected + weights * (reward - predicted))


def sndr(weights: Floats, reward: Floats, expected: Floats, predicted: Floats) -> RatioEstimate:
    """mean(q(x, candidate)) + mean(w (r - q)) / mean(w). Source: Thomas & Brunskill 2016, with one step."""
    numerator = np.stack((expected, weights * (reward - predicted)), axis=1)
    return RatioEstimate(numerator, np.stack((np.ones(len(weights)), weights), axis=1))
