"""Training data for two-stage ranking: which rows a cross-encoder scores, and what each stage's ranker learns from.

At serving, some requests have precomputed cross-encoder scores for all candidates; others have scores for the top k of
the first stage only. Training leaves the same scores missing, so that there is no training-serving skew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.protocols import PairScorer
from feedrank.engine.types import Scores
from feedrank.features.listwise import behind_best
from feedrank.models.training.query_groups import Groups, ranks, scored
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

COLUMNS = ("pair_score", "pair_behind")
"""Feature columns that depend on cross-encoder scores."""
Step = Callable[[int, int], None]
"""Called with (rows scored, rows in total)."""
AT_ONCE = 4_096


@dataclass(frozen=True, eq=False, slots=True)
class SecondPhase:
    """A cross-encoder, and which candidates it scores."""

    scorer: PairScorer
    best: int
    """Candidates of a request that are scored: the top k of the first stage."""
    ready_share: float
    """Share of requests with precomputed scores for all candidates."""

    def train(
        self, train: Sequence[Groups], validation: Groups, names: tuple[str, ...], fingerprint: str,
        settings: LambdaRankSettings, step: Step,
    ) -> tuple[LambdaRanker, list[Groups], Groups]:  # fmt: skip
        """Train the first-stage ranker and fill in the cross-encoder scores that the second stage learns from.

        Returns the first-stage ranker, the training groups and the validation groups. A group's top k come from a
        ranker that was not trained on that group (cross-fitting). Otherwise clicked items would rank first, and having
        a score would leak the label.
        """
        blind = {"feature_contri": [0.0 if name in COLUMNS else 1.0 for name in names]}
        first_stage_settings = replace(settings, parameters=dict(settings.parameters) | blind)

        def fit(parts: Sequence[Groups]) -> LambdaRanker:
            return LambdaRanker.train(parts, validation, names, fingerprint, first_stage_settings)

        first_stage = fit(train)
        halves = [train[0::2], train[1::2]]
        half_rankers = [fit(half) if half else first_stage for half in halves]
        first_stage_scores = [scored(part, half_rankers[1 - number % 2].score) for number, part in enumerate(train)]
        first_stage_scores.append(scored(validation, half_rankers[0].score))
        parts = [*train, validation]
        masks = [self._chosen(part, scores, settings.seed + number)
                  for number, (part, scores) in enumerate(zip(parts, first_stage_scores, strict=True))]  # fmt: skip
        total, rows_done = int(sum(mask.sum() for mask in masks)), 0
        filled_parts: list[Groups] = []
        for part, mask in zip(parts, masks, strict=True):
            filled_parts.append(self._filled(part, mask, names, partial(_onward, step, rows_done, total)))
            rows_done += int(mask.sum())
        return first_stage, filled_parts[:-1], filled_parts[-1]

    def live(self, groups: Groups, first: LambdaRanker) -> Groups:
        """Score the top k of the first stage, as for a live request without precomputed scores."""
        first_stage_scores = scored(groups, first.score)
        mask = ranks(first_stage_scores.astype(np.float64), groups.offsets) < self.best
        return self._filled(groups, self._askable(groups, mask), first.names, lambda _: None)

    def _chosen(self, groups: Groups, order: Scores, seed: int) -> NDArray[np.bool_]:
        """Return (N,) True for rows to score: all rows of some groups, the top k of the others."""
        precomputed = np.random.default_rng(seed).random(len(groups)) < self.ready_share
        precomputed_rows = np.repeat(precomputed, np.diff(groups.offsets))
        return self._askable(groups, precomputed_rows | (ranks(order.astype(np.float64), groups.offsets) < self.best))

    def _askable(self, groups: Groups, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Exclude logged rows: they keep their logged scores and missing values."""
        return chosen if groups.served is None else chosen & ~groups.served

    def _filled(
        self, groups: Groups, chosen: NDArray[np.bool_], names: tuple[str, ...], step: Callable[[int], None]
    ) -> Groups:
        if groups.rows is None:
            raise ValueError("found groups without item rows; the cross-encoder needs them to score")
        column = names.index(COLUMNS[0])
        matrix = groups.matrix
        scores = np.full(len(groups.labels), np.nan, np.float32)
        if groups.served is not None:
            logged_scores = scored(groups, lambda rows: rows[:, column])
            scores[groups.served] = logged_scores[groups.served]
        group_of = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
        to_score = np.flatnonzero(chosen)
        for start in range(0, len(to_score), AT_ONCE):
            batch = to_score[start : start + AT_ONCE]
            scores[batch] = self.scorer.score([groups.texts[group_of[row]] for row in batch], groups.rows[batch])
            step(start + len(batch))
        matrix[:, column] = scores  # type: ignore[index]  # LightGBM's Sequence has no __setitem__, ours has
        matrix[:, names.index(COLUMNS[1])] = behind_best(scores, groups.offsets)  # type: ignore[index]
        return groups


def _onward(step: Step, before: int, total: int, done: int) -> None:
    step(before + done, total)
