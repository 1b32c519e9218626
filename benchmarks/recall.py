"""What Annoy and the scan find of the nearest 100 that brute force finds, and how long each takes.

`python -m benchmarks.recall HOME`: on the current bundle of a home, for the people that its journal knows, with what
they touched left out, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.bars import console
from feedrank.engine.protocols import ScannableIndex, VectorIndex
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.pca_index import PcaRefineIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever
from feedrank.engine.types import ResolvedRequest, Rows

PEOPLE = 200
WANTED = 100


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=__doc__)
    parser.add_argument("home", type=Path, help="a folder with a trained bundle")
    place = parser.parse_args().home
    from feedrank.api import server
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths

    server.limit_blas_threads()
    home = HomePaths(place)
    loaded = server.preload(home, load_config(home.config))
    knowledge, index = loaded.current_bundle.item_model, loaded.current_bundle.index
    people = np.random.default_rng(0).permutation(len(loaded.restored.users))[:PEOPLE].tolist()
    touched = {person: loaded.restored.state.history(person) for person in people}
    requests = [
        ResolvedRequest(at=0.0, user=person, history=rows, history_at=times, interacted=rows)
        for person, (rows, times) in touched.items()
        if len(rows)
    ]
    vectors = knowledge.space.item_side
    exact = ExactIndex(vectors, index.metric)

    def through(one: VectorIndex | None, whole: ScannableIndex) -> Callable[[ResolvedRequest], Rows]:
        source = EmbeddingRetriever(knowledge.catalogue, knowledge.space, whole, one)
        return lambda request: source.retrieve(request, WANTED).rows

    ways = {
        "brute force": through(None, exact),
        f"Annoy, {index.trees} trees x {index.search_k_factor}": through(index, exact),
        "scan": through(None, PcaRefineIndex.from_vectors(vectors, index.metric)),
    }
    table = Table("", f"recall of the nearest {WANTED}", "p50, ms", title=f"{len(vectors):,} x {vectors.shape[1]}")
    best = [set(ways["brute force"](request).tolist()) for request in requests]
    for name, way in ways.items():
        shares, seconds = [], []
        for request, wanted in zip(requests, best, strict=True):
            started = time.perf_counter()
            rows = way(request)
            seconds.append(time.perf_counter() - started)
            shares.append(len(wanted & set(rows.tolist())) / max(len(wanted), 1))
        table.add_row(name, f"{np.mean(shares):.3f}", f"{1000 * np.median(seconds):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
