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

from feedrank.engine.protocols import CrossEncoderScorer
from feedrank.engine.types import Scores
from feedrank.features.families.listwise import gap_to_best
from feedrank.models.training.query_groups import QueryGroups, ranks, score_in_chunks
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings

CROSS_ENCODER_COLUMNS = ("ce_score", "ce_gap")
"""Feature columns that depend on cross-encoder scores."""
ScoringProgress = Callable[[int, int], None]
"""Called with (rows scored, rows in total)."""
SCORE_BATCH_ROWS = 4_096


@dataclass(frozen=True, eq=False, slots=True)
class RerankerTraining:
    """A cross-encoder, and which candidates it scores."""

    scorer: CrossEncoderScorer
    top_k: int
    """Candidates of a request that are scored: the top k of the first stage."""
    precomputed_share: float
    """Share of requests with precomputed scores for all candidates."""

    def train(
        self, train: Sequence[QueryGroups], validation: QueryGroups, names: tuple[str, ...], fingerprint: str,
        settings: LambdaRankSettings, progress: ScoringProgress,
    ) -> tuple[LambdaRanker, list[QueryGroups], QueryGroups]:  # fmt: skip
        """Train the first-stage ranker and fill in the cross-encoder scores that the second stage learns from.

        Returns the first-stage ranker, the training groups and the validation groups. A group's top k come from a
        ranker that was not trained on that group (cross-fitting). Otherwise clicked items would rank first, and having
        a score would leak the label.
        """
        blind = {"feature_contri": [0.0 if name in CROSS_ENCODER_COLUMNS else 1.0 for name in names]}
        first_stage_settings = replace(settings, parameters=dict(settings.parameters) | blind)

        def fit(parts: Sequence[QueryGroups]) -> LambdaRanker:
            return LambdaRanker.train(parts, validation, names, fingerprint, first_stage_settings)

        first_stage = fit(train)
        halves = [train[0::2], train[1::2]]
        half_rankers = [fit(half) if half else first_stage for half in halves]
        first_stage_scores = [
            score_in_chunks(part, half_rankers[1 - number % 2].score) for number, part in enumerate(train)
        ]
        first_stage_scores.append(score_in_chunks(validation, half_rankers[0].score))
        parts = [*train, validation]
        masks = [self._rows_to_score(part, scores, settings.seed + number)
                  for number, (part, scores) in enumerate(zip(parts, first_stage_scores, strict=True))]  # fmt: skip
        total, rows_done = int(sum(mask.sum() for mask in masks)), 0
        filled_parts: list[QueryGroups] = []
        for part, mask in zip(parts, masks, strict=True):
            filled_parts.append(
                self._fill_scores(part, mask, names, partial(_report_progress, progress, rows_done, total))
            )
            rows_done += int(mask.sum())
        return first_stage, filled_parts[:-1], filled_parts[-1]

    def score_top_k(self, groups: QueryGroups, first_stage: LambdaRanker) -> QueryGroups:
        """Score the top k of the first stage, as for a live request without precomputed scores."""
        first_stage_scores = score_in_chunks(groups, first_stage.score)
        mask = ranks(first_stage_scores.astype(np.float64), groups.offsets) < self.top_k
        return self._fill_scores(groups, self._without_logged(groups, mask), first_stage.names, lambda _: None)

    def _rows_to_score(self, groups: QueryGroups, first_stage_scores: Scores, seed: int) -> NDArray[np.bool_]:
        """Return (N,) True for rows to score: all rows of some groups, the top k of the others."""
        precomputed = np.random.default_rng(seed).random(len(groups)) < self.precomputed_share
        precomputed_rows = np.repeat(precomputed, np.diff(groups.offsets))
        return self._without_logged(
            groups, precomputed_rows | (ranks(first_stage_scores.astype(np.float64), groups.offsets) < self.top_k)
        )

    def _without_logged(self, groups: QueryGroups, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Exclude logged rows: they keep their logged scores and missing values."""
        return mask if groups.logged is None else mask & ~groups.logged

    def _fill_scores(
        self, groups: QueryGroups, mask: NDArray[np.bool_], names: tuple[str, ...], progress: Callable[[int], None]
    ) -> QueryGroups:
        if groups.item_rows is None:
            raise ValueError("found groups without item rows; the cross-encoder needs them to score")
        column = names.index(CROSS_ENCODER_COLUMNS[0])
        matrix = groups.matrix
        scores = np.full(len(groups.labels), np.nan, np.float32)
        if groups.logged is not None:
            logged_scores = score_in_chunks(groups, lambda rows: rows[:, column])
            scores[groups.logged] = logged_scores[groups.logged]
        group_of = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
        to_score = np.flatnonzero(mask)
        for start in range(0, len(to_score), SCORE_BATCH_ROWS):
            batch = to_score[start : start + SCORE_BATCH_ROWS]
            scores[batch] = self.scorer.score(
                [groups.query_texts[group_of[row]] for row in batch], groups.item_rows[batch]
            )
            progress(start + len(batch))
        matrix[:, column] = scores  # type: ignore[index]  # LightGBM's Sequence has no __setitem__, ours has
        matrix[:, names.index(CROSS_ENCODER_COLUMNS[1])] = gap_to_best(scores, groups.offsets)  # type: ignore[index]
        return groups


def _report_progress(progress: ScoringProgress, before: int, total: int, done: int) -> None:
    progress(before + done, total)
