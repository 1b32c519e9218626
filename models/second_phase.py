"""Training for two phases: which pairs a cross-encoder scores, and what the rankers of both phases learn from.

Serving knows the scores of all candidates of some requests, because they were made ahead, and of the best of the first
phase of the others. Training leaves the same gaps: the second ranker meets in serving what it met in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.protocols import PairScorer
from engine.types import Scores
from features.context import behind_best
from models.groups import Groups, ranks, scored
from models.ranker import LambdaRanker, LambdaRankSettings

COLUMNS = ("pair_score", "pair_behind")
"""The feature columns that come of pair scores."""
Step = Callable[[int, int], None]
"""Called with (pairs scored, pairs in all)."""
AT_ONCE = 4_096


@dataclass(frozen=True, eq=False, slots=True)
class SecondPhase:
    """A cross-encoder, and for whom it is asked."""

    scorer: PairScorer
    best: int
    """Candidates of a request that are scored, those that the first phase puts first."""
    ready_share: float
    """Share of requests whose candidates have all been scored ahead."""

    def train(
        self, train: Sequence[Groups], validation: Groups, names: tuple[str, ...], fingerprint: str,
        settings: LambdaRankSettings, step: Step,
    ) -> tuple[LambdaRanker, list[Groups], Groups]:  # fmt: skip
        """The first phase's ranker, and the groups with the pair scores that the second may learn from.

        What a group's first phase is depends on a ranker that did not learn from that group's part: one that did would
        put the clicked item on top, and having a score would tell of the click.
        """
        blind = {"feature_contri": [0.0 if name in COLUMNS else 1.0 for name in names]}
        cheap = replace(settings, parameters=dict(settings.parameters) | blind)

        def fit(parts: Sequence[Groups]) -> LambdaRanker:
            return LambdaRanker.train(parts, validation, names, fingerprint, cheap)

        first = fit(train)
        halves = [train[0::2], train[1::2]]
        judges = [fit(half) if half else first for half in halves]
        orders = [scored(part, judges[1 - number % 2].score) for number, part in enumerate(train)]
        orders.append(scored(validation, judges[0].score))
        parts = [*train, validation]
        chosen = [self._chosen(part, order, settings.seed + number)
                  for number, (part, order) in enumerate(zip(parts, orders, strict=True))]  # fmt: skip
        total, done = int(sum(mask.sum() for mask in chosen)), 0
        filled: list[Groups] = []
        for part, mask in zip(parts, chosen, strict=True):
            filled.append(self._filled(part, mask, names, partial(_onward, step, done, total)))
            done += int(mask.sum())
        return first, filled[:-1], filled[-1]

    def live(self, groups: Groups, first: LambdaRanker) -> Groups:
        """As a live request without scores made ahead has it: the best of the first phase are scored."""
        order = scored(groups, first.score)
        chosen = ranks(order.astype(np.float64), groups.offsets) < self.best
        return self._filled(groups, self._askable(groups, chosen), first.names, lambda _: None)

    def _chosen(self, groups: Groups, order: Scores, seed: int) -> NDArray[np.bool_]:
        """(N,) which rows get a score."""
        ready = np.random.default_rng(seed).random(len(groups)) < self.ready_share
        whole = np.repeat(ready, np.diff(groups.offsets))
        return self._askable(groups, whole | (ranks(order.astype(np.float64), groups.offsets) < self.best))

    def _askable(self, groups: Groups, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """What was served keeps the scores, and the gaps, that it was served with."""
        return chosen if groups.served is None else chosen & ~groups.served

    def _filled(
        self, groups: Groups, chosen: NDArray[np.bool_], names: tuple[str, ...], step: Callable[[int], None]
    ) -> Groups:
        if groups.rows is None:
            raise ValueError("these groups do not say which items they are of, so their pairs can't be scored")
        place = names.index(COLUMNS[0])
        matrix = groups.matrix
        scores = np.full(len(groups.labels), np.nan, np.float32)
        if groups.served is not None:
            kept = scored(groups, lambda rows: rows[:, place])
            scores[groups.served] = kept[groups.served]
        owners = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
        asked = np.flatnonzero(chosen)
        for start in range(0, len(asked), AT_ONCE):
            part = asked[start : start + AT_ONCE]
            scores[part] = self.scorer.score([groups.texts[owners[one]] for one in part], groups.rows[part])
            step(start + len(part))
        matrix[:, place] = scores  # type: ignore[index]  # LightGBM's Sequence has no word for it, ours does
        matrix[:, names.index(COLUMNS[1])] = behind_best(scores, groups.offsets)  # type: ignore[index]
        return groups


def _onward(step: Step, before: int, total: int, done: int) -> None:
    step(before + done, total)
