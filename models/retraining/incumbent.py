"""The bundle that serves now, and how it ranks the groups of another log and catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.types import Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining.drift import FeatureHistogram
from feedrank.models.training.dataset import LabeledGroups, build_query_groups, from_recall
from feedrank.models.training.query_groups import score_in_chunks
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.reranker_training import RerankerTraining
from feedrank.models.training.training import exact_retriever

MAX_AHEAD_S = MAX_AHEAD_MS / 1000
"""Seconds by which learnt events may be ahead of the clock, as for events."""


@dataclass(frozen=True, eq=False, slots=True)
class Incumbent:
    """The bundle that serves now."""

    name: str
    builder: FeatureBuilder
    ranker: LambdaRanker | None
    histogram: FeatureHistogram | None
    trained_until: float
    """Unix seconds of the last event that it has learnt; NaN: unknown."""
    first_stage: LambdaRanker | None = None
    """First-stage ranker; None without a cross-encoder."""
    reranker: RerankerTraining | None = None

    def score_rankings(self, log: EventTable, catalogue: Catalogue, groups: LabeledGroups) -> Scores:
        """Return the (N,) scores of the candidates of logged rankings. catalogue: the one of the log's item rows."""
        own_log, rows = reindex_log(log, catalogue, self.builder)
        queries = groups.queries
        own_queries = replace(queries, rows=rows[queries.rows])
        own_groups = LabeledGroups(
            own_queries, groups.labels, groups.ideal, groups.ideal_index, impression_index=groups.impression_index
        )
        return self._scores(own_log, own_groups)

    def rank_targets(
        self, log: EventTable, catalogue: Catalogue, histories: UserHistories, targets: NDArray[np.int64], k: int,
        history_length: int,
    ) -> tuple[LabeledGroups, Scores]:  # fmt: skip
        """Return its own k candidates for each target interaction with their scores, as `from_recall` builds them."""
        own_log, rows = reindex_log(log, catalogue, self.builder)
        item_model = self.builder.item_model
        groups = from_recall(
            own_log, histories.with_items(np.append(rows, np.int32(-1))), targets, exact_retriever(item_model), k,
            history_length,
        ).in_id_order(item_model.catalogue.ids)  # fmt: skip
        return groups, self._scores(own_log, groups)

    def _scores(self, log: EventTable, groups: LabeledGroups) -> Scores:
        """Return the ranker's scores; unknown items get -inf, as it can't recommend them."""
        if self.ranker is None:
            raise ValueError(f"found no ranker in {self.name}; compare with recall order instead")
        query_groups = build_query_groups(log, self.builder, groups)
        if self.reranker is not None and self.first_stage is not None:
            query_groups = self.reranker.score_top_k(query_groups, self.first_stage)
        scores = score_in_chunks(query_groups, self.ranker.score)
        return np.where(groups.queries.rows < 0, np.float32(-np.inf), scores).astype(np.float32)


def reindex_log(log: EventTable, catalogue: Catalogue, builder: FeatureBuilder) -> tuple[EventTable, NDArray[np.int32]]:
    """Map a log to another catalogue's item rows; return it and (n,) the new rows, `UNKNOWN_ROW` if missing there."""
    rows = builder.item_model.catalogue.ids.rows(list(catalogue.ids))
    rows = np.append(rows, np.int32(-1))  # UNKNOWN_ROW (-1) maps to itself
    interactions = replace(log.interactions, item=rows[log.interactions.item])
    rankings = replace(log.rankings, items=rows[log.rankings.items])
    fields = None if log.fields is None else log.fields.with_item_rows(rows)
    return replace(log, interactions=interactions, rankings=rankings, fields=fields), rows[:-1]


def learnt_until(manifest: Mapping[str, Any], built_at: float, now: float) -> float:
    """Return the unix seconds of the last event that a bundle has learnt; NaN if the clocks contradict each other.

    Manifests of before 0.3 have the end of the log instead, of which a retrained bundle has not learnt the test slice.
    Without either, or if it is more than a day ahead of the clock, it is when the bundle was built: it can't have
    learnt from later events. built_at, now: unix seconds.
    """
    until = manifest.get("trained_until", manifest.get("window", {}).get("last"))
    latest = now + MAX_AHEAD_S
    if until is not None and float(until) <= latest:
        return float(until)
    return built_at if built_at <= latest else float("nan")
