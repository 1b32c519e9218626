"""The feature builder: a batch in, the matrix that is ranked out. The only place where a feature is made.

Families are functions of the batch; each names its columns. Position is never a feature, ids never are, and what is
missing is NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from engine.catalogue import Catalogue
from engine.space import Space
from engine.types import Batch, Matrix, Scores, Vector
from features import declared
from features.context import behind_best, places, standings
from features.counters import SMOOTHING, rates
from features.items import ItemKnowledge
from features.late import LATEST, late_scores
from features.profile import TOP, category_scores, distances, table_scores, vector_scores
from features.state import StateSpec

DECAYS = (0.7, 0.93, 1.0)
"""Weight of each older touch relative to the next younger one, for vector profiles."""
TABLE_DECAYS, TABLE_DEPTHS, TABLE_TAGS = (1.0, 0.7, 0.93), (1, 15, 40), ("latest", "0.7", "0.93")
RECENT = 0.8
"""The decay where one will do."""
BM25_LATEST = 10
"""Titles that stand in for a query."""
STANDING_OF = (
    "recall_score", "bm25", "text_1", "text_top", "text_top5", "content_0.93", "content_1", "content_top5", "taste_1",
    "taste_0.93", "ctr_1h", "ctr_24h", "shown_1h", "age_h", "category_lift", "popularity_history", "popularity_all",
    "item_clicks_over_expected_all", "late_best", "late_mean", "late_query",
)  # fmt: skip
"""The columns whose standing within the request is a feature as well."""
PAIR = "pair"
"""The signal of a cross-encoder, in `ItemKnowledge.made_by`."""
Columns = dict[str, Scores]


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """Which families of features there are."""

    families: tuple[str, ...] = (
        "recall", "bm25", "vectors", "late", "pair", "tables", "rates", "ages", "categories", "statistics", "declared",
        "person", "standings",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in FAMILIES:
                raise ValueError(f"no feature family {name!r}; there are {', '.join(FAMILIES)}")


class FeatureBuilder:
    """Builds the matrix of a batch from the state in it and from what was learnt of the items."""

    def __init__(
        self, knowledge: ItemKnowledge, spec: StateSpec, settings: FeatureSettings | None = None,
        category_shares: Vector | None = None,
    ) -> None:  # fmt: skip
        """category_shares: those that the ranker learnt with, where items came since; None: those of the catalogue."""
        self.knowledge = knowledge
        self.spec = spec
        self.settings = settings or FeatureSettings()
        shares = _category_shares(knowledge.catalogue)
        if category_shares is not None:
            shares[: len(category_shares)] = category_shares
        self.category_shares = shares
        self._names = tuple(self.columns(_empty_batch(spec)))

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        return self._names

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered feature names and of the settings they are made with."""
        settled = [
            self._names, self.spec.half_lives_h, self.spec.depth, DECAYS, TABLE_DECAYS, TABLE_DEPTHS, RECENT,
            BM25_LATEST, LATEST, SMOOTHING, TOP, [asdict(counter) for counter in self.spec.counters],
            sorted(self.knowledge.made_by.items()),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(settled).encode()).hexdigest()[:16]

    def columns(self, batch: Batch) -> Columns:
        """Name -> (N,) float32, in order."""
        columns: Columns = {}
        for family in self.settings.families:
            made = FAMILIES[family](self, batch, columns)
            if twice := columns.keys() & made.keys():
                raise ValueError(f"two features are named {', '.join(sorted(twice))}; rename one, such as its table")
            columns |= made
        return columns

    def matrix(self, batch: Batch) -> Matrix:
        """(N, F) float32, NaN where a value is missing."""
        columns = self.columns(batch)
        out = np.empty((len(batch.rows), len(columns)), np.float32)
        for place, column in enumerate(columns.values()):
            out[:, place] = column
        out[batch.rows < 0] = np.nan  # an item that the catalogue does not know has no features at all
        return out

    def set_pairs(self, matrix: Matrix, batch: Batch) -> None:
        """Write the columns of the cross-encoder anew, for the batch's pair scores; the others stay."""
        for name, column in _pair(self, batch, {}).items():
            matrix[:, self._names.index(name)] = np.where(batch.rows >= 0, column, np.nan)


def _recall(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """The dot product that recall orders by, and the place it gives in the request."""
    space = builder.knowledge.space
    scores = np.full(len(batch.rows), np.nan, np.float32)
    for request in range(len(batch.at)):
        rows = slice(int(batch.offsets[request]), int(batch.offsets[request + 1]))
        person = space.person(batch.history[request])
        if person.any():
            # einsum, not BLAS: the same bits whatever the batch
            scores[rows] = np.einsum("nd,d->n", space.targets[batch.rows[rows]], person, optimize=False)
    scores[batch.rows < 0] = np.nan  # or an unknown item would stand in the order with the last item's score
    return {"recall_score": scores, "recall_place": places(scores, batch.offsets)}


def _bm25(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    return {"bm25": builder.knowledge.terms.scores(batch, BM25_LATEST)}


def _vectors(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    columns: Columns = {}
    for name, pair in builder.knowledge.vectors.items():
        tags = [f"{decay:g}" for decay in DECAYS] + ["latest", "top", "top5"]
        columns |= _named(f"{name}_", tags, vector_scores(pair, batch, DECAYS))
    columns["query_text"] = _query_scores(builder.knowledge.space, batch)
    return columns


def _late(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """MaxSim of token vectors; nothing where the items have none."""
    tokens = builder.knowledge.tokens
    return {} if tokens is None else _named("late_", ["latest", "best", "mean", "query"], late_scores(tokens, batch))


def _pair(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    """A cross-encoder's score, and how far it is behind the best of the request; nothing where there is no model."""
    if PAIR not in builder.knowledge.made_by:
        return {}
    scores = batch.pair_scores if len(batch.pair_scores) else np.full(len(batch.rows), np.nan, np.float32)
    return _named("pair_", ["score", "behind"], np.stack([scores, behind_best(scores, batch.offsets)], axis=1))


def _tables(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    columns: Columns = {}
    for name, table in builder.knowledge.tables.items():
        columns |= _named(f"{name}_table_", TABLE_TAGS, table_scores(table, batch, TABLE_DECAYS, TABLE_DEPTHS))
    return columns


def _rates(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    return rates(batch, builder.spec)


def _ages(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    published = np.where(batch.rows >= 0, builder.knowledge.catalogue.published[batch.rows], np.nan)
    return {
        "age_h": batch.age / np.float32(3600),
        "since_touch_h": batch.since_touch / np.float32(3600),
        "published_h": ((batch.at[batch.groups] - published) / 3600).astype(np.float32),
        "shown_before": batch.shown,
    }


def _categories(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    catalogue = builder.knowledge.catalogue
    found = category_scores(
        catalogue.category_codes, catalogue.category_offsets, builder.category_shares, batch, RECENT
    )
    return _named("category_", ["share", "recent", "lift"], found)


def _statistics(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    columns: Columns = {}
    for name, values in builder.knowledge.statistics.items():
        columns |= _named(name, ["", "_distance"], distances(values, batch, RECENT))
    return columns


def _declared(builder: FeatureBuilder, batch: Batch, _: Columns) -> Columns:
    return declared.features(batch, builder.spec.counters)


def _person(_: FeatureBuilder, batch: Batch, __: Columns) -> Columns:
    """The same for all candidates of a request: what the other features are to be read against."""
    since = (batch.at - batch.history_at[:, 0]) / 60 if batch.history_at.shape[1] else np.full(len(batch.at), np.nan)
    pace = batch.history_at[:, :1] - batch.history_at[:, 9:10] if batch.history_at.shape[1] > 9 else None
    person = {
        "touches": np.log1p(batch.touches),
        "since_latest_m": since,
        "pace_10": np.full(len(batch.at), np.nan) if pace is None else np.log1p(np.maximum(pace[:, 0], 0)),
        "candidates": np.log(np.maximum(np.diff(batch.offsets), 1)),
    }
    groups = batch.groups
    return {name: values.astype(np.float32)[groups] for name, values in person.items()}


def _standings(_: FeatureBuilder, batch: Batch, columns: Columns) -> Columns:
    chosen = [name for name in STANDING_OF if name in columns]
    if not chosen:
        return {}
    found = standings(np.stack([columns[name] for name in chosen], axis=1).astype(np.float32), batch.offsets)
    return _named("", [f"{name}_standing" for name in chosen], found)


FAMILIES: dict[str, Callable[[FeatureBuilder, Batch, Columns], Columns]] = {
    "recall": _recall,
    "bm25": _bm25,
    "vectors": _vectors,
    "late": _late,
    "pair": _pair,
    "tables": _tables,
    "rates": _rates,
    "ages": _ages,
    "categories": _categories,
    "statistics": _statistics,
    "declared": _declared,
    "person": _person,
    "standings": _standings,
}


def _named(prefix: str, tags: Iterable[str], found: Matrix) -> Columns:
    return {f"{prefix}{tag}": found[:, place] for place, tag in enumerate(tags)}


def _query_scores(space: Space, batch: Batch) -> Scores:
    """(N,) cosine of the request's embedded query and the candidate; NaN without a query."""
    if batch.query_vectors is None:
        return np.full(len(batch.rows), np.nan, np.float32)
    view = space.view("text")
    targets = space.targets[batch.rows, view.slice] / np.float32(np.sqrt(view.weight))
    scores: Scores = np.einsum("nd,nd->n", targets, batch.query_vectors[batch.groups], optimize=False)
    return scores


def _category_shares(catalogue: Catalogue) -> Vector:
    """(categories,) share of each category in the catalogue, an item's weight split evenly among its own."""
    sizes = np.diff(catalogue.category_offsets)
    weights = np.repeat(1 / np.maximum(sizes, 1), sizes)
    shares = np.bincount(catalogue.category_codes, weights, len(catalogue.categories))
    return np.asarray(shares / max(shares.sum(), 1), np.float32)


def _empty_batch(spec: StateSpec) -> Batch:
    """One request without candidates: enough to learn the names."""
    nothing = np.empty(0, np.float32)
    return Batch(
        at=np.zeros(1),
        rows=np.empty(0, np.int32),
        offsets=np.zeros(2, np.int64),
        history=np.full((1, spec.depth), -1, np.int32),
        history_at=np.full((1, spec.depth), np.nan),
        touches=np.zeros(1, np.int64),
        shown=nothing,
        age=nothing,
        since_touch=nothing,
        counters=np.empty((0, spec.width), np.float32),
        declared=np.empty((0, declared.width(spec.counters)), np.float32),
    )
