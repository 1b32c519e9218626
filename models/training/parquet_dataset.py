"""Training matrices in Parquet files: written in chunks during a log replay, read by LightGBM in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Matrix, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.models.atomic_files import atomic_write
from feedrank.models.training.dataset import (
    FeatureChunk,
    LabeledGroups,
    assemble_query_groups,
    build_query_groups,
    feature_chunks,
    without_features,
)
from feedrank.models.training.query_groups import QueryGroups

LABEL, POSITION, GROUP = "label", "position", "group"
"""The columns next to the features."""


class ParquetMatrix(lgb.Sequence):
    """A `lightgbm.Sequence` of feature rows in a Parquet file; one row group is in memory at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow.parquet as pq  # imported here, because a server never needs it

        self._file = pq.ParquetFile(path)
        self._names = list(names)
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._cached = (-1, np.empty((0, len(self._names)), np.float32))
        self._column_overrides: dict[int, Scores] = {}
        self.batch_size = max([1, *sizes])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, index: Any) -> Any:
        """Return a row by index (float64, as LightGBM requires), or rows by a slice or a list of indices."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._read_rows(start, stop)[::step]
        if isinstance(index, int | np.integer):
            return self._read_rows(int(index), int(index) + 1)[0].astype(np.float64)
        return np.concatenate([self._read_rows(int(row), int(row) + 1) for row in index])

    def __setitem__(self, index: tuple[slice, int], values: Scores) -> None:
        """Replace a whole column, as in `matrix[:, column] = values`; the new values stay in memory."""
        rows, column = index
        if rows != slice(None) or len(values) != len(self):
            raise ValueError(
                f"found {len(values)} values for {len(self)} rows; expected a whole column: matrix[:, column] = values"
            )
        self._column_overrides[column] = np.asarray(values, np.float32)
        self._cached = (-1, self._cached[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, features)."""
        return len(self), len(self._names)

    def _read_rows(self, start: int, stop: int) -> Matrix:
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        parts = []
        while start < stop:
            matrix = self._row_group(first)
            group_start = int(self._bounds[first])
            parts.append(matrix[start - group_start : stop - group_start])
            start, first = int(self._bounds[first + 1]), first + 1
        return np.concatenate(parts) if parts else np.empty((0, len(self._names)), np.float32)

    def _row_group(self, index: int) -> Matrix:
        if self._cached[0] != index:
            table = self._file.read_row_group(index, columns=self._names)
            matrix = np.empty((table.num_rows, len(self._names)), np.float32)
            for column, name in enumerate(self._names):
                override = self._column_overrides.get(column)
                row_range = slice(int(self._bounds[index]), int(self._bounds[index + 1]))
                matrix[:, column] = table.column(name).to_numpy() if override is None else override[row_range]
            self._cached = (index, matrix)
        return self._cached[1]


def write_query_groups(
    path: Path,
    log: EventTable,
    builder: FeatureBuilder,
    labeled_groups: LabeledGroups,
    chunk_rows: int = 65_536,
    use_logged_features: bool = False,
) -> QueryGroups:
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
    group_of = np.repeat(np.arange(len(labeled_groups)), np.diff(labeled_groups.queries.offsets))
    positions = np.full(len(group_of), -1, np.int32) if labeled_groups.positions is None else labeled_groups.positions
    chunks: list[FeatureChunk] = []
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for chunk in feature_chunks(log, builder, labeled_groups, chunk_rows, use_logged_features):
            span, matrix = chunk.row_range, chunk.matrix
            chunks.append(without_features(chunk))
            columns = [pa.array(matrix[:, column]) for column in range(matrix.shape[1])]
            columns += [pa.array(labeled_groups.labels[span]), pa.array(positions[span]), pa.array(group_of[span])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(len(matrix), 1))
    return assemble_query_groups(ParquetMatrix(path, builder.names), labeled_groups, chunks, builder)


def read_query_groups(path: Path) -> QueryGroups:
    """Read groups that `write_query_groups` wrote; the matrix is read on access."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name not in (LABEL, POSITION, GROUP)]
    table = file.read(columns=[LABEL, POSITION, GROUP])
    group_of = table.column(GROUP).to_numpy()
    sizes = np.bincount(group_of) if len(group_of) else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    labels, positions = table.column(LABEL).to_numpy(), table.column(POSITION).to_numpy()
    return QueryGroups(ParquetMatrix(path, names), labels, offsets, positions)


class MatrixStore:
    """Builds query groups in memory up to a limit, then in temporary files; a context manager that removes them."""

    def __init__(self, memory_mb: int, use_logged_features: bool = False) -> None:
        """memory_mb: limit of all matrices in MB. use_logged_features: as in `feature_chunks`."""
        self._use_logged_features = use_logged_features
        self._bytes_left = memory_mb * 1_000_000
        self._folder: TemporaryDirectory[str] | None = None
        self._file_count = 0

    def build_query_groups(
        self, log: EventTable, builder: FeatureBuilder, labeled_groups: LabeledGroups
    ) -> QueryGroups:
        """Build the query groups; in a file if they exceed the memory that is left."""
        size = 4 * len(labeled_groups.labels) * len(builder.names)
        if size <= self._bytes_left:
            self._bytes_left -= size
            return build_query_groups(log, builder, labeled_groups, self._use_logged_features)
        self._folder = self._folder or TemporaryDirectory(prefix="feedrank-training-")
        self._file_count += 1
        path = Path(self._folder.name) / f"groups-{self._file_count}.parquet"
        return write_query_groups(path, log, builder, labeled_groups, use_logged_features=self._use_logged_features)

    def __enter__(self) -> MatrixStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()
