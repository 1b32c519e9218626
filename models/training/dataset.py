"""Labelled query groups: the candidates of a request, its point in time, the labels and the feature matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import Log
from feedrank.engine.protocols import Retriever
from feedrank.engine.types import Batch, Matrix, Offsets, Request, Rows
from feedrank.features.builder import PAIR, FeatureBuilder
from feedrank.features.replay import Moments
from feedrank.features.request_text import request_texts
from feedrank.features.state import BehaviouralState, StateSpec
from feedrank.models.items.user_histories import Sequences
from feedrank.models.training.labels import LabelSettings, examined, labels
from feedrank.models.training.query_groups import Groups


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """G groups of candidates, each with a point in time of the log and one label per candidate."""

    moments: Moments
    labels: NDArray[np.float32]
    """(N,) aligned with `queries.rows`."""
    relevant: NDArray[np.int64]
    """(G,) number of relevant items, whether among the candidates or not."""
    positions: NDArray[np.int32] | None = None
    """(N,) logged positions from 1; -1: unknown; None: the candidates were not shown."""
    shown: NDArray[np.int64] | None = None
    """(N,) index of each candidate among all impressions of the log; None: they are not impressions."""

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Return (G,) True for groups with a relevant candidate; a ranker can learn from these only."""
        positive: NDArray[np.bool_] = _positives(self.labels, self.moments.offsets) > 0
        return positive

    def only(self, groups: NDArray[np.bool_]) -> Examples:
        """Return the groups where the (G,) mask is True."""
        queries = self.moments
        sizes = np.diff(queries.offsets)
        rows = np.repeat(groups, sizes)
        kept_queries = Moments(
            before=queries.before[groups],
            at=queries.at[groups],
            person=queries.person[groups],
            offsets=np.concatenate([[0], np.cumsum(sizes[groups])]).astype(np.int64),
            rows=queries.rows[rows],
        )
        positions = None if self.positions is None else self.positions[rows]
        impression_index = None if self.shown is None else self.shown[rows]
        return Examples(kept_queries, self.labels[rows], self.relevant[groups], positions, impression_index)


def from_rankings(
    log: Log, first: int, last: int, settings: LabelSettings | None = None, cut: bool = False
) -> Examples:
    """Build groups from the impressions of rankings [first, last) of the log, as of the moment just before each.

    Items that are missing in the catalogue are left out. drop_unexamined: leave out impressions that were likely not
    examined, by `LabelSettings.examination_window`. Use it for training, never for a test.
    """
    settings = settings or LabelSettings()
    rankings = log.rankings
    start, stop = int(rankings.offsets[first]), int(rankings.offsets[last])
    kept = rankings.rows[start:stop] >= 0
    if cut:
        kept &= examined(log, settings.examined_past)[start:stop]
    kept_labels = labels(log, settings)[start:stop][kept]
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[rankings.offsets[first : last + 1] - start]
    queries = Moments(
        before=log.places()[len(log.interactions) + first : len(log.interactions) + last],
        at=rankings.at[first:last],
        person=rankings.person[first:last],
        offsets=offsets,
        rows=rankings.rows[start:stop][kept],
    )
    indices = start + np.flatnonzero(kept)
    return Examples(
        queries, kept_labels, _positives(kept_labels, offsets), rankings.positions[start:stop][kept], indices
    )


def from_recall(
    log: Log,
    sequences: Sequences,
    targets: NDArray[np.int64],
    retriever: Retriever,
    k: int,
    depth: int,
    step: Callable[[], None] = lambda: None,
) -> Examples:
    """Build groups from the retriever's k candidates just before each target interaction, the only relevant item.

    targets: indices into `histories`, which must hold all interactions of the log. The retriever must not be fitted on
    the targets. on_group: called after each group.
    """
    interactions = sequences.touch[targets]
    before = log.places()[interactions]
    order = np.argsort(before, kind="stable")
    candidates: list[Rows] = []
    labels: list[NDArray[np.float32]] = []
    for target in targets[order].tolist():
        past = sequences.before(target)
        rows = retriever.retrieve(asked(sequences, past, float(sequences.at[target]), depth), k).rows
        candidates.append(rows)
        labels.append((rows == sequences.items[target]).astype(np.float32))
        step()
    queries = Moments(
        before=before[order],
        at=log.interactions.at[interactions[order]],
        person=log.interactions.person[interactions[order]],
        offsets=np.concatenate([[0], np.cumsum([len(rows) for rows in candidates])]).astype(np.int64),
        rows=np.concatenate([np.empty(0, np.int32), *candidates]).astype(np.int32),
    )
    return Examples(queries, np.concatenate([np.empty(0, np.float32), *labels]), np.ones(len(order), np.int64))


def asked(sequences: Sequences, past: slice, at: float, depth: int) -> Request:
    """Build the request of a user with this past (a slice of the histories, oldest first)."""
    items = sequences.items[past]
    latest = slice(None, -depth - 1, -1)
    return Request(at=at, history=items[latest], history_at=sequences.at[past][latest], touched=items)


def read_states(log: Log, catalogue: Catalogue, spec: StateSpec, examples: Examples) -> Batch:
    """Return the batch of all groups with point-in-time states, by one replay of the log."""
    return BehaviouralState(catalogue, spec).replay_log(log, examples.moments)


def groups(log: Log, builder: FeatureBuilder, examples: Examples, served: bool = False) -> Groups:
    """Return features and labels of the groups; use_logged_features: take logged features where there are any."""
    out = np.empty((len(examples.labels), len(builder.names)), np.float32)
    chunks = []
    for chunk in matrices(log, builder, examples, served=served):
        out[chunk.part] = chunk.matrix
        chunks.append(without_matrix(chunk))
    return assembled(out, examples, chunks)


class Chunk(NamedTuple):
    """Feature rows of consecutive groups."""

    part: slice
    """Range of rows within all groups."""
    matrix: Matrix
    texts: tuple[str, ...]
    """Text of each request; empty without a cross-encoder."""
    served: NDArray[np.bool_] | None
    """True for rows that are logged features."""


def without_matrix(chunk: Chunk) -> Chunk:
    """Return the chunk without its matrix, to free memory."""
    return chunk._replace(matrix=np.empty((0, 0), np.float32))


def assembled(matrix: Any, examples: Examples, chunks: Sequence[Chunk]) -> Groups:
    """Build query groups from a matrix and the chunks that filled it."""
    logged = None
    if any(chunk.served is not None for chunk in chunks):
        logged = np.concatenate([mask for mask in (chunk.served for chunk in chunks) if mask is not None])
    texts = tuple(text for chunk in chunks for text in chunk.texts)
    rows = examples.moments.rows if texts else None
    return Groups(matrix, examples.labels, examples.moments.offsets, examples.positions, rows, texts, logged)


def matrices(
    log: Log, builder: FeatureBuilder, examples: Examples, rows: int = 65_536, served: bool = False
) -> Iterator[Chunk]:
    """Yield the feature rows of the groups in order, about `chunk_rows` at a time, by one replay of the log.

    use_logged_features: take features that were logged with the ranking under the builder's fingerprint. They have the
    values of that time, and listwise features over all candidates, of which the log keeps only the impressions.
    """
    state = BehaviouralState(builder.knowledge.catalogue, builder.spec)
    titles, needs_texts = builder.knowledge.catalogue.titles, PAIR in builder.knowledge.made_by
    rows_done = 0
    for batch in state.replay_chunks(log, examples.moments, rows):
        if len(batch.rows):
            row_range = slice(rows_done, rows_done + len(batch.rows))
            matrix, logged = builder.matrix(batch), None
            if served and examples.shown is not None and log.rankings.served is not None:
                stored = log.rankings.served
                logged = stored.fill(matrix, examples.shown[row_range], log.rankings.offsets, builder.fingerprint)
            yield Chunk(row_range, matrix, tuple(request_texts(batch, titles)) if needs_texts else (), logged)
            rows_done += len(batch.rows)


def _positives(labels: NDArray[np.float32], offsets: Offsets) -> NDArray[np.int64]:
    """Return (G,) the number of relevant rows of each group; groups may be empty."""
    before = np.concatenate([[0], np.cumsum(labels > 0)])
    return np.asarray(before[offsets[1:]] - before[offsets[:-1]], np.int64)
