"""Checks that clicks which were shuffled within their rankings can't be predicted: no feature sees its own answer.

The clicks are permuted in the log, before any feature is computed. So whatever lets a click reach the features of its
own ranking (a wrong order of events, a counter, an item model that was fitted on it) shows as an AUC above chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable, UnknownItems
from feedrank.engine.types import Candidates, ResolvedRequest
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation.bootstrap import interval
from feedrank.models.evaluation.metrics import auc
from feedrank.models.experiments.click_join import match_impressions
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import build_query_groups, from_rankings, from_recall, target_order
from feedrank.models.training.item_inputs import ItemInputs, fit_item_model
from feedrank.models.training.label_contrast import above_lowest
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.training import has_enough_rankings, train_from_rankings
from feedrank.models.training.training_settings import ModelSettings

MAX_IMPRESSIONS = 30_000
"""Number of latest impressions that the shuffled check trains and tests on."""
MAX_TARGETS, CANDIDATES = 1_000, 20
"""Number of users, and of items in a group, if the log has too few rankings."""
RANK, ROUNDS = 8, 20
"""Factors of its item models, and rounds of its ranker."""
VALIDATION_START, TEST_START = 0.5, 0.6
"""Shares of the rankings before its validation slice and before its test slice."""
MAX_EVENTS = 200_000
"""Number of latest events that it replays."""
MIN_TEST_GROUPS = 30
"""Minimum number of test groups of the shuffled check; a shorter log is not checked."""
STANDARD_ERRORS = 4.0
"""The check fails if its AUC is more than this many standard errors above 0.5 (1 in 30,000 by chance)."""


@dataclass(frozen=True, slots=True)
class ShuffledCheck:
    """How well a small ranker predicts clicks that were shuffled within their rankings: by chance, if nothing leaks."""

    auc: float
    low: float
    high: float
    """The 95 % interval of the AUC."""
    groups: int
    """Number of test groups."""
    leaks: bool
    """Whether the AUC is beyond chance."""

    def sentence(self) -> str:
        """Return what was found, in a sentence."""
        found = f"AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.groups:,} groups"
        if not self.leaks:
            return f"shuffled clicks score as chance: {found}"
        return (
            f"clicks that were shuffled within their rankings can be predicted ({found}, expected 0.5): features see"
            " the labels of their own ranking. Check the times and the ranking ids of the events, and extra features"
        )


def check_shuffled(item_inputs: ItemInputs, log: EventTable, settings: ModelSettings) -> ShuffledCheck | None:
    """Train a small ranker on the end of the log with shuffled clicks, and test it; None if the log is too short.

    It uses the code of the training itself, with fewer rounds and smaller item models, and without text models.
    """
    small = _small_settings(settings)
    plain = replace(
        item_inputs, text=np.empty((len(item_inputs.catalogue), 0), np.float32), token_vectors=None, reranker=None,
        model_digests={},
    )  # fmt: skip
    on_rankings = has_enough_rankings(log, settings)
    measure = _shuffled_rankings if on_rankings else _shuffled_targets
    values = measure(plain, latest_part(log, MAX_IMPRESSIONS if on_rankings else len(log.rankings.items)), small)
    return _judge(values, settings.training.seed)


def _shuffled_rankings(item_inputs: ItemInputs, log: EventTable, settings: ModelSettings) -> NDArray[np.float64]:
    """Return the (G,) AUC of the latest rankings with shuffled clicks, for a ranker of those before.

    It is empty if a slice has too few clicked rankings: none to train on, or none to stop early on.
    """
    shuffled, total = shuffle_labels(log, settings.training.seed), len(log.rankings)
    validation, test = round(total * VALIDATION_START), round(total * TEST_START)
    clicked = from_rankings(shuffled, 0, total, settings.labels).has_positive
    if not clicked[:validation].any() or not clicked[validation:test].any() or clicked[test:].sum() < MIN_TEST_GROUPS:
        return np.empty(0)
    trained = train_from_rankings(item_inputs, shuffled, validation, test, settings)
    groups = from_rankings(shuffled, test, total, settings.labels)
    scores = trained.score(build_query_groups(shuffled, trained.builder, groups))
    offsets = groups.queries.offsets
    return auc(above_lowest(groups.labels, offsets), scores, offsets)


def latest_part(log: EventTable, max_impressions: int) -> EventTable:
    """Return the end of a log: its latest rankings up to so many impressions, and what is between; no unknown items.

    At most `MAX_EVENTS` events.
    """
    n_interactions, n_rankings = len(log.interactions), len(log.rankings)
    is_ranking = log.event_order >= n_interactions
    start = max(0, len(log) - MAX_EVENTS)
    if n_rankings:
        first = int(np.searchsorted(log.rankings.offsets, log.rankings.offsets[-1] - max_impressions))
        start = max(start, int(np.flatnonzero(is_ranking)[first])) if first else start
    order = log.event_order[start:]
    is_ranking = is_ranking[start:]
    ranking = n_rankings - int(is_ranking.sum())
    interaction = n_interactions - int((~is_ranking).sum())
    begin = int(log.rankings.offsets[ranking])
    rankings = replace(
        log.rankings,
        at=log.rankings.at[ranking:],
        user=log.rankings.user[ranking:],
        offsets=log.rankings.offsets[ranking:] - begin,
        items=log.rankings.items[begin:],
        labels=log.rankings.labels[begin:],
        positions=log.rankings.positions[begin:],
        logged_features=None,
    )
    columns = {name: getattr(log.interactions, name)[interaction:] for name in type(log.interactions).__slots__}
    columns["ranking"] = np.maximum(columns["ranking"] - ranking, -1)
    n_kept = n_interactions - interaction
    shifted = np.where(is_ranking, order - n_interactions - ranking + n_kept, order - interaction)
    return replace(
        log, interactions=type(log.interactions)(**columns), rankings=rankings, event_order=shifted.astype(np.int64),
        unknown=UnknownItems.none(),
    )  # fmt: skip


def shuffle_labels(log: EventTable, seed: int) -> EventTable:
    """Permute the logged labels and the clicked items within each ranking; interactions of no ranking stay."""
    rankings, interactions = log.rankings, log.interactions
    ranking_of = np.repeat(np.arange(len(rankings)), np.diff(rankings.offsets))
    target = np.lexsort((np.random.default_rng(seed).random(len(ranking_of)), ranking_of))
    impression, is_matched = match_impressions(log)
    items, labels = interactions.item.copy(), np.empty_like(rankings.labels)
    items[is_matched] = rankings.items[target[impression[is_matched]]]
    labels[target] = rankings.labels
    return replace(log, interactions=replace(interactions, item=items), rankings=replace(rankings, labels=labels))


def _shuffled_targets(item_inputs: ItemInputs, log: EventTable, settings: ModelSettings) -> NDArray[np.float64]:
    """Return the (G,) AUC of users' last interactions with their items replaced, for a ranker of the other users.

    Each is replaced by one of `CANDIDATES` random items, which are the group, so no past tells which one.
    """
    random, n_items = np.random.default_rng(settings.training.seed), len(item_inputs.catalogue)
    histories = UserHistories.from_log(log).in_history
    targets = histories.last_targets()[-MAX_TARGETS:]
    targets = targets[target_order(log, histories, targets)]
    group_size = min(CANDIDATES, n_items)
    if len(targets) < 2 * MIN_TEST_GROUPS or group_size < 2:
        return np.empty(0)
    groups = np.array([random.choice(n_items, group_size, replace=False) for _ in targets], np.int32)
    interactions = histories.interaction[targets]
    items = log.interactions.item.copy()
    items[interactions] = groups[np.arange(len(targets)), random.integers(0, group_size, len(targets))]
    shuffled = replace(log, interactions=replace(log.interactions, item=items))
    past = histories.select(histories.interaction < histories.first_of(targets)[histories.user])
    builder = FeatureBuilder(fit_item_model(item_inputs, past, settings.items), settings.state, settings.features)
    examples = from_recall(
        shuffled, UserHistories.from_log(shuffled).in_history, targets, _FixedCandidates(groups), group_size,
        settings.state.history_length,
    )  # fmt: skip
    is_test = np.arange(len(examples)) % 2 == 1
    train, test = (build_query_groups(shuffled, builder, examples.select(mask)) for mask in (~is_test, is_test))
    ranker = LambdaRanker.train([train], train, builder.names, builder.fingerprint, settings.ranker)
    return auc(test.labels > 0, ranker.score(test.features()), test.offsets)


class _FixedCandidates:
    """Retrieves the rows of a table, one after the other."""

    def __init__(self, groups: NDArray[np.int32]) -> None:
        self._groups = iter(groups)

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        return Candidates(next(self._groups), np.zeros(k, np.float32), "shuffled")


def _small_settings(settings: ModelSettings) -> ModelSettings:
    return replace(
        settings,
        items=replace(
            settings.items, ease_items=0, cooccurrence_rank=RANK, transition_rank=RANK, category_rank=RANK,
            neighbours=50,
        ),
        training=replace(settings.training, folds=2, use_logged_features=False),
        ranker=LambdaRankSettings(
            rounds=ROUNDS, patience=ROUNDS, refit=False, debias=False, seed=settings.ranker.seed,
            threads=settings.ranker.threads, parameters={"min_data_in_leaf": 20},
        ),
    )  # fmt: skip


def _judge(values: NDArray[np.float64], seed: int) -> ShuffledCheck | None:
    """Judge the (G,) AUC of the test groups; None if there are too few."""
    values = values[~np.isnan(values)]
    if len(values) < MIN_TEST_GROUPS:
        return None
    bounds, error = interval(values, seed=seed), float(values.std(ddof=1) / np.sqrt(len(values)))
    leaks = bounds.mean - 0.5 > max(STANDARD_ERRORS * error, 1e-9)
    return ShuffledCheck(bounds.mean, bounds.low, bounds.high, len(values), leaks)
