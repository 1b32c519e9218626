"""Values that cross seams: frozen dataclasses of columns, never lists of objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
"""Item (or person) rows; a row is the place of an id in its `Ids`."""
Scores = NDArray[np.float32]
"""One score a row; higher is better, everywhere."""
Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Times = NDArray[np.float64]
"""Unix seconds."""
Offsets = NDArray[np.int64]
"""Group g of a flattened column is `[offsets[g], offsets[g + 1])`."""

NOBODY = -1
"""The row of a person, or of an item, that is not known."""


def no_rows() -> Rows:
    """An empty column of rows."""
    return np.empty(0, np.int32)


class QueryVectors(NamedTuple):
    """What models make of a request's text."""

    text: Vector | None = None
    """(text dimensions,)"""
    tokens: Matrix | None = None
    """(tokens, token dimensions)"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which items may come back. Rows and category codes, never ids."""

    seen: bool = False
    """May items that the person has touched before come back?"""
    categories: NDArray[np.int32] | None = None
    """Only these category codes; None: all."""
    allow: Rows | None = None
    """Only these items; None: all."""
    deny: Rows = field(default_factory=no_rows)
    """None of these items."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question for a feed, resolved to rows."""

    at: float
    """When it is asked, unix seconds."""
    person: int = NOBODY
    history: Rows = field(default_factory=no_rows)
    """Item rows the person touched, latest first."""
    history_at: Times = field(default_factory=lambda: np.empty(0))
    """When each was touched, unix seconds, aligned with `history`."""
    touched: Rows = field(default_factory=no_rows)
    """Every item the person ever touched, in no promised order (for the `seen` filter)."""
    query: str = ""
    query_vector: Vector | None = None
    """The embedded query, shape (text dimensions,)."""
    query_tokens: Matrix | None = None
    """(tokens, token dimensions) the query's token vectors, for late interaction."""
    filters: Filters = Filters()

    def __post_init__(self) -> None:
        if len(self.history) != len(self.history_at):
            raise ValueError(f"{len(self.history)} items in the history but {len(self.history_at)} times")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What recall found for one request, best first."""

    rows: Rows
    scores: Scores
    source: str
    """Which retriever found them."""

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape:
            raise ValueError(f"{self.rows.shape} rows but {self.scores.shape} scores")


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests with their candidate rows, flattened, and the state as read at each request's moment.

    R requests, N candidate rows, H history slots, C counters.
    """

    at: Times
    """(R,) unix seconds."""
    rows: Rows
    """(N,) candidate item rows, request after request."""
    offsets: Offsets
    """(R + 1,) bounds of each request's candidates in `rows`."""
    history: Rows
    """(R, H) latest first, NOBODY where there is none."""
    history_at: Times
    """(R, H) unix seconds, NaN where there is none."""
    touches: NDArray[np.int64]
    """(R,) how many touches the person has in all."""
    shown: Scores
    """(N,) how often this person was shown this item lately, in rankings."""
    age: Scores
    """(N,) seconds since the log first knew the item, NaN where it does not."""
    since_touch: Scores
    """(N,) seconds since anybody touched the item, NaN where nobody has."""
    counters: Matrix
    """(N, C) decayed counters: shown and touched, of the item, its categories and everything."""
    queries: tuple[str, ...] = ()
    """(R,) request texts; empty tuple: no request has one."""
    query_vectors: Matrix | None = None
    """(R, text dimensions); rows of NaN where a request has no query."""
    declared: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(N, D) the parts of the counters that the config declares; (0, 0): none are declared."""
    query_tokens: tuple[Matrix | None, ...] = ()
    """(R,) token vectors of each request's query; empty tuple: no request has one."""
    pair_scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    """(N,) what a cross-encoder gives request text and item, NaN where it was not asked; (0,): nowhere."""

    def __post_init__(self) -> None:
        requests, rows = len(self.at), len(self.rows)
        if len(self.offsets) != requests + 1 or self.offsets[-1] != rows:
            raise ValueError(f"offsets of {len(self.offsets)} do not span {rows} rows of {requests} requests")
        if len(self.history) != requests or len(self.counters) != rows or len(self.shown) != rows:
            raise ValueError("history, shown and counters must have one row a request and one a candidate")
        if len(self.pair_scores) not in (0, rows):
            raise ValueError(f"{len(self.pair_scores)} pair scores for {rows} rows")
        if self.queries and len(self.queries) != requests:
            raise ValueError(f"{len(self.queries)} queries for {requests} requests")

    @property
    def groups(self) -> NDArray[np.int32]:
        """(N,) the request each candidate row belongs to."""
        return np.repeat(np.arange(len(self.at), dtype=np.int32), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class Ranking:
    """One request's candidates in their final order, best first."""

    found: Candidates
    """The candidates as recall had them."""
    order: NDArray[np.int64]
    """(N,) their places there, best first."""
    scores: Scores
    """(N,) in the final order."""
    features: Matrix
    """(N, F) the feature rows that were scored, in the final order; (0, F): none were."""
    pairs: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    """(N,) pair scores in the order of recall; (0,): there is one phase."""

    @property
    def rows(self) -> Rows:
        """(N,) the candidates in the final order."""
        return self.found.rows[self.order]

    def at(self, places: NDArray[np.int64]) -> Ranking:
        """The candidates at these places of the final order."""
        features = self.features[places] if len(self.features) else self.features
        return Ranking(self.found, self.order[places], self.scores[places], features, self.pairs)


def in_found_order(found: Candidates, features: int) -> Ranking:
    """Candidates as recall had them, without feature rows."""
    return Ranking(found, np.arange(len(found.rows)), found.scores, np.empty((0, features), np.float32))
