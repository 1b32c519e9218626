"""Labelled query groups: the candidates of a request, its point in time, the labels and the feature matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.protocols import Retriever
from feedrank.engine.types import Batch, Matrix, Offsets, ResolvedRequest, Rows
from feedrank.features.builder import FeatureBuilder
from feedrank.features.item_model import CROSS_ENCODER
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.request_text import request_texts
from feedrank.features.state import BehaviouralState, StateSpec
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.labels import LabelSettings, examined_mask, impression_labels
from feedrank.models.training.query_groups import QueryGroups


@dataclass(frozen=True, eq=False, slots=True)
class LabeledGroups:
    """G groups of candidates, each with a point in time of the log and one label per candidate."""

    queries: PointInTimeQueries
    labels: NDArray[np.float32]
    """(N,) aligned with `queries.rows`."""
    relevant: NDArray[np.int64]
    """(G,) number of relevant items, whether among the candidates or not."""
    positions: NDArray[np.int32] | None = None
    """(N,) logged positions from 1; -1: unknown; None: the candidates were not shown."""
    impression_index: NDArray[np.int64] | None = None
    """(N,) index of each candidate among all impressions of the log; None: they are not impressions."""

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def has_positive(self) -> NDArray[np.bool_]:
        """Return (G,) True for groups with a relevant candidate; a ranker can learn from these only."""
        positive: NDArray[np.bool_] = _count_positives(self.labels, self.queries.offsets) > 0
        return positive

    def select(self, mask: NDArray[np.bool_]) -> LabeledGroups:
        """Return the groups where the (G,) mask is True."""
        queries = self.queries
        sizes = np.diff(queries.offsets)
        rows = np.repeat(mask, sizes)
        kept_queries = PointInTimeQueries(
            before_event=queries.before_event[mask],
            at=queries.at[mask],
            user=queries.user[mask],
            offsets=np.concatenate([[0], np.cumsum(sizes[mask])]).astype(np.int64),
            rows=queries.rows[rows],
        )
        positions = None if self.positions is None else self.positions[rows]
        impression_index = None if self.impression_index is None else self.impression_index[rows]
        return LabeledGroups(kept_queries, self.labels[rows], self.relevant[mask], positions, impression_index)

    def select_rows(self, mask: NDArray[np.bool_]) -> LabeledGroups:
        """Return all groups with only the candidates where the (N,) mask is True; `relevant` stays."""
        offsets = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)[self.queries.offsets]
        return replace(
            self,
            queries=replace(self.queries, offsets=offsets, rows=self.queries.rows[mask]),
            labels=self.labels[mask],
            positions=None if self.positions is None else self.positions[mask],
            impression_index=None if self.impression_index is None else self.impression_index[mask],
        )


def from_rankings(
    log: EventTable, first: int, last: int, settings: LabelSettings | None = None, drop_unexamined: bool = False
) -> LabeledGroups:
    """Build groups from the impressions of rankings [first, last) of the log, as of the moment just before each.

    Items that are missing in the catalogue are left out. drop_unexamined: leave out impressions that were likely not
    examined, by `LabelSettings.examination_window`. Use it for training, never for a test.
    """
    settings = settings or LabelSettings()
    rankings = log.rankings
    start, stop = int(rankings.offsets[first]), int(rankings.offsets[last])
    kept = rankings.items[start:stop] >= 0
    if drop_unexamined:
        kept &= examined_mask(log, settings.examination_window)[start:stop]
    kept_labels = impression_labels(log, settings)[start:stop][kept]
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[rankings.offsets[first : last + 1] - start]
    queries = PointInTimeQueries(
        before_event=log.event_positions()[len(log.interactions) + first : len(log.interactions) + last],
        at=rankings.at[first:last],
        user=rankings.user[first:last],
        offsets=offsets,
        rows=rankings.items[start:stop][kept],
    )
    indices = start + np.flatnonzero(kept)
    return LabeledGroups(
        queries, kept_labels, _count_positives(kept_labels, offsets), rankings.positions[start:stop][kept], indices
    )


def from_recall(
    log: EventTable,
    histories: UserHistories,
    targets: NDArray[np.int64],
    retriever: Retriever,
    k: int,
    history_length: int,
    on_group: Callable[[], None] = lambda: None,
) -> LabeledGroups:
    """Build groups from the retriever's k candidates just before each target interaction, the only relevant item.

    targets: indices into `histories`, which must hold all interactions of the log. The retriever must not be fitted on
    the targets. on_group: called after each group.
    """
    interactions = histories.interaction[targets]
    before = log.event_positions()[interactions]
    order = np.argsort(before, kind="stable")
    candidates: list[Rows] = []
    labels: list[NDArray[np.float32]] = []
    for target in targets[order].tolist():
        past = histories.history_before(target)
        rows = retriever.retrieve(request_at(histories, past, float(histories.at[target]), history_length), k).rows
        candidates.append(rows)
        labels.append((rows == histories.items[target]).astype(np.float32))
        on_group()
    queries = PointInTimeQueries(
        before_event=before[order],
        at=log.interactions.at[interactions[order]],
        user=log.interactions.user[interactions[order]],
        offsets=np.concatenate([[0], np.cumsum([len(rows) for rows in candidates])]).astype(np.int64),
        rows=np.concatenate([np.empty(0, np.int32), *candidates]).astype(np.int32),
    )
    return LabeledGroups(queries, np.concatenate([np.empty(0, np.float32), *labels]), np.ones(len(order), np.int64))


def request_at(histories: UserHistories, past: slice, at: float, history_length: int) -> ResolvedRequest:
    """Build the request of a user with this past (a slice of the histories, oldest first)."""
    items = histories.items[past]
    latest = slice(None, -history_length - 1, -1)
    return ResolvedRequest(at=at, history=items[latest], history_at=histories.at[past][latest], interacted=items)


def point_in_time_batch(log: EventTable, catalogue: Catalogue, spec: StateSpec, labeled_groups: LabeledGroups) -> Batch:
    """Return the batch of all groups with point-in-time states, by one replay of the log."""
    return BehaviouralState(catalogue, spec).replay_log(log, labeled_groups.queries)


def build_query_groups(
    log: EventTable, builder: FeatureBuilder, labeled_groups: LabeledGroups, use_logged_features: bool = False
) -> QueryGroups:
    """Return features and labels of the groups; use_logged_features: take logged features where there are any."""
    out = np.empty((len(labeled_groups.labels), len(builder.names)), np.float32)
    chunks = []
    for chunk in feature_chunks(log, builder, labeled_groups, use_logged_features=use_logged_features):
        out[chunk.row_range] = chunk.matrix
        chunks.append(without_features(chunk))
    return assemble_query_groups(out, labeled_groups, chunks)


class FeatureChunk(NamedTuple):
    """Feature rows of consecutive groups."""

    row_range: slice
    """Range of rows within all groups."""
    matrix: Matrix
    query_texts: tuple[str, ...]
    """Text of each request; empty without a cross-encoder."""
    logged: NDArray[np.bool_] | None
    """True for rows that are logged features."""


def without_features(chunk: FeatureChunk) -> FeatureChunk:
    """Return the chunk without its matrix, to free memory."""
    return chunk._replace(matrix=np.empty((0, 0), np.float32))


def assemble_query_groups(matrix: Any, labeled_groups: LabeledGroups, chunks: Sequence[FeatureChunk]) -> QueryGroups:
    """Build query groups from a matrix and the chunks that filled it."""
    logged = None
    if any(chunk.logged is not None for chunk in chunks):
        logged = np.concatenate([mask for mask in (chunk.logged for chunk in chunks) if mask is not None])
    texts = tuple(text for chunk in chunks for text in chunk.query_texts)
    rows = labeled_groups.queries.rows if texts else None
    return QueryGroups(
        matrix, labeled_groups.labels, labeled_groups.queries.offsets, labeled_groups.positions, rows, texts, logged
    )


def feature_chunks(
    log: EventTable,
    builder: FeatureBuilder,
    labeled_groups: LabeledGroups,
    chunk_rows: int = 65_536,
    use_logged_features: bool = False,
) -> Iterator[FeatureChunk]:
    """Yield the feature rows of the groups in order, about `chunk_rows` at a time, by one replay of the log.

    use_logged_features: take features that were logged with the ranking under the builder's fingerprint. They have the
    values of that time, and listwise features over all candidates, of which the log keeps only the impressions.
    """
    state = BehaviouralState(builder.item_model.catalogue, builder.spec)
    titles, needs_texts = builder.item_model.catalogue.titles, CROSS_ENCODER in builder.item_model.model_digests
    rows_done = 0
    for batch in state.replay_chunks(log, labeled_groups.queries, chunk_rows):
        if len(batch.rows):
            row_range = slice(rows_done, rows_done + len(batch.rows))
            matrix, logged = builder.matrix(batch), None
            if (
                use_logged_features
                and labeled_groups.impression_index is not None
                and log.rankings.logged_features is not None
            ):
                stored = log.rankings.logged_features
                logged = stored.fill(
                    matrix, labeled_groups.impression_index[row_range], log.rankings.offsets, builder.fingerprint
                )
            yield FeatureChunk(row_range, matrix, tuple(request_texts(batch, titles)) if needs_texts else (), logged)
            rows_done += len(batch.rows)


def _count_positives(labels: NDArray[np.float32], offsets: Offsets) -> NDArray[np.int64]:
    """Return (G,) the number of relevant rows of each group; groups may be empty."""
    before = np.concatenate([[0], np.cumsum(labels > 0)])
    return np.asarray(before[offsets[1:]] - before[offsets[:-1]], np.int64)
