"""What is shown where ranking failed: ever plainer lists, so that there is always one.

full -> no neural part -> popular, category by category -> the last list that went well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from engine.live import Live
from engine.pipeline import Pipeline, given_candidates
from engine.recall import eligible
from engine.types import Candidates, Ranking, Request, Rows, in_found_order
from engine.watch import Watch

FULL, NO_NEURAL, POPULAR, LAST_GOOD = "full", "no_neural", "popular", "last_good"
"""The steps of the ladder."""
_log = logging.getLogger(__name__)


class Ladder:
    """Goes down a step wherever one fails."""

    def __init__(self) -> None:
        self._last: Candidates | None = None
        self._of: Live | None = None

    def run(
        self, live: Live, request: Request, watch: Watch, given: Rows | None, pipeline: Pipeline | None = None
    ) -> tuple[str, Ranking]:
        """The step that held, and its list. What the others raised is logged. pipeline: by default the live one."""
        for step, make in self._steps(live, pipeline or live.pipeline, request, watch, given):
            try:
                ranking = make()
            except Exception:  # a worse list is better than none, whatever it was
                _log.exception("a feed failed at the step %r; the next one is tried", step)
                watch.skip(step)
                continue
            if step == FULL and given is None and len(ranking.order):
                self._last, self._of = Candidates(ranking.rows, ranking.scores, LAST_GOOD), live
            return step, ranking
        raise RuntimeError("no feed could be made, and none had gone well before; the log says why")

    def _steps(
        self, live: Live, pipeline: Pipeline, request: Request, watch: Watch, given: Rows | None
    ) -> Iterator[tuple[str, Callable[[], Ranking]]]:
        yield FULL, lambda: pipeline.run(request, watch, given)
        plain = replace(pipeline, rescoring=None)
        wordless = replace(request, query_vector=None, query_tokens=None)
        yield NO_NEURAL, lambda: plain.run(wordless, watch, given)
        width = len(pipeline.featurizer.names)
        if given is not None:
            yield POPULAR, lambda: in_found_order(given_candidates(given), width)
            return
        yield POPULAR, lambda: in_found_order(_by_category(live, request), width)
        last = self._last
        if last is not None and self._of is live:
            yield LAST_GOOD, lambda: in_found_order(_that_pass(last, live, request), width)


def _by_category(live: Live, request: Request) -> Candidates:
    """The most popular items, first categories in turn, beginning with that of the most popular one."""
    popular = live.pipeline.popular
    if popular is None:
        raise RuntimeError("the pipeline knows of no popular items")
    found = popular.retrieve(request, live.pipeline.candidates)
    codes = live.catalogue.first_categories(found.rows)
    turn = np.zeros(len(codes), np.int64)
    for code in np.unique(codes).tolist():
        own = np.flatnonzero(codes == code)
        turn[own] = np.arange(len(own))
    order = np.argsort(turn, kind="stable")
    return Candidates(found.rows[order], found.scores[order], POPULAR)


def _that_pass(last: Candidates, live: Live, request: Request) -> Candidates:
    mask = eligible(live.catalogue, request)
    kept = np.ones(len(last.rows), np.bool_) if mask is None else mask[last.rows]
    return Candidates(last.rows[kept], last.scores[kept], LAST_GOOD)
