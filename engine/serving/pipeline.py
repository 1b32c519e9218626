"""The ranking pipeline: recall, features, ranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank.engine.protocols import Featurizer, Ranker, Retriever, State
from feedrank.engine.serving.deadline import Watch, no_watch
from feedrank.engine.serving.reranking import Rescoring
from feedrank.engine.types import Batch, Candidates, Ranking, Request, Rows, in_found_order

GIVEN = "given"
"""The `source` of candidates that the caller lists explicitly."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A retriever, a featurizer and a ranker that belong together; each arm of an experiment runs one."""

    retriever: Retriever
    state: State
    featurizer: Featurizer
    ranker: Ranker
    candidates: int = 100
    """How many candidates recall returns."""
    bundle: str = ""
    """The name of the bundle it was built from."""
    rescoring: Rescoring | None = None
    """The cross-encoder stage; None: there is none."""
    popular: Retriever | None = None
    """Retrieves popular items, the fallback where ranking fails."""

    def run(self, request: Request, watch: Watch | None = None, given: Rows | None = None) -> Ranking:
        """Rank all candidates of a request.

        explicit: (n,) rows to rank instead of what recall returns. If the budget has no time for ranking, the
        candidates stay in recall order.
        """
        watch = watch or no_watch()
        if given is None:
            candidates = self.retriever.retrieve(request, self.candidates)
            watch.mark("recall")
        else:
            candidates = given_candidates(given)
        if not watch.allows("features", "rank", "journal", units=len(candidates.rows)):
            watch.skip("rank")
            return in_found_order(candidates, len(self.featurizer.names))
        return self.ranked(request, self.state.read([request], [candidates.rows]), candidates, watch)

    def ranked(self, request: Request, batch: Batch, found: Candidates, watch: Watch | None = None) -> Ranking:
        """Rank candidates with the state in `batch`, which was read for them."""
        watch = watch or no_watch()
        if self.rescoring is None:
            matrix = self.featurizer.matrix(batch)
            watch.mark("features", len(found.rows))
            cross_encoder_scores = batch.pair_scores
        else:
            matrix, cross_encoder_scores = self.rescoring.matrix(request, batch, self.featurizer, watch)
        scores = self.ranker.score(matrix)
        order = np.argsort(-scores, kind="stable")
        watch.mark("rank")
        return Ranking(found, order, scores[order], matrix[order], cross_encoder_scores)


def given_candidates(rows: Rows) -> Candidates:
    """Wrap rows listed by the caller as candidates; their scores (-1, -2, ...) only keep the given order."""
    return Candidates(rows, -np.arange(1, len(rows) + 1, dtype=np.float32), GIVEN)
