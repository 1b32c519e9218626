"""The seams: one-method protocols. A back end is any class of the right shape (checked by `engine.testing`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.types import Batch, Candidates, Matrix, Request, Rows, Scores, Times, Vector

if TYPE_CHECKING:
    from engine.events import Event
    from engine.log import Log


class VectorIndex(Protocol):
    """Nearest neighbours of a vector."""

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k best rows (all, where there are fewer), best first, and their scores."""
        ...


class WholeIndex(VectorIndex, Protocol):
    """Looks at all vectors, and so at any part of them."""

    def search_within(self, rows: Rows, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k best of the given rows, best first, and their scores."""
        ...


class Retriever(Protocol):
    """Narrows the catalogue to candidates."""

    def retrieve(self, request: Request, k: int) -> Candidates:
        """At most k candidates that pass the request's filters: k of them, or all that there are."""
        ...


class Featurizer(Protocol):
    """Makes the feature matrix; the only place where a feature is made."""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered feature list; a ranker refuses another one."""
        ...

    def matrix(self, batch: Batch) -> Matrix:
        """(N candidate rows, F features), float32, NaN where a value is missing."""
        ...

    def set_pairs(self, matrix: Matrix, batch: Batch) -> None:
        """Write the columns that come of the batch's pair scores anew; nothing where there are none."""
        ...


class Ranker(Protocol):
    """Scores feature rows."""

    def score(self, features: Matrix) -> Scores:
        """(N,) scores, higher is better."""
        ...


class PairScorer(Protocol):
    """Scores (text, item) pairs, as a cross-encoder does."""

    def score(self, texts: Sequence[str], rows: Rows) -> Scores:
        """(N,) one score a pair."""
        ...


class ScoreCache(Protocol):
    """Keeps what a pair scorer gave."""

    def scores(self, text: str, rows: Rows) -> Scores:
        """(len(rows),) what is known of the pairs of a text and items, NaN where nothing is."""
        ...

    def add(self, text: str, rows: Rows, scores: Scores) -> None:
        """Remember scores; NaN says nothing."""
        ...


class State(Protocol):
    """What people did, as of now."""

    def touched(self, person: int) -> tuple[Rows, Times]:
        """Every touch of a person, latest first, and its time; nothing for people not met."""
        ...

    def advance(self, log: Log) -> None:
        """Observe all that happened in a log, in its order."""
        ...

    def forget(self, person: int) -> None:
        """Let go of all that a person did; NOBODY, and people not met, have done nothing."""
        ...

    def read(self, requests: Sequence[Request], candidates: Sequence[Rows]) -> Batch:
        """The batch, with the state as of now; nothing is observed."""
        ...


class EventLog(Protocol):
    """An append-only log of events."""

    def append(self, events: Iterable[Event]) -> list[bool]:
        """Write all or none; for each event, True where it was new, False where its id was known."""
        ...

    def exchange(self, events: Sequence[Event], since: int) -> Exchange:
        """As `append`; and what others wrote from after offset `since` up to these events, in the same step."""
        ...

    def read(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        """(offset, event) in the order of writing, from after offset `since`."""
        ...

    def find(self, event_id: str) -> Event | None:
        """The event of that id; None where there is none."""
        ...

    def forget(self, user: str, note: Event) -> int:
        """Delete all that is kept of one person, and write the note in its place; how many events went."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a writer gets for its events."""

    fresh: list[bool]
    """For each event, whether it was new."""
    before: list[Event]
    """What others wrote before them, that the writer had not read."""
    offset: int
    """Of the last event that is now known to the writer."""
