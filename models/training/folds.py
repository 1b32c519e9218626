"""Folds of users: each user's training groups from recall are in one fold, and one fold stops the training early."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Rows

VALIDATION_FOLD = 0
"""The fold of the users whose groups stop the training early."""
WITHOUT_RANKER = "`feedrank index` gives feeds without a ranker"


class TooLittleDataError(ValueError):
    """A log has too few interactions for the groups of training or of a test."""


def user_folds(target_users: Rows, n_users: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the (users,) random fold of each user.

    target_users: the user of each group. If few users have groups, so that all of them are in the validation fold or
    none is, these users are dealt out in turn.
    """
    fold_of = np.random.default_rng(seed).permutation(n_users) % folds
    in_validation = fold_of[target_users] == VALIDATION_FOLD
    if in_validation.all() or not in_validation.any():
        users = np.unique(target_users)
        fold_of[users] = np.arange(len(users)) % folds
    return np.asarray(fold_of, np.int64)


def short_histories_error(users: Rows, min_history: int) -> TooLittleDataError:
    """Build the error of a log in which no history is long enough to build a group; it says how long they are.

    users: the user of each interaction that may be learnt from.
    """
    longest = int(np.bincount(users, minlength=1).max())
    return TooLittleDataError(
        f"found no user with {min_history + 1} interactions with known items to learn from, the longest history has "
        f"{longest}; a training group needs training.min_history = {min_history} interactions before its own: import a "
        f"longer log, or lower the key. {WITHOUT_RANKER}"
    )


def check_group_counts(counts: Mapping[str, int], candidates: int) -> None:
    """Check that there are groups to train on and to stop early on. Raises TooLittleDataError that says why not."""
    training, validation, without = counts["training"], counts["validation"], counts["without_positive"]
    if not (training and validation):
        raise TooLittleDataError(
            f"of {training + validation + without:,} groups from recall, {without:,} do not have the user's next item "
            f"among {candidates} candidates, {training:,} are left to train on, and {validation:,} of other users to "
            f"stop early on; both need at least one: import a log of more users and items. {WITHOUT_RANKER}"
        )
