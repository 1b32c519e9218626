"""Checks that the parts of a bundle fit together, so that no request is the first to find out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.retrieval.indexes import AnnoyIndex
from feedrank.engine.types import Matrix
from feedrank.features.item_model import ItemModel
from feedrank.models.items.cold_start import CONTENT_VIEWS, ContentMaps, n_content_inputs
from feedrank.models.text.cross_encoder_model import TokenIds
from feedrank.models.training.ranker import LambdaRanker

MAX_TOKEN_ID = 1 << 31
SAMPLE = 100
"""Items whose vectors are compared, and rows that a ranker scores."""


def check_item_model(item_model: ItemModel) -> None:
    """Raise ValueError, which names the array, if one does not fit the catalogue or has values that nothing can use."""
    n, terms, tokens = len(item_model.catalogue), item_model.term_weights, item_model.token_vectors
    _check_finite("space/item_side", item_model.space.item_side)
    _check_finite("space/user_side", item_model.space.user_side)
    for name, view in item_model.vectors.items():
        for side in ("user_side", "item_side"):
            _check_finite(f"vectors/{name}/{side}", vectors := getattr(view, side))
            _check_shape(f"vectors/{name}/{side}", vectors, (n, view.user_side.shape[1]))
    for name, matrix in item_model.item_item.items():
        _check_bounds(f"item_item/{name}/offsets", matrix.offsets, n, len(matrix.columns))
        _check_rows(f"item_item/{name}/columns", matrix.columns, n)
        _check_shape(f"item_item/{name}/values", matrix.values, matrix.columns.shape)
        _check_finite(f"item_item/{name}/values", matrix.values)
    for name, values in item_model.item_stats.items():
        _check_shape(f"item_stats/{name}", values, (n,))
    _check_bounds("terms/offsets", terms.offsets, n, len(terms.term_codes))
    _check_rows("terms/term_codes", terms.term_codes, len(terms.terms))
    for name in ("weights", "term_counts"):
        _check_shape(f"terms/{name}", values := getattr(terms, name), terms.term_codes.shape)
        _check_finite(f"terms/{name}", values)
    _check_finite("terms/idf", terms.statistics.idf)
    if tokens is not None:
        _check_bounds("tokens/offsets", tokens.offsets, n, len(tokens.values))


def check_content_maps(maps: ContentMaps, item_model: ItemModel) -> None:
    """Raise ValueError if content maps are not those of the item model's content views."""
    expected = {
        f"{name}/{side}": (n_content_inputs(item_model), vectors.shape[1])
        for name, view in item_model.vectors.items()
        for side, vectors in view._asdict().items()
        if name in CONTENT_VIEWS and (side == "user_side" or vectors is not view.user_side)
    }
    if maps.keys() != expected.keys():
        raise ValueError(f"found the maps {sorted(maps)}, expected {sorted(expected)}")
    for name, values in maps.items():
        _check_shape(name, values, expected[name])
        _check_finite(name, values)


def check_tokens(tokens: TokenIds, n_items: int) -> None:
    """Raise ValueError if token ids are not those of so many items."""
    _check_bounds("offsets", tokens.offsets, n_items, len(tokens.ids))
    _check_rows("ids", tokens.ids, MAX_TOKEN_ID)


def check_index(index: AnnoyIndex, vectors: Matrix) -> None:
    """Raise ValueError if an index does not hold these (n, d) vectors."""
    rows = np.unique(np.linspace(0, max(len(vectors) - 1, 0), SAMPLE).astype(np.int64))[: len(vectors)]
    index.check(vectors, rows.tolist())


def check_ranker(ranker: LambdaRanker) -> None:
    """Raise ValueError if a ranker gives scores that are not finite."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((SAMPLE, len(ranker.names))).astype(np.float32)
    rows[random.random(rows.shape) < 0.3] = np.nan
    if not np.isfinite(ranker.score(rows)).all():
        raise ValueError("the ranker gives scores that are not finite")


def _check_finite(name: str, values: NDArray[np.floating[Any]]) -> None:
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are not finite numbers")


def _check_shape(name: str, values: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has the shape {values.shape}, expected {shape}")


def _check_bounds(name: str, bounds: NDArray[np.generic], n: int, total: int) -> None:
    """Check the (n + 1,) bounds of n parts of `total` values."""
    _check_shape(name, bounds, (n + 1,))
    numbers = np.asarray(bounds)
    if numbers.dtype.kind not in "iu" or numbers[0] != 0 or numbers[-1] != total or np.any(np.diff(numbers) < 0):
        raise ValueError(f"{name} are no bounds of {total} values")


def _check_rows(name: str, rows: NDArray[np.generic], n: int) -> None:
    numbers = np.asarray(rows)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not np.all((numbers >= 0) & (numbers < n)):
        raise ValueError(f"{name} has numbers out of 0 to {n - 1}")
