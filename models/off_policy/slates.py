"""Estimators of a candidate's reward of a whole slate: the sum over positions of (position-weighted) rewards.

rewards: (R, K), already multiplied by the weights of the positions; 0 where there is no item. What weights are taken
says what is believed of the viewer: a click depends on the whole slate (`slate_ips`), on its own item and position
alone (`iips`), or also on what is above it (`rips`, `cascade_dr`).
"""

from __future__ import annotations

import numpy as np

from models.off_policy.log import Floats
from models.off_policy.ratios import Ratios, mean


def cumulative(steps: Floats) -> Floats:
    """(R, K) candidate over log of the items down to k, from the ratios of each position (`SlateLog.steps`)."""
    return np.cumprod(steps, axis=1, dtype=np.float64)


def slate_ips(weights: Floats, rewards: Floats) -> Ratios:
    """mean(w sum_k r_k), weights: (R,) of whole slates, the last column of `cumulative`. Horvitz & Thompson 1952."""
    return mean(weights * rewards.sum(axis=1))


def slate_snips(weights: Floats, rewards: Floats) -> Ratios:
    """The same over mean(w). Source: Swaminathan & Joachims 2015."""
    return Ratios((weights * rewards.sum(axis=1))[:, None], weights[:, None])


def iips(weights: Floats, rewards: Floats) -> Ratios:
    """Independent IPS: sum_k mean(w_k r_k), weights: (R, K) of marginals (`SlateLog.marginals`).

    Source: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen 2018, the item-position click model.
    """
    return mean((weights * rewards).sum(axis=1))


def sniips(weights: Floats, rewards: Floats) -> Ratios:
    """sum_k mean(w_k r_k) / mean(w_k), weights as for `iips`."""
    return Ratios(weights * rewards, weights)


def rips(weights: Floats, rewards: Floats) -> Ratios:
    """Reward-interaction IPS: sum_k mean(w_1:k r_k), weights: (R, K) `cumulative`.

    Unbiased where a reward depends on its own item and those above. Source: McInerney, Brost, Chandar, Mehrotra &
    Carterette 2020, before it is normalised.
    """
    return mean((weights * rewards).sum(axis=1))


def snrips(weights: Floats, rewards: Floats) -> Ratios:
    """sum_k mean(w_1:k r_k) / mean(w_1:k), as McInerney et al. 2020 have it."""
    return Ratios(weights * rewards, weights)


def cascade_dr(weights: Floats, rewards: Floats, expected: Floats, predicted: Floats) -> Ratios:
    """sum_k mean(w_1:k (r_k - q_k) + w_1:k-1 E q_k): unbiased where `rips` is, with any q that has not seen the slate.

    weights: (R, K) `cumulative`. predicted: (R, K) q of the logged item at k, expected: (R, K) its mean under the
    candidate given the logged items above, both of what is to come from k on, 0 where there is no item. Source:
    Kiyohara, Saito, Matsuhiro, Narita, Shimizu & Yamamoto 2022.
    """
    before = np.concatenate((np.ones((len(weights), 1)), weights[:, :-1]), axis=1)
    return mean((weights * (rewards - predicted) + before * expected).sum(axis=1))
