"""Training and test groups: which candidates, at which moment, with which labels; and their feature matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.log import Log
from engine.protocols import Retriever
from engine.types import Batch, Matrix, Offsets, Request, Rows
from features.builder import PAIR, FeatureBuilder
from features.replay import Moments
from features.request_text import request_texts
from features.state import BehaviouralState, StateSpec
from models.groups import Groups
from models.labels import LabelSettings, examined, labels
from models.sequences import Sequences


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """G groups of candidates, each as of a moment of the log, with a label a candidate."""

    moments: Moments
    labels: NDArray[np.float32]
    """(N,) aligned with `moments.rows`."""
    relevant: NDArray[np.int64]
    """(G,) how many relevant items there are in all, found among the candidates or not."""
    positions: NDArray[np.int32] | None = None
    """(N,) the places that the candidates were shown at, from 1, -1 where that is not known; None: nowhere."""
    shown: NDArray[np.int64] | None = None
    """(N,) the place of each candidate among all that the log's rankings showed; None: they come from elsewhere."""

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def found(self) -> NDArray[np.bool_]:
        """(G,) whether any candidate is relevant: the groups that a ranker can learn from."""
        found: NDArray[np.bool_] = _positives(self.labels, self.moments.offsets) > 0
        return found

    def only(self, groups: NDArray[np.bool_]) -> Examples:
        """The groups where the (G,) mask is True."""
        moments = self.moments
        sizes = np.diff(moments.offsets)
        rows = np.repeat(groups, sizes)
        kept = Moments(
            before=moments.before[groups],
            at=moments.at[groups],
            person=moments.person[groups],
            offsets=np.concatenate([[0], np.cumsum(sizes[groups])]).astype(np.int64),
            rows=moments.rows[rows],
        )
        positions = None if self.positions is None else self.positions[rows]
        shown = None if self.shown is None else self.shown[rows]
        return Examples(kept, self.labels[rows], self.relevant[groups], positions, shown)


def from_rankings(
    log: Log, first: int, last: int, settings: LabelSettings | None = None, cut: bool = False
) -> Examples:
    """The rankings [first, last) of the log as they were shown, each as of the moment just before it.

    Shown items that the catalogue does not know are left out; with `cut`, so is what was likely not examined, where the
    label settings say so: right for training, wrong for a test.
    """
    settings = settings or LabelSettings()
    rankings = log.rankings
    start, stop = int(rankings.offsets[first]), int(rankings.offsets[last])
    kept = rankings.rows[start:stop] >= 0
    if cut:
        kept &= examined(log, settings.examined_past)[start:stop]
    found = labels(log, settings)[start:stop][kept]
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[rankings.offsets[first : last + 1] - start]
    moments = Moments(
        before=log.places()[len(log.interactions) + first : len(log.interactions) + last],
        at=rankings.at[first:last],
        person=rankings.person[first:last],
        offsets=offsets,
        rows=rankings.rows[start:stop][kept],
    )
    shown = start + np.flatnonzero(kept)
    return Examples(moments, found, _positives(found, offsets), rankings.positions[start:stop][kept], shown)


def from_recall(
    log: Log,
    sequences: Sequences,
    targets: NDArray[np.int64],
    retriever: Retriever,
    k: int,
    depth: int,
    step: Callable[[], None] = lambda: None,
) -> Examples:
    """What the retriever finds for each target's person just before the target, which is the one relevant item.

    targets: places in `sequences`, whose touches must be all those of the log. The retriever must not have learnt from
    them.
    """
    touches = sequences.touch[targets]
    before = log.places()[touches]
    order = np.argsort(before, kind="stable")
    found: list[Rows] = []
    labels: list[NDArray[np.float32]] = []
    for target in targets[order].tolist():
        past = sequences.before(target)
        rows = retriever.retrieve(asked(sequences, past, float(sequences.at[target]), depth), k).rows
        found.append(rows)
        labels.append((rows == sequences.items[target]).astype(np.float32))
        step()
    moments = Moments(
        before=before[order],
        at=log.interactions.at[touches[order]],
        person=log.interactions.person[touches[order]],
        offsets=np.concatenate([[0], np.cumsum([len(rows) for rows in found])]).astype(np.int64),
        rows=np.concatenate([np.empty(0, np.int32), *found]).astype(np.int32),
    )
    return Examples(moments, np.concatenate([np.empty(0, np.float32), *labels]), np.ones(len(order), np.int64))


def asked(sequences: Sequences, past: slice, at: float, depth: int) -> Request:
    """The request of somebody with this past (a slice of the sequences, oldest first)."""
    items = sequences.items[past]
    latest = slice(None, -depth - 1, -1)
    return Request(at=at, history=items[latest], history_at=sequences.at[past][latest], touched=items)


def read_states(log: Log, catalogue: Catalogue, spec: StateSpec, examples: Examples) -> Batch:
    """The batch of all groups, each with the state as of its moment, by one replay of the log."""
    return BehaviouralState(catalogue, spec).replay_log(log, examples.moments)


def groups(log: Log, builder: FeatureBuilder, examples: Examples, served: bool = False) -> Groups:
    """The feature rows and labels of the examples; served: as they were served, where the log has that."""
    out = np.empty((len(examples.labels), len(builder.names)), np.float32)
    made = []
    for chunk in matrices(log, builder, examples, served=served):
        out[chunk.part] = chunk.matrix
        made.append(without_matrix(chunk))
    return assembled(out, examples, made)


class Chunk(NamedTuple):
    """Feature rows of some examples, one after the other."""

    part: slice
    """Which rows of the examples."""
    matrix: Matrix
    texts: tuple[str, ...]
    """What each request says in words; empty where no cross-encoder reads it."""
    served: NDArray[np.bool_] | None
    """Which rows are as they were served."""


def without_matrix(chunk: Chunk) -> Chunk:
    """The chunk without its matrix, once that is put away."""
    return chunk._replace(matrix=np.empty((0, 0), np.float32))


def assembled(matrix: Any, examples: Examples, chunks: Sequence[Chunk]) -> Groups:
    """Groups of a matrix that was made in these chunks."""
    served = None
    if any(chunk.served is not None for chunk in chunks):
        served = np.concatenate([one for one in (chunk.served for chunk in chunks) if one is not None])
    texts = tuple(text for chunk in chunks for text in chunk.texts)
    rows = examples.moments.rows if texts else None
    return Groups(matrix, examples.labels, examples.moments.offsets, examples.positions, rows, texts, served)


def matrices(
    log: Log, builder: FeatureBuilder, examples: Examples, rows: int = 65_536, served: bool = False
) -> Iterator[Chunk]:
    """The examples' feature rows in order, about so many at a time; by one replay of the log.

    served: rows that were stored with their ranking, under the builder's fingerprint, are taken as they are. They know
    what was known then, and what was relative to all candidates, of which the log has only those that were shown.
    """
    state = BehaviouralState(builder.knowledge.catalogue, builder.spec)
    titles, asks_pairs = builder.knowledge.catalogue.titles, PAIR in builder.knowledge.made_by
    done = 0
    for batch in state.replay_chunks(log, examples.moments, rows):
        if len(batch.rows):
            part = slice(done, done + len(batch.rows))
            matrix, kept = builder.matrix(batch), None
            if served and examples.shown is not None and log.rankings.served is not None:
                stored = log.rankings.served
                kept = stored.fill(matrix, examples.shown[part], log.rankings.offsets, builder.fingerprint)
            yield Chunk(part, matrix, tuple(request_texts(batch, titles)) if asks_pairs else (), kept)
            done += len(batch.rows)


def _positives(labels: NDArray[np.float32], offsets: Offsets) -> NDArray[np.int64]:
    """(G,) relevant rows of each group, which may be empty."""
    before = np.concatenate([[0], np.cumsum(labels > 0)])
    return np.asarray(before[offsets[1:]] - before[offsets[:-1]], np.int64)
