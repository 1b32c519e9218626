"""The extension points: small protocols that a back end implements by shape; `feedrank.engine.testing` checks one.

A server calls retrievers, indexes, featurizers and rankers from several threads at once; only a state is guarded by a
lock. So their methods must not keep what belongs to one request in the object.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from feedrank.engine.feature import Feature
from feedrank.engine.types import UNKNOWN_ROW, Batch, Candidates, Matrix, ResolvedRequest, Rows, Scores, Times, Vector

if TYPE_CHECKING:
    from feedrank.engine.events.event_table import EventTable
    from feedrank.engine.events.events import Event
    from feedrank.engine.events.field_forms import Forms
    from feedrank.engine.events.vocabulary import Vocabulary


class VectorIndex(Protocol):
    """Finds the nearest neighbours of a vector.

    The config names a class of the user's own with `[index] kind = "package.module:Class"`. It is called as
    `Class(vectors, metric, **arguments)`: (n, d) float32 item vectors, one of "dot", "cosine" and "euclidean", and the
    table `[index.arguments]`. A row is the index of an item in `vectors`. Scores are float32, and higher is better.
    """

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the rows and scores of the k nearest items (all, if there are fewer), best first."""
        ...


class SavedVectorIndex(VectorIndex, Protocol):
    """A vector index of the user's own that is built once, in training, and kept with the bundle.

    Each server loads it from there. An index without these two methods is built again whenever a server starts.
    """

    def save(self, folder: Path) -> None:
        """Write at least one file into this empty folder. The folder moves later, so store no absolute paths."""
        ...

    @classmethod
    def load(cls, folder: Path, vectors: Matrix, metric: str, **arguments: Any) -> Self:
        """Return the index that was saved in a folder; the other arguments are those that it was built with.

        vectors: (n, d) the same vectors, which need not be saved again; do not change them.
        """
        ...


class ScannableIndex(VectorIndex, Protocol):
    """A vector index that scans all vectors, so it can also search a subset of the rows."""

    def search_subset(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """Return the k nearest of the given rows and their scores, best first."""
        ...


class Retriever(Protocol):
    """Selects candidates from the catalogue."""

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        """Return k candidates that pass the request's filters, or all of them if there are fewer."""
        ...


class Featurizer(Protocol):
    """Computes the feature matrix; features are computed nowhere else."""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        ...

    @property
    def features(self) -> tuple[Feature, ...]:
        """Feature records, in column order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered feature list; a ranker rejects features with another fingerprint."""
        ...

    def matrix(self, batch: Batch) -> Matrix:
        """Compute the (N candidates, F features) float32 matrix; NaN where a value is missing."""
        ...

    def set_cross_encoder_features(self, matrix: Matrix, batch: Batch) -> None:
        """Overwrite the columns derived from `batch.cross_encoder_scores`; do nothing if there are none."""
        ...


class Ranker(Protocol):
    """Scores feature rows."""

    def score(self, features: Matrix) -> Scores:
        """Return (N,) scores; higher is better."""
        ...


class CrossEncoderScorer(Protocol):
    """Scores (text, item) pairs with a cross-encoder."""

    def score(self, texts: Sequence[str], rows: Rows) -> Scores:
        """Return (N,) scores, one per pair of `texts[i]` and `rows[i]`."""
        ...


class CrossEncoderScoreCache(Protocol):
    """Caches cross-encoder scores."""

    def scores(self, text: str, rows: Rows) -> Scores:
        """Return the (len(rows),) cached scores of a text with each item; NaN where a pair is not cached."""
        ...

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Store scores; NaN values are ignored."""
        ...

    def forget(self) -> None:
        """Drop what is kept in memory, since some of it may be of a user who was erased."""
        ...


class State(Protocol):
    """The current behavioural state: user histories and counters.

    It knows items that the catalogue does not have yet; their rows come after those of the catalogue.
    """

    @property
    def items(self) -> Vocabulary:
        """Return the ids of all items by row; `advance` expects new ones here before their events."""
        ...

    @property
    def item_fields(self) -> tuple[str, ...]:
        """Return the names of the item fields by whose values the state counts."""
        ...

    forms: Forms | None
    """The forms of declared fields that tables for `advance` must have; None: no feature is declared."""

    def history(self, user: int) -> tuple[Rows, Times]:
        """Return the item rows and times of all interactions of a user, latest first; empty for an unknown user."""
        ...

    def disliked(self, user: int, session: int = UNKNOWN_ROW) -> Rows:
        """Return the items that a user dislikes; empty for an unknown user.

        session: row of the visitor without a name who is the user too; UNKNOWN_ROW: none.
        """
        ...

    def user_version(self, user: int) -> Hashable:
        """Return a value that changes whenever `history` or `disliked` of a user change."""
        ...

    def advance(self, log: EventTable) -> None:
        """Apply all events of a table, in its order."""
        ...

    def observe_ranking(self, at: float, user: int, session: int, rows: Rows) -> None:
        """Apply one ranking that showed these items, exactly as `advance` does. at: unix seconds.

        session: row of the visitor without a name who turns out to be the user; UNKNOWN_ROW: none.
        """
        ...

    def erase_user(self, user: int) -> None:
        """Erase all interactions of a user; does nothing for UNKNOWN_ROW and for unknown users."""
        ...

    def read(self, requests: Sequence[ResolvedRequest], candidates: Sequence[Rows]) -> Batch:
        """Build the feature input of these requests from the current state, which does not change."""
        ...


class EventLog(Protocol):
    """An append-only log of events."""

    def append(self, events: Iterable[Event]) -> list[bool]:
        """Write all events or none. Return per event: True if it was new, False if its id already existed."""
        ...

    def record(self, events: Sequence[Event], now_ms: int, checked: bool = False) -> list[bool]:
        """Write all events or none, each with the moment of the write as its `received`; return as `append` does.

        The moment is not before the effective time of any earlier event, unless that is more than a day ahead of the
        clock `now_ms`, in epoch milliseconds. checked: the events can surely be read back; otherwise the log must
        refuse one that can't.
        """
        ...

    def read(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) in write order, for all events after offset `since`."""
        ...

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, or None."""
        ...

    def erase_user(self, user: str, tombstone_id: str, at_ms: int) -> int:
        """Delete all events of one user, and return their number. A tombstone stays, which names nobody.

        tombstone_id: its event id, a random one. at_ms: epoch milliseconds.
        """
        ...
