"""Build training samples for text models from the click log: request texts with clicked and skipped items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from feedrank.engine.events.event_table import Log
from feedrank.models.finetune.samples import PairGroups, from_examples
from feedrank.models.items.item_model import fit_items
from feedrank.models.items.user_histories import Sequences
from feedrank.models.training.dataset import Examples, from_rankings, from_recall, read_states
from feedrank.models.training.training import Corpus, Progress, Settings, learns_from_rankings, retriever

LATEST = 20_000
"""Default maximum number of groups taken from a log."""


def from_log(
    corpus: Corpus,
    log: Log,
    documents: Sequence[str],
    settings: Settings | None = None,
    most: int = LATEST,
    progress: Progress = lambda *_: None,
) -> PairGroups:
    """Build samples from the log's clicked rankings, or from recall if the log has too few of them.

    The latest `max_groups` groups are used. Recall candidates of an interaction are computed without that user's
    latest interactions. Groups whose positive was not recalled are dropped, so the negatives are items that would
    have been shown. documents: (n,) item texts. Raises ValueError if no group has a request text and a click.
    """
    settings = settings or Settings()
    if learns_from_rankings(log, settings):
        labeled_groups = from_rankings(log, 0, len(log.rankings), settings.labels, cut=True)
        labeled_groups = _latest(labeled_groups.only(labeled_groups.found), most)
    else:
        labeled_groups = _recalled(corpus, log, settings, most, progress)
    batch = read_states(log, corpus.catalogue, settings.state, labeled_groups)
    groups = from_examples(batch, labeled_groups.labels, corpus.catalogue.titles, documents)
    if not len(groups):
        raise ValueError(
            "found no group in the journal with a request text and a click; expected requests with a query, or users "
            "with item titles in their history. Load more events, or give a file with --pairs"
        )
    return groups


def _recalled(corpus: Corpus, log: Log, settings: Settings, most: int, progress: Progress) -> Examples:
    training = settings.training
    sequences = Sequences.of(log)
    latest = sequences.from_end < training.targets
    targets = np.flatnonzero(latest & (sequences.from_start >= training.least_history))
    targets = np.sort(targets[np.argsort(sequences.at[targets], kind="stable")[-most:]])
    if not len(targets):
        raise ValueError(
            f"found no user with more than {training.least_history} interactions in the journal; load more events, "
            "lower training.least_history, or give a file with --pairs"
        )
    knowledge = fit_items(corpus.catalogue, corpus.text, corpus.terms, sequences.keep(~latest), settings.items)
    counter = count(1)

    def step() -> None:
        if (done := next(counter)) % 50 == 0:
            progress("groups from recall", done, len(targets))

    recalled = from_recall(
        log, sequences, targets, retriever(knowledge), training.candidates, settings.state.depth, step
    )  # fmt: skip
    return recalled.only(recalled.found)


def _latest(examples: Examples, most: int) -> Examples:
    return examples.only(np.arange(len(examples)) >= len(examples) - most)
