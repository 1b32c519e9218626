"""Shared value types: frozen dataclasses that hold columns (arrays), not lists of objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.field_reads import FieldReads

Rows = NDArray[np.int32]
"""Item (or user) rows; a row is the index of an id in its `Vocabulary`."""
Scores = NDArray[np.float32]
"""One score per row; higher is better everywhere."""
Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Times = NDArray[np.float64]
"""Unix seconds."""
Offsets = NDArray[np.int64]
"""Group g of a flattened column is the slice `[offsets[g], offsets[g + 1])`."""

UNKNOWN_ROW = -1
"""The row of an unknown user or item."""


def empty_rows() -> Rows:
    """Return an empty column of rows."""
    return np.empty(0, np.int32)


class QueryVectors(NamedTuple):
    """Embeddings of a request's query text; a field is None where no model computes it."""

    text: Vector | None = None
    """(text dimensions,)"""
    tokens: Matrix | None = None
    """(tokens, token dimensions)"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Constrains which items may be recommended, by item rows and category codes (`FilterSpec` has the ids)."""

    include_seen: bool = False
    """True: items that the user has interacted with may be recommended again."""
    categories: NDArray[np.int32] | None = None
    """Only these category codes; None: all."""
    allow: Rows | None = None
    """Only these items; None: all."""
    deny: Rows = field(default_factory=empty_rows)
    """None of these items."""
    include_disliked: bool = False
    """True: items that the user dislikes may be recommended."""


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A recommendation request resolved from ids to rows. Raises ValueError where history lengths differ."""

    at: float
    """Time of the request, unix seconds."""
    user: int = UNKNOWN_ROW
    """Row of the visitor: of the user, else of the session."""
    history: Rows = field(default_factory=empty_rows)
    """Item rows of the user's interactions, latest first."""
    history_at: Times = field(default_factory=lambda: np.empty(0))
    """Time of each interaction, unix seconds, aligned with `history`; NaN: unknown."""
    interacted: Rows = field(default_factory=empty_rows)
    """All items that the user ever interacted with, in no guaranteed order (for `Filters.include_seen`)."""
    query: str = ""
    query_vector: Vector | None = None
    """(text dimensions,) the query embedding."""
    query_tokens: Matrix | None = None
    """(tokens, token dimensions) the token embeddings of the query, for late interaction."""
    filters: Filters = Filters()
    disliked: Rows = field(default_factory=empty_rows)
    """All items that the user dislikes (for `Filters.include_disliked`)."""
    session: int = UNKNOWN_ROW
    """Row of the visitor without a name who is the user too, as the request names both; UNKNOWN_ROW: none."""
    session_id: str | None = None
    """The session that the request names."""
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    """The request's fields, as its ranking event has them, for declared features."""
    item_fields: Mapping[int, Mapping[str, FieldValue]] = field(default_factory=dict)
    """Item row -> the fields that the request brought for it."""
    unknown_item_fields: tuple[Mapping[str, FieldValue], ...] = ()
    """The fields that the request brought for each unknown item among its items, in their order."""

    def __post_init__(self) -> None:
        if len(self.history) != len(self.history_at):
            raise ValueError(f"history has {len(self.history)} items but {len(self.history_at)} times")

    def list_fields(self, rows: Rows) -> list[Mapping[str, FieldValue]]:
        """Return the fields that the request brought for these rows; unknown items are in the order of the request."""
        unknown = iter(self.unknown_item_fields)
        return [next(unknown, {}) if row == UNKNOWN_ROW else self.item_fields.get(row, {}) for row in rows.tolist()]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of one request, best first. Raises ValueError where the shapes differ."""

    rows: Rows
    scores: Scores
    source: str
    """The name of the retriever that returned them."""

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape:
            raise ValueError(f"{self.rows.shape} rows but {self.scores.shape} scores")


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of feature computation: requests, their flattened candidates, and the state at each request's time.

    R requests, N candidate rows, H history slots, C counters. Raises ValueError where the lengths do not match.
    """

    at: Times
    """(R,) unix seconds."""
    rows: Rows
    """(N,) candidate item rows, grouped by request."""
    offsets: Offsets
    """(R + 1,) offsets of each request's candidates in `rows`."""
    history: Rows
    """(R, H) item rows of the history, latest first; UNKNOWN_ROW in empty slots."""
    history_at: Times
    """(R, H) unix seconds; NaN in empty slots."""
    interaction_count: NDArray[np.int64]
    """(R,) total number of the user's interactions."""
    impressions: Scores
    """(N,) how many recent rankings showed this item to this user."""
    item_age: Scores
    """(N,) seconds since the item first appeared in the log; NaN where it never did."""
    since_interaction: Scores
    """(N,) seconds since any user's last interaction with the item; NaN where there is none."""
    counters: Matrix
    """(N, C) decayed counters of impressions and interactions, per item, category and overall."""
    queries: tuple[str, ...] = ()
    """(R,) query texts; empty tuple: no request has a query."""
    query_vectors: Matrix | None = None
    """(R, text dimensions) query embeddings; a row of NaN where a request has no query."""
    custom_counters: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(N, D) numerators and denominators of the custom counters in the config; (0, 0): none are configured."""
    query_tokens: tuple[Matrix | None, ...] = ()
    """(R,) token embeddings of each request's query; empty tuple: no request has any."""
    cross_encoder_scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    """(N,) cross-encoder scores of (request text, item); NaN where not computed; (0,): there is no cross-encoder."""
    disliked: Rows = field(default_factory=lambda: np.empty((0, 0), np.int32))
    """(R, D) item rows of the user's latest dislikes, latest first; UNKNOWN_ROW in empty slots; (0, 0): not read."""
    disliked_at: Times = field(default_factory=lambda: np.empty((0, 0)))
    """(R, D) unix seconds; NaN in empty slots."""
    dislikes: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(N, 2 L) decayed dislikes of the item per half-life, then of all items; (0, 0): not read."""
    fields: FieldReads | None = None
    """Values of declared fields and counts by them; None: no feature is declared."""

    def __post_init__(self) -> None:
        requests, rows = len(self.at), len(self.rows)
        if len(self.offsets) != requests + 1 or self.offsets[-1] != rows:
            raise ValueError(f"{len(self.offsets)} offsets do not span {rows} rows of {requests} requests")
        if len(self.history) != requests or len(self.counters) != rows or len(self.impressions) != rows:
            raise ValueError("history must have one row per request, impressions and counters one per candidate")
        if len(self.cross_encoder_scores) not in (0, rows):
            raise ValueError(f"{len(self.cross_encoder_scores)} pair scores for {rows} rows")
        if self.queries and len(self.queries) != requests:
            raise ValueError(f"{len(self.queries)} queries for {requests} requests")

    @property
    def request_index(self) -> NDArray[np.int32]:
        """(N,) index of the request that each candidate row belongs to."""
        return np.repeat(np.arange(len(self.at), dtype=np.int32), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranked candidates of one request, best first."""

    candidates: Candidates
    """The candidates in recall order."""
    order: NDArray[np.int64]
    """(N,) indices into `candidates`, best first."""
    scores: Scores
    """(N,) ranker scores in the final order."""
    features: Matrix
    """(N, F) the scored feature rows in the final order; (0, F): nothing was scored."""
    cross_encoder_scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    """(N,) cross-encoder scores in recall order; (0,): there is no cross-encoder."""

    @property
    def rows(self) -> Rows:
        """(N,) candidate item rows in the final order."""
        return self.candidates.rows[self.order]

    def take(self, positions: NDArray[np.int64]) -> Ranking:
        """Select the candidates at these positions of the final order."""
        features = self.features[positions] if len(self.features) else self.features
        return Ranking(
            self.candidates, self.order[positions], self.scores[positions], features, self.cross_encoder_scores
        )


def in_recall_order(candidates: Candidates, n_features: int) -> Ranking:
    """Build a ranking that keeps the recall order and has no feature rows. `n_features`: its width."""
    return Ranking(
        candidates, np.arange(len(candidates.rows)), candidates.scores, np.empty((0, n_features), np.float32)
    )
