"""Labelled query groups: the candidates of a request, its point in time, the labels and the feature matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.protocols import Retriever
from feedrank.engine.types import Batch, Matrix, Offsets, ResolvedRequest, Rows, Times
from feedrank.features.builder import FeatureBuilder
from feedrank.features.item_model import CROSS_ENCODER
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.request_text import request_texts
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.evaluation.metrics import Column, Ideal, Values, evaluate
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.labels import LabelSettings, examined_mask, impression_labels
from feedrank.models.training.query_groups import QueryGroups


@dataclass(frozen=True, eq=False, slots=True)
class LabeledGroups:
    """G groups of candidates, each with a point in time of the log and one label per candidate."""

    queries: PointInTimeQueries
    labels: NDArray[np.float32]
    """(N,) aligned with `queries.rows`."""
    ideal: Ideal
    """The labels of all relevant items, whether among the candidates or not, and whether the catalogue has them."""
    ideal_index: NDArray[np.int64]
    """(M,) index of each label of `ideal` among all impressions; among all interactions if groups come from recall."""
    positions: NDArray[np.int32] | None = None
    """(N,) logged positions from 1; -1: unknown; None: the candidates were not shown."""
    impression_index: NDArray[np.int64] | None = None
    """(N,) index of each candidate among all impressions of the log; None: they are not impressions."""
    is_graded: bool = True
    """Whether labels are grades of impressions, as [labels] says; False: 1 is the target, and all else is 0."""

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def has_positive(self) -> NDArray[np.bool_]:
        """Return (G,) True for groups with a relevant candidate; a ranker can learn from these only."""
        positive: NDArray[np.bool_] = _count_positives(self.labels, self.queries.offsets) > 0
        return positive

    @property
    def has_relevant(self) -> NDArray[np.bool_]:
        """Return (G,) True for groups with a relevant item, among the candidates or not; metrics need one."""
        return np.diff(self.ideal.offsets) > 0

    def select(self, mask: NDArray[np.bool_]) -> LabeledGroups:
        """Return the groups where the (G,) mask is True."""
        queries, ideal = self.queries, self.ideal
        rows, offsets = _select_rows(queries.offsets, mask)
        judged, ideal_offsets = _select_rows(ideal.offsets, mask)
        chosen = queries.select(mask, offsets, queries.rows[rows])
        return replace(
            self._at(rows, chosen),
            ideal=Ideal(ideal.labels[judged], ideal_offsets),
            ideal_index=self.ideal_index[judged],
        )

    def in_id_order(self, ids: Vocabulary) -> LabeledGroups:
        """Return the groups with candidates in descending order of their ids, in which trec_eval lists equal scores.

        Equal scores keep this order, so neither a metric nor early stopping can profit from the order of a log, which
        may list clicked items first. ids: of the item rows.
        """
        queries = self.queries
        distinct, item = np.unique(queries.rows, return_inverse=True)
        names = np.array(["" if row < 0 else ids.name(row) for row in distinct.tolist()], object)
        rank = np.empty(len(names), np.int64)
        rank[np.argsort(names, kind="stable")] = np.arange(len(names))
        rows = np.lexsort((-rank[item], np.repeat(np.arange(len(self)), np.diff(queries.offsets))))
        return self._at(rows, replace(queries, rows=queries.rows[rows]))

    def select_rows(self, mask: NDArray[np.bool_]) -> LabeledGroups:
        """Return all groups with only the candidates where the (N,) mask is True; `ideal` stays."""
        offsets = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)[self.queries.offsets]
        return self._at(mask, replace(self.queries, offsets=offsets, rows=self.queries.rows[mask]))

    def label_settings(self, settings: LabelSettings) -> LabelSettings:
        """Return the settings that the labels are measured with: gains and relevance levels are for grades only."""
        return settings if self.is_graded else replace(settings, gain="linear", gains=(), relevance_level=1)

    def evaluate(
        self, metrics: Iterable[str], labels: Column, offsets: Offsets, settings: LabelSettings,
        scores: Column | None = None,
    ) -> dict[str, Values]:  # fmt: skip
        """Compute metric -> (G,) values of a ranking of these groups; labels: (M,) in its order, best first.

        offsets: of the groups in the ranking, whose items need not be the candidates. Only auc needs `scores`.
        """
        used = self.label_settings(settings)
        return evaluate(
            metrics, labels, offsets, relevant=self.ideal, scores=scores, gain=used.label_gain,
            level=used.relevance_level,
        )  # fmt: skip

    def _at(self, rows: NDArray[Any], queries: PointInTimeQueries) -> LabeledGroups:
        """Return the candidates of these rows; queries: theirs."""

        def at(column: NDArray[Any] | None) -> Any:
            return None if column is None else column[rows]

        return replace(
            self,
            queries=queries,
            labels=self.labels[rows],
            positions=at(self.positions),
            impression_index=at(self.impression_index),
        )


def from_rankings(
    log: EventTable, first: int, last: int, settings: LabelSettings | None = None, drop_unexamined: bool = False
) -> LabeledGroups:
    """Build groups from the impressions of rankings [first, last) of the log, as of the moment just before each.

    Items that are missing in the catalogue are no candidates, but stay in the ideal. drop_unexamined: leave out
    impressions that were likely not examined, by `LabelSettings.examination_window`. Use it for training, never for a
    test.
    """
    settings = settings or LabelSettings()
    rankings = log.rankings
    start, stop = int(rankings.offsets[first]), int(rankings.offsets[last])
    kept = rankings.items[start:stop] >= 0
    if drop_unexamined:
        kept &= examined_mask(log, settings.examination_window)[start:stop]
    labels = impression_labels(log, settings)[start:stop]
    bounds = rankings.offsets[first : last + 1] - start
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[bounds]
    judged = np.flatnonzero(labels > 0)
    ideal = Ideal(labels[judged], np.searchsorted(judged, bounds).astype(np.int64))
    queries = PointInTimeQueries(
        before_event=log.event_positions()[len(log.interactions) + first : len(log.interactions) + last],
        at=rankings.at[first:last],
        user=rankings.user[first:last],
        offsets=offsets,
        rows=rankings.items[start:stop][kept],
        session=rankings.session[first:last],
        request=len(log.interactions) + np.arange(first, last),
    )
    positions, indices = rankings.positions[start:stop][kept], start + np.flatnonzero(kept)
    return LabeledGroups(queries, labels[kept], ideal, start + judged, positions, indices)


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

    targets: indices into `histories`, which must hold all users' histories of the log. A target that the catalogue
    lacks is never found. What a user dislikes at that moment is no candidate. The moment is before the ranking that
    showed the item, if the interaction belongs to one: what a ranking shows is not known when it is made. The retriever
    must not be fitted on the targets. on_group: called after each group. The groups are in `target_order`.
    """
    interactions = histories.interaction[targets]
    before, at, requests = _request_moments(log, interactions)
    order = np.argsort(before, kind="stable")
    is_interaction = log.event_order < len(log.interactions)
    n_before = np.append(np.cumsum(is_interaction) - is_interaction, len(log.interactions))[before]
    candidates: list[Rows] = []
    labels: list[NDArray[np.float32]] = []
    for index in order.tolist():
        target, end = int(targets[index]), int(n_before[index])
        past = histories.history_before(target, end)
        request = request_at(histories, past, float(at[index]), history_length)
        rows = retriever.retrieve(replace(request, disliked=histories.disliked_before(target, end)), k).rows
        candidates.append(rows)
        is_target = (rows == histories.items[target]) & (rows >= 0)
        labels.append(is_target.astype(np.float32))
        on_group()
    queries = PointInTimeQueries(
        before_event=before[order],
        at=at[order],
        user=log.interactions.user[interactions[order]],
        session=log.interactions.session[interactions[order]],
        offsets=np.concatenate([[0], np.cumsum([len(rows) for rows in candidates])]).astype(np.int64),
        rows=np.concatenate([np.empty(0, np.int32), *candidates]).astype(np.int32),
        request=requests[order],
    )
    ideal = Ideal(np.ones(len(order), np.float32), np.arange(len(order) + 1, dtype=np.int64))
    binary = np.concatenate([np.empty(0, np.float32), *labels])
    return LabeledGroups(queries, binary, ideal, interactions[order], is_graded=False)


def target_order(log: EventTable, histories: UserHistories, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order in which `from_recall` builds the groups of these targets."""
    before, _, _ = _request_moments(log, histories.interaction[targets])
    return np.argsort(before, kind="stable")


def _request_moments(
    log: EventTable, interactions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Times, NDArray[np.int64]]:
    """Return the position, the time and the event of the request behind each interaction: its ranking, or itself."""
    positions, ranking = log.event_positions(), log.interactions.ranking[interactions]
    at, has_ranking = log.interactions.at[interactions].copy(), ranking >= 0
    at[has_ranking] = log.rankings.at[ranking[has_ranking]]
    events = np.where(has_ranking, len(log.interactions) + ranking, interactions)
    return positions[events], at, events


def request_at(histories: UserHistories, past: slice, at: float, history_length: int) -> ResolvedRequest:
    """Build the request of a user with this past (a slice of the histories, oldest first), without unknown items."""
    known = histories.items[past] >= 0
    items, times = histories.items[past][known], histories.at[past][known]
    latest = slice(None, -history_length - 1, -1)
    return ResolvedRequest(at=at, history=items[latest], history_at=times[latest], interacted=items)


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
    return assemble_query_groups(out, labeled_groups, chunks, builder)


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


def assemble_query_groups(
    matrix: Any, labeled_groups: LabeledGroups, chunks: Sequence[FeatureChunk], builder: FeatureBuilder
) -> QueryGroups:
    """Build query groups from a matrix and the chunks that filled it."""
    logged = None
    if any(chunk.logged is not None for chunk in chunks):
        logged = np.concatenate([mask for mask in (chunk.logged for chunk in chunks) if mask is not None])
    texts = tuple(text for chunk in chunks for text in chunk.query_texts)
    rows = labeled_groups.queries.rows if texts else None
    return QueryGroups(
        matrix, labeled_groups.labels, labeled_groups.queries.offsets, labeled_groups.positions, rows, texts, logged,
        tuple(column for column, feature in enumerate(builder.features) if feature.is_category),
    )  # fmt: skip


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
    for batch in state.replay_chunks(log, labeled_groups.queries, chunk_rows, labeled_groups.impression_index):
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


def _select_rows(offsets: Offsets, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Offsets]:
    """Return the mask of the rows of the chosen groups, and the groups' new offsets."""
    sizes = np.diff(offsets)
    return np.repeat(mask, sizes), np.concatenate([[0], np.cumsum(sizes[mask])]).astype(np.int64)


def _count_positives(labels: NDArray[np.float32], offsets: Offsets) -> NDArray[np.int64]:
    """Return (G,) the number of relevant rows of each group; groups may be empty."""
    before = np.concatenate([[0], np.cumsum(labels > 0)])
    return np.asarray(before[offsets[1:]] - before[offsets[:-1]], np.int64)
