"""What was learnt of the items, as the builder needs it: vectors, item-to-item tables, term weights, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.space import Space
from engine.types import Matrix, Offsets, Rows, Scores
from features.bm25 import TermWeights
from features.late import TokenVectors


class Table(NamedTuple):
    """A sparse (n, n) item-to-item matrix by rows: what touching item i says for item j."""

    offsets: Offsets
    """(n + 1,) bounds of each row."""
    columns: Rows
    """Sorted within a row."""
    values: Scores


class VectorPair(NamedTuple):
    """One view of the items, by vectors of length 1 or 0: where an item leads, and what leads to it."""

    sources: Matrix
    targets: Matrix


@dataclass(frozen=True, eq=False, slots=True)
class ItemKnowledge:
    """Everything static that features are made of; fitted offline, the same for training and serving."""

    catalogue: Catalogue
    space: Space
    """The vectors that recall works with."""
    vectors: Mapping[str, VectorPair]
    """View name -> its vectors."""
    tables: Mapping[str, Table]
    terms: TermWeights
    statistics: Mapping[str, NDArray[np.float32]]
    """Name -> (n,) one number an item, NaN where unknown."""
    tokens: TokenVectors | None = None
    """Token vectors for late interaction; None: there is none."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Signal -> digest of the model behind it: `text`, `late`, `pair`. Other weights make another feature."""

    def __post_init__(self) -> None:
        n = len(self.catalogue)
        sizes = {"space": len(self.space.targets), "terms": len(self.terms.offsets) - 1}
        sizes |= {f"vectors {name}": len(pair.targets) for name, pair in self.vectors.items()}
        sizes |= {f"table {name}": len(table.offsets) - 1 for name, table in self.tables.items()}
        sizes |= {f"statistic {name}": len(values) for name, values in self.statistics.items()}
        sizes |= {} if self.tokens is None else {"token vectors": len(self.tokens)}
        for name, size in sizes.items():
            if size != n:
                raise ValueError(f"{name} has {size} rows for {n} items")
