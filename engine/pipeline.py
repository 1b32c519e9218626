"""One request through recall, features and ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.protocols import Featurizer, Ranker, Retriever, State
from engine.rescoring import Rescoring
from engine.types import Batch, Candidates, Ranking, Request, Rows, in_found_order
from engine.watch import Watch, no_watch

GIVEN = "given"
"""The source of candidates that the caller names."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What an arm of a test is: a retriever, a featurizer and a ranker that belong together."""

    retriever: Retriever
    state: State
    featurizer: Featurizer
    ranker: Ranker
    candidates: int = 100
    bundle: str = ""
    """The name of the bundle it was made from."""
    rescoring: Rescoring | None = None
    """The second phase; None: there is one phase."""
    popular: Retriever | None = None
    """What is shown where all else fails."""

    def run(self, request: Request, watch: Watch | None = None, given: Rows | None = None) -> Ranking:
        """All candidates in their final order. given: these candidates, in place of what recall finds.

        Where the watch leaves no time to rank, candidates stay in the order of recall.
        """
        watch = watch or no_watch()
        if given is None:
            found = self.retriever.retrieve(request, self.candidates)
            watch.mark("recall")
        else:
            found = given_candidates(given)
        if not watch.allows("features", "rank", "journal", units=len(found.rows)):
            watch.skip("rank")
            return in_found_order(found, len(self.featurizer.names))
        return self.ranked(request, self.state.read([request], [found.rows]), found, watch)

    def ranked(self, request: Request, batch: Batch, found: Candidates, watch: Watch | None = None) -> Ranking:
        """Candidates in their final order, by the state as it was read for them."""
        watch = watch or no_watch()
        if self.rescoring is None:
            matrix = self.featurizer.matrix(batch)
            watch.mark("features", len(found.rows))
            pairs = batch.pair_scores
        else:
            matrix, pairs = self.rescoring.matrix(request, batch, self.featurizer, watch)
        scores = self.ranker.score(matrix)
        order = np.argsort(-scores, kind="stable")
        watch.mark("rank")
        return Ranking(found, order, scores[order], matrix[order], pairs)


def given_candidates(rows: Rows) -> Candidates:
    """Candidates that the caller names; as nobody found them, their scores say only in which order they came."""
    return Candidates(rows, -np.arange(1, len(rows) + 1, dtype=np.float32), GIVEN)
