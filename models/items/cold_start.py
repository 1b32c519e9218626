"""Cold-start items are added to a fitted item model without another fit, in rows after the existing items.

The linear maps from text and categories to content vectors are fitted from the existing items when a bundle is
written, exactly if there are many more items than dimensions; a new item gets the vectors that training would give it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from feedrank.engine.events.catalogue import Catalogue, merge_fields
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace, unit_rows
from feedrank.engine.types import UNKNOWN_ROW, Matrix, Rows, Scores, Vector
from feedrank.features.bm25 import DOCUMENT, TermWeights
from feedrank.features.item_model import ItemModel, UserItemVectors
from feedrank.features.late_interaction import TokenVectors
from feedrank.models.items.category_factors import category_inputs
from feedrank.models.items.content_views import unit_differences
from feedrank.models.items.growable_arrays import Array, GrowableArrays, splice_ragged, spliced_offsets

CONTENT_VIEWS = ("text", "content", "cca")
"""Views that depend on text and categories only; in all other views a cold-start item is 0."""
ROWS_PER_INPUT = 16
"""Items per input dimension to fit the maps from; the relation is exact, so more do not help."""
MAX_ITERATIONS, TOLERANCE = 50, 1e-4
"""Maximum iterations of a map's fit, and the mean change in vector length at which it stops."""
VectorsByView = Mapping[str, UserItemVectors]
ItemFields = Mapping[str, Mapping[str, FieldValue]]
ContentMaps = Mapping[str, Matrix]
"""`view/side` -> (inputs, width) linear map from content features to vectors, up to their length."""


class ColdStartExtender:
    """Extends the trained item model of a bundle with cold-start items; build it once per bundle."""

    def __init__(self, trained: ItemModel, content_maps: ContentMaps | None = None) -> None:
        """Take the trained item model and its content maps; None: they are fitted when they are needed."""
        self._trained, self._stored_maps = trained, content_maps
        self._arrays = GrowableArrays()

    def extend(
        self, item_model: ItemModel, items: ItemFields, text: Matrix, documents: Sequence[str],
        tokens: TokenVectors | None = None,
    ) -> ItemModel:  # fmt: skip
        """Return the item model with k more items; new items come after the existing ones, in their order.

        item_model: the bundle's, or an earlier result. For an existing item the fields are merged, all that depends on
        its text is computed again, and its behavioural vectors stay. text: (k, d) unit vectors of the documents, (k, 0)
        for zeros. tokens: of the documents, in the item model's dtype. Raises ValueError if sizes or dtypes differ.
        """
        if not items:
            return item_model
        view, k = item_model.space.block("text"), len(items)
        width = view.stop - view.start
        text = text if text.shape[1] else np.zeros((len(text), width), np.float32)
        sizes = {"text vectors": len(text), "documents": len(documents), "token vectors": len(tokens or documents)}
        if set(sizes.values()) != {k} or text.shape[1] != width:
            raise ValueError(f"found {sizes} and {text.shape[1]} dimensions, expected {k} of each and {width}")
        catalogue = merge_catalogue(item_model.catalogue, items)
        rows, pad = catalogue.ids.rows(list(items)), (0, len(catalogue) - len(item_model.catalogue))
        return replace(
            item_model,
            catalogue=catalogue,
            space=self._extend_space(item_model.space, rows, text),
            vectors=self._extend_vectors(item_model.vectors, rows, text, catalogue),
            item_item={
                name: t._replace(offsets=np.pad(t.offsets, pad, "edge")) for name, t in item_model.item_item.items()
            },
            term_weights=self._extend_terms(item_model.term_weights, rows, documents, catalogue),
            item_stats=_extend_statistics(
                item_model.item_stats, rows, catalogue, interaction_count=0, mean_value=self._default_value
            ),
            token_vectors=None
            if item_model.token_vectors is None
            else self._extend_tokens(item_model.token_vectors, rows, tokens),
        )

    def _extend_space(self, space: EmbeddingSpace, rows: Rows, text: Matrix) -> EmbeddingSpace:
        """Set the text block only: a cold-start item is 0 in the behavioural blocks."""
        view, exists, sides = space.block("text"), rows < len(space.item_side), list[Array]()
        for old in (space.item_side, space.user_side):
            values = np.zeros((len(rows), space.dimensions), np.float32)
            values[exists] = old[rows[exists]]
            values[:, view.slice] = text * np.float32(np.sqrt(view.weight))
            sides.append(self._arrays.put_rows(f"space {len(sides)}", old, rows, values))
        return replace(space, item_side=sides[0], user_side=sides[1])

    def _extend_vectors(self, old: VectorsByView, rows: Rows, text: Matrix, catalogue: Catalogue) -> VectorsByView:
        text, columns = text[:, : len(self._text_mean)], self._category_columns(catalogue, rows)
        # row by row: an item gets the same bits whichever other items are added with it
        inputs = [self._content_features(text[i : i + 1], columns[i : i + 1])[0] for i in range(len(rows))]
        vectors = {}
        for name, pair in old.items():
            sides = []
            for side, array in list(pair._asdict().items())[: 1 if pair.item_side is pair.user_side else 2]:
                target_rows = rows if name in CONTENT_VIEWS else rows[rows >= len(array)]
                values = np.zeros((len(target_rows), array.shape[1]), np.float32)
                for index, features in enumerate(inputs if name in CONTENT_VIEWS else ()):
                    vector = features @ self.content_maps[f"{name}/{side}"]  # usually of length 1; almost 0 is set to 0
                    values[index] = unit_rows(vector[None])[0] if np.linalg.norm(vector) > 1e-3 else 0
                if name == "text":
                    values[~np.any(text != 0, axis=1)] = 0
                sides.append(self._arrays.put_rows(f"vectors {name} {side}", array, target_rows, values))
            vectors[name] = UserItemVectors(sides[0], sides[-1])
        return vectors

    def _extend_terms(
        self, old: TermWeights, rows: Rows, documents: Sequence[str], catalogue: Catalogue
    ) -> TermWeights:
        """Weigh the new texts with the fitted idf and mean lengths; new words become terms."""
        texts = {DOCUMENT: documents} | catalogue.field_texts([name for name in old.fields if name != DOCUMENT], rows)
        terms, items = old.weigh_new(texts)

        def put(name: str, before: Array, values: Array) -> Array:
            return self._arrays.put_ragged(f"terms {name}", before, old.offsets, rows, values, items.offsets)

        return replace(
            old,
            terms=terms,
            term_codes=put("codes", old.term_codes, items.codes),
            weights=put("weights", old.weights, items.weights),
            term_counts=put("counts", old.term_counts, items.counts),
            offsets=spliced_offsets(old.offsets, rows, items.offsets),
        )

    def _extend_tokens(self, old: TokenVectors, rows: Rows, tokens: TokenVectors | None) -> TokenVectors:
        tokens = tokens or TokenVectors(old.values[:0], np.zeros(len(rows) + 1, np.int64))
        if tokens.values.dtype != old.values.dtype:
            raise ValueError(f"found token vectors in {tokens.values.dtype}, expected {old.values.dtype}")
        codes = self._arrays.put_ragged("tokens", old.values, old.offsets, rows, tokens.values, tokens.offsets)
        return TokenVectors(codes, spliced_offsets(old.offsets, rows, tokens.offsets), old.projection)

    @cached_property
    def _text_mean(self) -> Vector:
        """Return (d,) the mean text vector of existing items with text; (0,) if text has no weight in the space."""
        text = _text_vectors(self._trained.space)
        has_text = np.any(text != 0, axis=1)
        return np.asarray(text[has_text].mean(axis=0) if has_text.any() else np.zeros(text.shape[1]), np.float32)

    def _content_features(self, text: Matrix, categories: Matrix) -> Matrix:
        """Return (n, d + columns + 1): text centered as in `content_views.center`, categories, and 1."""
        centered = np.zeros_like(text)
        has_text = np.any(text != 0, axis=1)
        centered[has_text] = unit_differences(text[has_text], self._text_mean)
        return np.concatenate([centered, categories, np.ones((len(text), 1), np.float32)], axis=1)

    def _category_columns(self, catalogue: Catalogue, rows: Rows) -> Matrix:
        """Return the (len(rows), columns) categories as in training; new categories have no column."""
        factors, width = self._trained.category_factors, len(self._trained.catalogue.categories)
        columns = category_inputs(catalogue, factors, rows)
        return np.asarray(columns if factors is not None else columns[:, :width], np.float32)

    @cached_property
    def content_maps(self) -> ContentMaps:
        """The content maps of the trained item model, stored ones or fitted now."""
        if self._stored_maps is not None:
            return self._stored_maps
        trained, n = self._trained, len(self._trained.catalogue)
        sample_size = ROWS_PER_INPUT * n_content_inputs(trained)
        rows = np.sort(np.random.default_rng(7).permutation(n)[:sample_size]).astype(np.int32)
        inputs = self._content_features(
            _text_vectors(trained.space)[rows], self._category_columns(trained.catalogue, rows)
        )
        gram = inputs.T.astype(np.float64) @ inputs
        ridge = 1e-6 * max(float(np.trace(gram)) / len(gram), 1.0)  # small: the relation has no noise
        gram[np.diag_indices_from(gram)] += ridge
        cholesky = cho_factor(gram)
        return {
            f"{name}/{side}": _fit_map(inputs, cholesky, vectors[rows])
            for name, pair in trained.vectors.items()
            for side, vectors in pair._asdict().items()
            if name in CONTENT_VIEWS and (side == "user_side" or vectors is not pair.user_side)
        }

    @cached_property
    def _default_value(self) -> float:
        """Return the value of items without values, the overall mean; exact if every interaction has a value."""
        statistics = self._trained.item_stats
        if not len(self._trained.catalogue) or not {"interaction_count", "mean_value"} <= statistics.keys():
            return float("nan")
        weights = np.expm1(statistics["interaction_count"].astype(np.float64)) + 5  # the damping of `item_model`
        return float(np.average(statistics["mean_value"].astype(np.float64), weights=weights))


def update_fields(item_model: ItemModel, items: ItemFields) -> ItemModel:
    """Update fields of existing items that do not change their documents; no text features are computed again."""
    catalogue = merge_catalogue(item_model.catalogue, items)
    statistics = _extend_statistics(item_model.item_stats, catalogue.ids.rows(list(items)), catalogue)
    return replace(item_model, catalogue=catalogue, item_stats=statistics)


def merge_item_fields(catalogue: Catalogue, items: ItemFields) -> dict[str, dict[str, FieldValue]]:
    """Return all fields of these items: those of the catalogue, overwritten by the new ones."""
    merged_fields: dict[str, dict[str, FieldValue]] = {}
    for item, fields in items.items():
        merged_fields[item] = {}
        if (row := catalogue.ids.row(item)) != UNKNOWN_ROW:
            merged_fields[item] |= {"title": catalogue.titles[row], "text": catalogue.texts[row]}
            merged_fields[item] |= {"category": catalogue.category_names(row), "tags": list(catalogue.tags[row])}
            if not np.isnan(catalogue.published[row]):
                merged_fields[item]["published"] = float(round(catalogue.published[row] * 1000))
            merged_fields[item] |= catalogue.fields[row]
        merged_fields[item] = merge_fields(merged_fields[item], fields)
    return merged_fields


def merge_catalogue(catalogue: Catalogue, items: ItemFields) -> Catalogue:
    """Return the catalogue with these items: fields of existing items are merged in place, new items are appended.

    No row or category code changes; new categories get codes after the existing ones.
    """
    incoming = Catalogue.from_items(merge_item_fields(catalogue, items))
    ids, categories = deepcopy(catalogue.ids), deepcopy(catalogue.categories)
    rows = np.array([ids.add(item) for item in items], np.int32)
    codes = np.array([categories.add(name) for name in incoming.categories], np.int32)[incoming.category_codes]
    new_count = len(ids) - len(catalogue)
    published = np.concatenate([catalogue.published, np.empty(new_count)])
    published[rows] = incoming.published
    columns: dict[str, Any] = {}
    for name in ("titles", "texts", "tags", "fields"):
        column = [*getattr(catalogue, name), *[None] * new_count]
        for row, value in zip(rows.tolist(), getattr(incoming, name), strict=True):
            column[row] = value
        columns[name] = tuple(column)
    offsets, bounds = catalogue.category_offsets, incoming.category_offsets
    columns["category_codes"] = splice_ragged(catalogue.category_codes, offsets, rows, codes, bounds)
    columns["category_offsets"] = spliced_offsets(offsets, rows, bounds)
    return Catalogue(ids=ids, published=published, categories=categories, **columns)


def _extend_statistics(
    old: Mapping[str, Scores], rows: Rows, catalogue: Catalogue, **defaults: float
) -> dict[str, Scores]:
    """Extend the item statistics to new items; defaults: the values of an item without interactions."""
    statistics = {}
    for name, column in old.items():
        new_values = np.full(len(catalogue) - len(column), defaults.get(name, np.nan), np.float32)
        statistics[name] = np.concatenate([column, new_values])
        if name == "published":
            statistics[name][rows] = catalogue.published[rows] / 86_400
    return statistics


def n_content_inputs(item_model: ItemModel) -> int:
    """Return the number of content features: text dimensions, category columns, and 1."""
    factors, text = item_model.category_factors, item_model.space.block("text")
    columns = len(item_model.catalogue.categories) if factors is None else factors.shape[1]
    return (text.stop - text.start if text.weight > 0 else 0) + columns + 1


def _text_vectors(space: EmbeddingSpace) -> Matrix:
    """Recover (n, d) item text vectors from the embedding space; (n, 0) if text has no weight."""
    view = space.block("text")
    width = view.stop - view.start if view.weight > 0 else 0
    return space.item_side[:, view.start : view.start + width] / np.float32(np.sqrt(view.weight) or 1)


def _fit_map(inputs: Matrix, factor: Any, vectors: Matrix) -> Matrix:
    """Fit the linear map whose results point along these unit vectors; lengths are estimated by alternation."""
    weights = np.zeros((inputs.shape[1], vectors.shape[1]), np.float32)
    lengths = np.ones(len(vectors), np.float32)
    for _ in range(MAX_ITERATIONS if vectors.any() else 0):
        weights = cho_solve(factor, (inputs.T @ (vectors * lengths[:, None])).astype(np.float64)).astype(np.float32)
        previous, lengths = lengths, np.einsum("nd,nd->n", inputs @ weights, vectors)
        lengths /= max(float(lengths.mean()), 1e-9)
        if float(np.abs(lengths - previous).mean()) < TOLERANCE:
            break
    return weights
