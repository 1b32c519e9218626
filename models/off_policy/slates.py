"""Implements estimators of a candidate's reward per slate: the sum over positions of (position-weighted) rewards.

rewards: (R, K), already multiplied by the weights of the positions; 0 where there is no item. The kind of weights
states the assumed user model: a click depends on the whole slate (`slate_ips`), only on its own item and position
(`iips`), or also on the items above it (`rips`, `cascade_dr`).
"""

from __future__ import annotations

import numpy as np

from feedrank.models.off_policy.log import Floats
from feedrank.models.off_policy.ratio_estimate import RatioEstimate, mean_estimate


def cumulative_weights(conditional_weights: Floats) -> Floats:
    """(R, K) importance weights of the items down to k: products of `SlateLog.conditional_weights`."""
    return np.cumprod(conditional_weights, axis=1, dtype=np.float64)


def slate_ips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """mean(w sum_k r_k). weights: (R,) of whole slates, the last column of `cumulative_weights`.

    Source: Horvitz & Thompson 1952.
    """
    return mean_estimate(weights * rewards.sum(axis=1))


def slate_snips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """mean(w sum_k r_k) / mean(w). weights: as for `slate_ips`. Source: Swaminathan & Joachims 2015."""
    return RatioEstimate((weights * rewards.sum(axis=1))[:, None], weights[:, None])


def iips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """Independent IPS: sum_k mean(w_k r_k). weights: (R, K), `SlateLog.marginal_weights`.

    Source: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen 2018, the item-position click model.
    """
    return mean_estimate((weights * rewards).sum(axis=1))


def sniips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """Self-normalised `iips`: sum_k mean(w_k r_k) / mean(w_k). weights: as for `iips`."""
    return RatioEstimate(weights * rewards, weights)


def rips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """Reward-interaction IPS: sum_k mean(w_1:k r_k). weights: (R, K) `cumulative_weights`.

    Unbiased if a reward depends only on its own item and those above. Source: McInerney, Brost, Chandar, Mehrotra &
    Carterette 2020, without their normalisation.
    """
    return mean_estimate((weights * rewards).sum(axis=1))


def snrips(weights: Floats, rewards: Floats) -> RatioEstimate:
    """Self-normalised `rips`: sum_k mean(w_1:k r_k) / mean(w_1:k). Source: McInerney et al. 2020."""
    return RatioEstimate(weights * rewards, weights)


def cascade_dr(weights: Floats, rewards: Floats, expected: Floats, predicted: Floats) -> RatioEstimate:
    """sum_k mean(w_1:k (r_k - q_k) + w_1:k-1 E q_k): unbiased if `rips` is, with any q not trained on the slate.

    weights: (R, K) `cumulative_weights`. q is the reward from k on. predicted: (R, K) q of the logged item at k.
    expected: (R, K) the mean of q under the candidate, given the logged items above. Both are 0 where there is no item.
    Source: Kiyohara, Saito, Matsuhiro, Narita, Shimizu & Yamamoto 2022.
    """
    before = np.concatenate((np.ones((len(weights), 1)), weights[:, :-1]), axis=1)
    return mean_estimate((weights * (rewards - predicted) + before * expected).sum(axis=1))
