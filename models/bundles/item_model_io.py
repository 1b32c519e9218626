"""Read and write the item model as the files of a bundle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.retrieval.embedding_space import EmbeddingBlock, EmbeddingSpace
from feedrank.features.bm25 import TermWeights
from feedrank.features.declared.term_statistics import TermStatistics
from feedrank.features.item_model import ItemItemMatrix, ItemModel, UserItemVectors
from feedrank.features.late_interaction import Projection, TokenVectors
from feedrank.features.term_counts import CorpusStatistics
from feedrank.features.text_analyser import TextAnalyser, TextSettings
from feedrank.models.atomic_files import atomic_write
from feedrank.models.bundles.manifest import reading

CATALOGUE, ITEM_MODEL, TERMS, TOKENS = "catalogue.jsonl.gz", "item-model.npz", "terms.json", "tokens.npy"
_TERM_COLUMNS = ("term_codes", "weights", "term_counts", "offsets")
_DECLARED_TERMS = ("hashes", "counts", "totals")
_TERM_STATISTICS = ("idf", "mean_lengths")


def write_item_model(folder: Path, item_model: ItemModel) -> None:
    """Write the item model into a bundle folder."""
    _write_catalogue(folder / CATALOGUE, item_model.catalogue)
    _write_arrays(folder, item_model)


def read_item_model(folder: Path, manifest: Mapping[str, Any]) -> ItemModel:
    """Read the item model that `write_item_model` wrote; the manifest holds space blocks and model digests.

    Raises BundleError, which names the file, for one that can't be read.
    """
    with reading(folder / CATALOGUE):
        catalogue = _read_catalogue(folder / CATALOGUE)
        if len(catalogue) != manifest["items"]:
            raise ValueError(f"found {len(catalogue)} items, expected {manifest['items']}")
    with reading(folder / ITEM_MODEL):
        return _read_arrays(folder, manifest, catalogue)


def _write_catalogue(path: Path, catalogue: Catalogue) -> None:
    lines = [json.dumps([item, fields], ensure_ascii=False) + "\n" for item, fields in catalogue.to_items().items()]
    with atomic_write(path) as temporary:
        # no timestamp in the header: the same items give the same bytes
        temporary.write_bytes(gzip.compress("".join(lines).encode("utf-8"), mtime=0))


def _read_catalogue(path: Path) -> Catalogue:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return Catalogue.from_items(dict(json.loads(line) for line in lines))


def _write_arrays(folder: Path, item_model: ItemModel) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "space/item_side": item_model.space.item_side,
        "space/user_side": item_model.space.user_side,
    }
    for name, view in item_model.vectors.items():
        arrays[f"vectors/{name}/user_side"] = view.user_side
        if view.item_side is not view.user_side:
            arrays[f"vectors/{name}/item_side"] = view.item_side
    for name, matrix in item_model.item_item.items():
        arrays |= {f"item_item/{name}/{field}": getattr(matrix, field) for field in ItemItemMatrix._fields}
    arrays |= {f"item_stats/{name}": values for name, values in item_model.item_stats.items()}
    arrays |= {f"terms/{column}": getattr(item_model.term_weights, column) for column in _TERM_COLUMNS}
    arrays |= {f"terms/{column}": getattr(item_model.term_weights.statistics, column) for column in _TERM_STATISTICS}
    for name, known in item_model.term_statistics.items():
        arrays |= {f"declared_terms/{name}/{column}": getattr(known, column) for column in _DECLARED_TERMS}
    if item_model.category_factors is not None:
        arrays["categories/factors"] = item_model.category_factors
    if item_model.token_vectors is not None:
        arrays["tokens/offsets"] = item_model.token_vectors.offsets
        if item_model.token_vectors.projection is not None:
            arrays["tokens/mean"], arrays["tokens/directions"] = item_model.token_vectors.projection
        # a separate file, so that all processes map the same pages
        np.save(folder / TOKENS, item_model.token_vectors.values)
    with atomic_write(folder / ITEM_MODEL) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the names for allow_pickle
    _write_terms(folder / TERMS, item_model.term_weights)


def _read_arrays(folder: Path, manifest: Mapping[str, Any], catalogue: Catalogue) -> ItemModel:
    with np.load(folder / ITEM_MODEL, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    layout = manifest["space"]
    space = EmbeddingSpace(
        tuple(EmbeddingBlock(*block) for block in layout["blocks"]), arrays["space/item_side"],
        arrays["space/user_side"], layout["decay"], layout["history_length"],
    )  # fmt: skip
    vectors = {
        name: UserItemVectors(
            arrays[f"vectors/{name}/user_side"],
            arrays.get(f"vectors/{name}/item_side", arrays[f"vectors/{name}/user_side"]),
        )
        for name in _names_under(arrays, "vectors")
    }
    return ItemModel(
        catalogue=catalogue,
        space=space,
        vectors=vectors,
        item_item={
            name: ItemItemMatrix(*(arrays[f"item_item/{name}/{field}"] for field in ItemItemMatrix._fields))
            for name in _names_under(arrays, "item_item")
        },
        term_weights=_read_terms(folder / TERMS, arrays),
        item_stats={name: arrays[f"item_stats/{name}"] for name in _names_under(arrays, "item_stats")},
        token_vectors=_read_tokens(folder, arrays) if "tokens/offsets" in arrays else None,
        model_digests=manifest["model_digests"],
        term_statistics={
            name: TermStatistics(*(arrays[f"declared_terms/{name}/{column}"] for column in _DECLARED_TERMS))
            for name in _names_under(arrays, "declared_terms")
        },
        category_factors=arrays.get("categories/factors"),
    )


def _write_terms(path: Path, term_weights: TermWeights) -> None:
    body = {
        "analyser": asdict(term_weights.analyser.settings),
        "fields": term_weights.fields,
        "documents": term_weights.statistics.n_documents,
        "terms": list(term_weights.terms),
    }
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")


def _read_terms(path: Path, arrays: Mapping[str, NDArray[Any]]) -> TermWeights:
    with reading(path):
        return _parse_terms(json.loads(path.read_text(encoding="utf-8")), arrays)


def _parse_terms(body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TermWeights:
    codes, weights, counts, offsets = (arrays[f"terms/{column}"] for column in _TERM_COLUMNS)
    idf, mean_lengths = (arrays[f"terms/{column}"] for column in _TERM_STATISTICS)
    statistics = CorpusStatistics(idf, mean_lengths, body["documents"])
    analyser = TextAnalyser(TextSettings(**body["analyser"]))
    return TermWeights(
        Vocabulary(body["terms"]), codes, weights, counts, offsets, tuple(body["fields"]), statistics, analyser
    )


def _read_tokens(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> TokenVectors:
    with reading(folder / TOKENS):
        codes = np.load(folder / TOKENS, mmap_mode="c", allow_pickle=False)
    fitted = "tokens/mean" in arrays
    projection = Projection(arrays["tokens/mean"], arrays["tokens/directions"]) if fitted else None
    return TokenVectors(codes, arrays["tokens/offsets"], projection)


def _names_under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> list[str]:
    """Return the second path parts of the array names under `prefix`, in written order."""
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith(prefix + "/")))
