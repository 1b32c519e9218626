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
from feedrank.engine.events.vocabulary import Ids
from feedrank.engine.retrieval.embedding_space import Space, View
from feedrank.features.bm25 import TermWeights
from feedrank.features.item_model import ItemKnowledge, Table, VectorPair
from feedrank.features.late_interaction import Projection, TokenVectors
from feedrank.models.atomic_files import written_aside

CATALOGUE, KNOWLEDGE, TERMS, TOKENS = "catalogue.jsonl.gz", "knowledge.npz", "terms.json", "tokens.npy"


def write(folder: Path, knowledge: ItemKnowledge) -> None:
    """Write the item model into a bundle folder."""
    _write_catalogue(folder / CATALOGUE, knowledge.catalogue)
    _write_knowledge(folder, knowledge)


def read(folder: Path, manifest: Mapping[str, Any]) -> ItemKnowledge:
    """Read the item model that `write_item_model` wrote; the manifest holds space blocks and model digests."""
    return _read_knowledge(folder, manifest, _read_catalogue(folder / CATALOGUE))


def _write_catalogue(path: Path, catalogue: Catalogue) -> None:
    lines = [json.dumps([item, fields], ensure_ascii=False) + "\n" for item, fields in catalogue.to_items().items()]
    with written_aside(path) as temporary:
        # no timestamp in the header: the same items give the same bytes
        temporary.write_bytes(gzip.compress("".join(lines).encode("utf-8"), mtime=0))


def _read_catalogue(path: Path) -> Catalogue:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return Catalogue.from_items(dict(json.loads(line) for line in lines))


def _write_knowledge(folder: Path, knowledge: ItemKnowledge) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "space/targets": knowledge.space.targets,
        "space/sources": knowledge.space.sources,
    }
    for name, view in knowledge.vectors.items():
        arrays[f"vectors/{name}/sources"] = view.sources
        if view.targets is not view.sources:
            arrays[f"vectors/{name}/targets"] = view.targets
    for name, table in knowledge.tables.items():
        arrays |= {f"tables/{name}/{column}": getattr(table, column) for column in Table._fields}
    arrays |= {f"statistics/{name}": values for name, values in knowledge.statistics.items()}
    for column in ("codes", "weights", "counts", "offsets"):
        arrays[f"terms/{column}"] = getattr(knowledge.terms, column)
    if knowledge.tokens is not None:
        arrays["tokens/offsets"] = knowledge.tokens.offsets
        if knowledge.tokens.projection is not None:
            arrays["tokens/mean"], arrays["tokens/directions"] = knowledge.tokens.projection
        np.save(folder / TOKENS, knowledge.tokens.codes)  # a separate file, so that all processes map the same pages
    with written_aside(folder / KNOWLEDGE) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the names for allow_pickle
    (folder / TERMS).write_text(json.dumps(list(knowledge.terms.terms), ensure_ascii=False))


def _read_knowledge(folder: Path, manifest: Mapping[str, Any], catalogue: Catalogue) -> ItemKnowledge:
    with np.load(folder / KNOWLEDGE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    layout = manifest["space"]
    views = tuple(View(*view) for view in layout["views"])
    space = Space(views, arrays["space/targets"], arrays["space/sources"], layout["decay"], layout["depth"])
    vectors = {
        name: VectorPair(
            arrays[f"vectors/{name}/sources"],
            arrays.get(f"vectors/{name}/targets", arrays[f"vectors/{name}/sources"]),
        )
        for name in _second(arrays, "vectors")
    }
    return ItemKnowledge(
        catalogue=catalogue,
        space=space,
        vectors=vectors,
        tables={
            name: Table(*(arrays[f"tables/{name}/{column}"] for column in Table._fields))
            for name in _second(arrays, "tables")
        },
        terms=TermWeights(
            Ids(json.loads((folder / TERMS).read_text())),
            arrays["terms/codes"],
            arrays["terms/weights"],
            arrays["terms/counts"],
            arrays["terms/offsets"],
        ),
        statistics={name: arrays[f"statistics/{name}"] for name in _second(arrays, "statistics")},
        tokens=_tokens(folder, arrays) if "tokens/offsets" in arrays else None,
        made_by=manifest["made_by"],
    )


def _tokens(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> TokenVectors:
    codes = np.load(folder / TOKENS, mmap_mode="c")
    fitted = "tokens/mean" in arrays
    projection = Projection(arrays["tokens/mean"], arrays["tokens/directions"]) if fitted else None
    return TokenVectors(codes, arrays["tokens/offsets"], projection)


def _second(arrays: Mapping[str, NDArray[Any]], first: str) -> list[str]:
    """Return the second path parts of the array names under `prefix`, in written order."""
    return list(dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith(first + "/")))
