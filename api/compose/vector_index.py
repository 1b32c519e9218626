"""Chooses the vector index of a bundle: Annoy, a full scan, or a class of the user's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from feedrank.api.config import IndexConfig
from feedrank.engine.protocols import ScannableIndex, VectorIndex
from feedrank.engine.retrieval.custom_index import CustomIndexError, CustomIndexType
from feedrank.engine.retrieval.indexes import SegmentedIndex
from feedrank.engine.retrieval.pca_index import PcaRefineIndex
from feedrank.models.bundles.bundle import CUSTOM_INDEX, Bundle, BundleError

BUILT_IN = ("annoy", "exact")
_log = logging.getLogger(__name__)


def custom_index_type(settings: IndexConfig) -> CustomIndexType | None:
    """Import the class of the user's own that the config names; None for the built-in kinds.

    Call it before long work, so that a wrong path or argument is found at once. Raises CustomIndexError.
    """
    if settings.kind in BUILT_IN:
        return None
    return CustomIndexType.from_path(settings.kind, settings.arguments)


def with_custom_index(opened: Bundle, settings: IndexConfig) -> Bundle:
    """Return the bundle with the custom index that the config names; unchanged if it names none or it is there already.

    The index is loaded from the bundle, or built if the bundle has none with this class and these arguments. Raises
    CustomIndexError for a class that can't be used, and BundleError if it can't load what it saved.
    """
    custom = custom_index_type(settings) if opened.custom_index is None else None
    if custom is None:
        return opened
    vectors, metric = opened.item_model.space.item_side[: opened.manifest["items"]], opened.index.metric
    saved = opened.manifest.get("custom_index")
    if custom.is_saved and saved == custom.to_dict():
        try:
            return replace(opened, custom_index=custom.load(opened.folder / CUSTOM_INDEX, vectors, metric))
        except CustomIndexError as problem:
            raise BundleError(f"{problem}; train again with the class as it is now") from problem
    started = time.perf_counter()
    index = custom.build(vectors, metric)
    seconds = time.perf_counter() - started
    if custom.is_saved:
        _log.warning(
            "built index.kind %s over %d items in %.1f s, because the bundle %s was made with %s; train again, so that "
            "a server loads it from the bundle", custom.path, len(vectors), seconds, opened.name, _describe(saved),
        )  # fmt: skip
    else:
        _log.info(
            "built index.kind %s over %d items in %.1f s; it has no save and load, so each server process builds it at "
            "its start", custom.path, len(vectors), seconds,
        )  # fmt: skip
    return replace(opened, custom_index=index)


def build_vector_index(opened: Bundle, settings: IndexConfig) -> VectorIndex | None:
    """Return the vector index of the items of a bundle and those added since; None: all vectors are scanned.

    Raises CustomIndexError for a class of the user's own that can't be used.
    """
    targets = opened.item_model.space.item_side
    if settings.kind == "exact" or (settings.kind == "annoy" and len(targets) <= settings.exact_below):
        return None
    index: VectorIndex | None = opened.index
    if settings.kind != "annoy":
        index = with_custom_index(opened, settings).custom_index
    assert index is not None
    n_indexed = opened.manifest["items"]
    if n_indexed == len(targets):
        return index
    return SegmentedIndex(index, targets[n_indexed:], n_indexed, opened.index.metric)


def build_exact_index(opened: Bundle, settings: IndexConfig) -> ScannableIndex:
    """Return the bundle's scan index; with kind "exact", its exact index without the PCA filter."""
    index = opened.exact_index
    return index.exact if settings.kind == "exact" and isinstance(index, PcaRefineIndex) else index


def _describe(saved: Mapping[str, object] | None) -> str:
    return "no custom index" if saved is None else f"{saved['kind']} and the arguments {saved['arguments']}"
