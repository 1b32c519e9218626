"""Training matrices in Parquet files: written in chunks during a log replay, read by LightGBM in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np

from feedrank.engine.events.event_table import Log
from feedrank.engine.types import Matrix, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.models.atomic_files import written_aside
from feedrank.models.training.dataset import Chunk, Examples, assembled, groups, matrices, without_matrix
from feedrank.models.training.query_groups import Groups

LABEL, POSITION, GROUP = "label", "position", "group"
"""The columns next to the features."""


class ShardedMatrix(lgb.Sequence):
    """A `lightgbm.Sequence` of feature rows in a Parquet file; one row group is in memory at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow.parquet as pq  # imported here, because a server never needs it

        self._file = pq.ParquetFile(path)
        self._names = list(names)
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._held = (-1, np.empty((0, len(self._names)), np.float32))
        self._laid_over: dict[int, Scores] = {}
        self.batch_size = max([1, *sizes])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, index: Any) -> Any:
        """Return a row by index (float64, as LightGBM requires), or rows by a slice or a list of indices."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._between(start, stop)[::step]
        if isinstance(index, int | np.integer):
            return self._between(int(index), int(index) + 1)[0].astype(np.float64)
        return np.concatenate([self._between(int(row), int(row) + 1) for row in index])

    def __setitem__(self, index: tuple[slice, int], values: Scores) -> None:
        """Replace a whole column, as in `matrix[:, column] = values`; the new values stay in memory."""
        rows, column = index
        if rows != slice(None) or len(values) != len(self):
            raise ValueError(
                f"found {len(values)} values for {len(self)} rows; expected a whole column: matrix[:, column] = values"
            )
        self._laid_over[column] = np.asarray(values, np.float32)
        self._held = (-1, self._held[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, features)."""
        return len(self), len(self._names)

    def _between(self, start: int, stop: int) -> Matrix:
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        parts = []
        while start < stop:
            matrix = self._row_group(first)
            group_start = int(self._bounds[first])
            parts.append(matrix[start - group_start : stop - group_start])
            start, first = int(self._bounds[first + 1]), first + 1
        return np.concatenate(parts) if parts else np.empty((0, len(self._names)), np.float32)

    def _row_group(self, place: int) -> Matrix:
        if self._held[0] != place:
            table = self._file.read_row_group(place, columns=self._names)
            matrix = np.empty((table.num_rows, len(self._names)), np.float32)
            for column, name in enumerate(self._names):
                override = self._laid_over.get(column)
                row_range = slice(int(self._bounds[place]), int(self._bounds[place + 1]))
                matrix[:, column] = table.column(name).to_numpy() if override is None else override[row_range]
            self._held = (place, matrix)
        return self._held[1]


def write(
    path: Path, log: Log, builder: FeatureBuilder, examples: Examples, rows: int = 65_536, served: bool = False
) -> Groups:
    """Replay the log and write the groups' feature rows to a Parquet file, about `chunk_rows` per row group.

    Columns: the features, `label`, `position` (-1: unknown) and `group`, in the order of the groups. The returned
    groups read their matrix from the file. use_logged_features: as in `feature_chunks`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.float32()) for name in builder.names]
        + [(LABEL, pa.float32()), (POSITION, pa.int32()), (GROUP, pa.int64())],
        metadata={"fingerprint": builder.fingerprint},
    )
    group_of = np.repeat(np.arange(len(examples)), np.diff(examples.moments.offsets))
    positions = np.full(len(group_of), -1, np.int32) if examples.positions is None else examples.positions
    chunks: list[Chunk] = []
    with (
        written_aside(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for chunk in matrices(log, builder, examples, rows, served):
            span, matrix = chunk.part, chunk.matrix
            chunks.append(without_matrix(chunk))
            columns = [pa.array(matrix[:, column]) for column in range(matrix.shape[1])]
            columns += [pa.array(examples.labels[span]), pa.array(positions[span]), pa.array(group_of[span])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(len(matrix), 1))
    return assembled(ShardedMatrix(path, builder.names), examples, chunks)


def read(path: Path) -> Groups:
    """Read groups that `write_query_groups` wrote; the matrix is read on access."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name not in (LABEL, POSITION, GROUP)]
    table = file.read(columns=[LABEL, POSITION, GROUP])
    group_of = table.column(GROUP).to_numpy()
    sizes = np.bincount(group_of) if len(group_of) else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    labels, positions = table.column(LABEL).to_numpy(), table.column(POSITION).to_numpy()
    return Groups(ShardedMatrix(path, names), labels, offsets, positions)


class Store:
    """Builds query groups in memory up to a limit, then in temporary files; a context manager that removes them."""

    def __init__(self, memory_mb: int, served: bool = False) -> None:
        """memory_mb: limit of all matrices in MB. use_logged_features: as in `feature_chunks`."""
        self._served = served
        self._left = memory_mb * 1_000_000
        self._folder: TemporaryDirectory[str] | None = None
        self._made = 0

    def groups(self, log: Log, builder: FeatureBuilder, examples: Examples) -> Groups:
        """Build the query groups; in a file if they exceed the memory that is left."""
        size = 4 * len(examples.labels) * len(builder.names)
        if size <= self._left:
            self._left -= size
            return groups(log, builder, examples, self._served)
        self._folder = self._folder or TemporaryDirectory(prefix="feedrank-training-")
        self._made += 1
        path = Path(self._folder.name) / f"groups-{self._made}.parquet"
        return write(path, log, builder, examples, served=self._served)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()
