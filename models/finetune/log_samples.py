"""Build training samples for text models from the click log: request texts with clicked and skipped items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.models.finetune.samples import QueryTextGroups, from_batch
from feedrank.models.items.item_model import fit_item_views
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import LabeledGroups, from_rankings, from_recall, point_in_time_batch
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.training import Progress, exact_retriever, has_enough_rankings
from feedrank.models.training.training_settings import ModelSettings

DEFAULT_MAX_GROUPS = 20_000
"""Default maximum number of groups taken from a log."""


def from_log(
    item_inputs: ItemInputs,
    log: EventTable,
    documents: Sequence[str],
    settings: ModelSettings | None = None,
    max_groups: int = DEFAULT_MAX_GROUPS,
    progress: Progress = lambda *_: None,
) -> QueryTextGroups:
    """Build samples from the log's clicked rankings, or from recall if the log has too few of them.

    The latest `max_groups` groups are used. Recall candidates of an interaction are computed without that user's
    latest interactions. Groups whose positive was not recalled are dropped, so the negatives are items that would
    have been shown. documents: (n,) item texts. Raises ValueError if no group has a request text and a click.
    """
    settings = settings or ModelSettings()
    if has_enough_rankings(log, settings):
        labeled_groups = from_rankings(log, 0, len(log.rankings), settings.labels, drop_unexamined=True)
        labeled_groups = _latest_groups(labeled_groups.select(labeled_groups.has_positive), max_groups)
    else:
        labeled_groups = _groups_from_recall(item_inputs, log, settings, max_groups, progress)
    batch = point_in_time_batch(log, item_inputs.catalogue, settings.state, labeled_groups)
    groups = from_batch(batch, labeled_groups.labels, item_inputs.catalogue.titles, documents)
    if not len(groups):
        raise ValueError(
            "found no group in the journal with a request text and a click; expected requests with a query, or users "
            "with item titles in their history. Load more events, or give a file with --pairs"
        )
    return groups


def _groups_from_recall(
    item_inputs: ItemInputs, log: EventTable, settings: ModelSettings, max_groups: int, progress: Progress
) -> LabeledGroups:
    training = settings.training
    everything = UserHistories.from_log(log)
    sequences = everything.in_history
    latest = sequences.last_targets(training.targets_per_user, training.min_history)
    targets = np.sort(latest[np.argsort(sequences.at[latest], kind="stable")[-max_groups:]])
    if not len(targets):
        raise ValueError(
            f"found no user with more than {training.min_history} interactions in the journal; load more events, "
            "lower training.min_history, or give a file with --pairs"
        )
    past = everything.select(everything.interaction < sequences.first_of(latest)[everything.user])
    knowledge = fit_item_views(item_inputs.catalogue, item_inputs.text, item_inputs.term_weights, past, settings.items)
    counter = count(1)

    def step() -> None:
        if (done := next(counter)) % 50 == 0:
            progress("groups from recall", done, len(targets))

    recalled = from_recall(
        log, sequences, targets, exact_retriever(knowledge), training.candidates, settings.state.history_length, step
    )  # fmt: skip
    return recalled.select(recalled.has_positive)


def _latest_groups(examples: LabeledGroups, max_groups: int) -> LabeledGroups:
    return examples.select(np.arange(len(examples)) >= len(examples) - max_groups)
