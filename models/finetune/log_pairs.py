"""Training material for text models from the click log: what was asked in words, shown, and clicked or passed over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from engine.log import Log
from models.dataset import Examples, from_rankings, from_recall, read_states
from models.finetune.pairs import PairGroups, from_examples
from models.items import fit_items
from models.sequences import Sequences
from models.training import Corpus, Progress, Settings, learns_from_rankings, retriever

LATEST = 20_000
"""Groups that are taken of a log unless more are asked for."""


def from_log(
    corpus: Corpus,
    log: Log,
    documents: Sequence[str],
    settings: Settings | None = None,
    most: int = LATEST,
    progress: Progress = lambda *_: None,
) -> PairGroups:
    """The log's rankings with a click where it has enough of them, else what recall finds before people's touches.

    The latest `most` groups are made. What recall finds for a touch is found without that person's latest touches, and
    groups whose touched item it did not find are left out: so the texts that do not answer are those that would have
    been shown. documents: (n,) the items' texts. Raises ValueError where no group has words and a click.
    """
    settings = settings or Settings()
    if learns_from_rankings(log, settings):
        examples = from_rankings(log, 0, len(log.rankings), settings.labels, cut=True)
        examples = _latest(examples.only(examples.found), most)
    else:
        examples = _recalled(corpus, log, settings, most, progress)
    batch = read_states(log, corpus.catalogue, settings.state, examples)
    groups = from_examples(batch, examples.labels, corpus.catalogue.titles, documents)
    if not len(groups):
        raise ValueError(
            "found no group in the journal that says something in words and has a click; expected requests with a "
            "query, or people with titles in their history. Load more events, or give a file with --pairs"
        )
    return groups


def _recalled(corpus: Corpus, log: Log, settings: Settings, most: int, progress: Progress) -> Examples:
    asked = settings.training
    sequences = Sequences.of(log)
    latest = sequences.from_end < asked.targets
    targets = np.flatnonzero(latest & (sequences.from_start >= asked.least_history))
    targets = np.sort(targets[np.argsort(sequences.at[targets], kind="stable")[-most:]])
    if not len(targets):
        raise ValueError(
            f"found nobody with more than {asked.least_history} touches in the journal; load more events, lower "
            "training.least_history, or give a file with --pairs"
        )
    knowledge = fit_items(corpus.catalogue, corpus.text, corpus.terms, sequences.keep(~latest), settings.items)
    made = count(1)

    def step() -> None:
        if (done := next(made)) % 50 == 0:
            progress("groups from recall", done, len(targets))

    found = from_recall(
        log, sequences, targets, retriever(knowledge), asked.candidates, settings.state.depth, step
    )  # fmt: skip
    return found.only(found.found)


def _latest(examples: Examples, most: int) -> Examples:
    return examples.only(np.arange(len(examples)) >= len(examples) - most)
