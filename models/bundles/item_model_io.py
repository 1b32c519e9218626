"""Read and write the item model as the files of a bundle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.retrieval.embedding_space import EmbeddingBlock, EmbeddingSpace
from feedrank.features.bm25 import TermWeights
from feedrank.features.item_model import ItemItemMatrix, ItemModel, UserItemVectors
from feedrank.features.late_interaction import Projection, TokenVectors
from feedrank.models.atomic_files import atomic_write

CATALOGUE, ITEM_MODEL, TERMS, TOKENS = "catalogue.jsonl.gz", "knowledge.npz", "terms.json", "tokens.npy"


def write_item_model(folder: Path, item_model: ItemModel) -> None:
    """Write the item model into a bundle folder."""
    _write_catalogue(folder / CATALOGUE, item_model.catalogue)
    _write_arrays(folder, item_model)


def read_item_model(folder: Path, manifest: Mapping[str, Any]) -> ItemModel:
    """Read the item model that `write_item_model` wrote; the manifest holds space blocks and model digests."""
    return _read_arrays(folder, manifest, _read_catalogue(folder / CATALOGUE))


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
        "space/targets": item_model.space.item_side,
        "space/sources": item_model.space.user_side,
    }
    for name, view in item_model.vectors.items():
        arrays[f"vectors/{name}/sources"] = view.user_side
        if view.item_side is not view.user_side:
            arrays[f"vectors/{name}/targets"] = view.item_side
    for name, table in item_model.item_item.items():
        arrays |= {f"tables/{name}/{column}": getattr(table, column) for column in ItemItemMatrix._fields}
    arrays |= {f"statistics/{name}": values for name, values in item_model.item_stats.items()}
    for column in ("codes", "weights", "counts", "offsets"):
        arrays[f"terms/{column}"] = getattr(item_model.term_weights, column)
    if item_model.token_vectors is not None:
        arrays["tokens/offsets"] = item_model.token_vectors.offsets
        if item_model.token_vectors.projection is not None:
            arrays["tokens/mean"], arrays["tokens/directions"] = item_model.token_vectors.projection
        np.save(
            folder / TOKENS, item_model.token_vectors.values
        )  # a separate file, so that all processes map the same pages
    with atomic_write(folder / ITEM_MODEL) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the names for allow_pickle
    (folder / TERMS).write_text(json.dumps(list(item_model.term_weights.terms), ensure_ascii=False))


def _read_arrays(folder: Path, manifest: Mapping[str, Any], catalogue: Catalogue) -> ItemModel:
    with np.load(folder / ITEM_MODEL, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    layout = manifest["space"]
    views = tuple(EmbeddingBlock(*view) for view in layout["views"])
    space = EmbeddingSpace(views, arrays["space/targets"], arrays["space/sources"], layout["decay"], layout["depth"])
    vectors = {
        name: UserItemVectors(
            arrays[f"vectors/{name}/sources"],
            arrays.get(f"vectors/{name}/targets", arrays[f"vectors/{name}/sources"]),
        )
        for name in _names_under(arrays, "vectors")
    }
    return ItemModel(
        catalogue=catalogue,
        space=space,
        vectors=vectors,
        item_item={
            name: ItemItemMatrix(*(arrays[f"tables/{name}/{column}"] for column in ItemItemMatrix._fields))
            for name in _names_under(arrays, "tables")
        },
        term_weights=TermWeights(
            Vocabulary(json.loads((folder / TERMS).read_text())),
            arrays["terms/codes"],
            arrays["terms/weights"],
            arrays["terms/counts"],
            arrays["terms/offsets"],
        ),
        item_stats={name: arrays[f"statistics/{name}"] for name in _names_under(arrays, "statistics")},
        token_vectors=_read_tokens(folder, arrays) if "tokens/offsets" in arrays else None,
        model_digests=manifest["made_by"],
    )


def _read_tokens(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> TokenVectors:
    codes = np.load(folder / TOKENS, mmap_mode="c")
    fitted = "tokens/mean" in arrays
    projection = Projection(arrays["tokens/mean"], arrays["tokens/directions"]) if fitted else None
    return TokenVectors(codes, arrays["tokens/offsets"], projection)


def _names_under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> list[str]:
    """Return the second path parts of the array names under `prefix`, in written order."""
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith(prefix + "/")))
