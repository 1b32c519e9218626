"""One request through recall, features and ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.protocols import Featurizer, Ranker, Retriever, State
from engine.rescoring import Rescoring
from engine.types import Ranking, Request


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

    def run(self, request: Request) -> Ranking:
        """All candidates in their final order."""
        found = self.retriever.retrieve(request, self.candidates)
        batch = self.state.read([request], [found.rows])
        if self.rescoring is None:
            matrix = self.featurizer.matrix(batch)
        else:
            matrix = self.rescoring.matrix(request, batch, self.featurizer)
        scores = self.ranker.score(matrix)
        order = np.argsort(-scores, kind="stable")
        return Ranking(found.rows[order], scores[order], matrix[order], found.source)
