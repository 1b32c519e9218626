"""Training matrices on disk: written chunk by chunk as a log is replayed, read by LightGBM a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np

from engine.log import Log
from engine.types import Matrix, Scores
from features.builder import FeatureBuilder
from models.dataset import Chunk, Examples, assembled, groups, matrices, without_matrix
from models.files import written_aside
from models.groups import Groups

LABEL, POSITION, GROUP = "label", "position", "group"
"""The columns beside the features."""


class ShardedMatrix(lgb.Sequence):
    """The feature rows of a Parquet file, as LightGBM asks for them; one row group is in memory at a time."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow.parquet as pq  # here, because a server never needs it

        self._file = pq.ParquetFile(path)
        self._names = list(names)
        sizes = [self._file.metadata.row_group(place).num_rows for place in range(self._file.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._held = (-1, np.empty((0, len(self._names)), np.float32))
        self._laid_over: dict[int, Scores] = {}
        self.batch_size = max([1, *sizes])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, index: Any) -> Any:
        """A row by its place (float64: LightGBM insists), or rows by a slice or a list of places."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._between(start, stop)[::step]
        if isinstance(index, int | np.integer):
            return self._between(int(index), int(index) + 1)[0].astype(np.float64)
        return np.concatenate([self._between(int(one), int(one) + 1) for one in index])

    def __setitem__(self, index: tuple[slice, int], values: Scores) -> None:
        """A whole column anew, as `matrix[:, column] = values`: it is held in memory, over what the file has."""
        whole, column = index
        if whole != slice(None) or len(values) != len(self):
            raise ValueError(f"found {len(values)} values for {len(self)} rows; a column is replaced as a whole")
        self._laid_over[column] = np.asarray(values, np.float32)
        self._held = (-1, self._held[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), len(self._names)

    def _between(self, start: int, stop: int) -> Matrix:
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        parts = []
        while start < stop:
            held = self._row_group(first)
            before = int(self._bounds[first])
            parts.append(held[start - before : stop - before])
            start, first = int(self._bounds[first + 1]), first + 1
        return np.concatenate(parts) if parts else np.empty((0, len(self._names)), np.float32)

    def _row_group(self, place: int) -> Matrix:
        if self._held[0] != place:
            table = self._file.read_row_group(place, columns=self._names)
            matrix = np.empty((table.num_rows, len(self._names)), np.float32)
            for column, name in enumerate(self._names):
                over = self._laid_over.get(column)
                part = slice(int(self._bounds[place]), int(self._bounds[place + 1]))
                matrix[:, column] = table.column(name).to_numpy() if over is None else over[part]
            self._held = (place, matrix)
        return self._held[1]


def write(
    path: Path, log: Log, builder: FeatureBuilder, examples: Examples, rows: int = 65_536, served: bool = False
) -> Groups:
    """Replay the log, and write the examples' rows to a Parquet file, about `rows` of them a row group.

    Columns: the features, `label`, `position` (-1: not known) and `group`, in the order of the examples. What comes
    back reads its matrix from the file. served: as for `models.dataset.matrices`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.float32()) for name in builder.names]
        + [(LABEL, pa.float32()), (POSITION, pa.int32()), (GROUP, pa.int64())],
        metadata={"fingerprint": builder.fingerprint},
    )
    owners = np.repeat(np.arange(len(examples)), np.diff(examples.moments.offsets))
    positions = np.full(len(owners), -1, np.int32) if examples.positions is None else examples.positions
    chunks: list[Chunk] = []
    with (
        written_aside(path) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for chunk in matrices(log, builder, examples, rows, served):
            part, matrix = chunk.part, chunk.matrix
            chunks.append(without_matrix(chunk))
            columns = [pa.array(matrix[:, column]) for column in range(matrix.shape[1])]
            columns += [pa.array(examples.labels[part]), pa.array(positions[part]), pa.array(owners[part])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(len(matrix), 1))
    return assembled(ShardedMatrix(path, builder.names), examples, chunks)


def read(path: Path) -> Groups:
    """The groups that `write` wrote; their matrix is read as it is asked for."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name not in (LABEL, POSITION, GROUP)]
    table = file.read(columns=[LABEL, POSITION, GROUP])
    owners = table.column(GROUP).to_numpy()
    sizes = np.bincount(owners) if len(owners) else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    labels, positions = table.column(LABEL).to_numpy(), table.column(POSITION).to_numpy()
    return Groups(ShardedMatrix(path, names), labels, offsets, positions)


class Store:
    """Makes groups in memory as long as they fit, and in files after that; a context that clears the files away."""

    def __init__(self, memory_mb: int, served: bool = False) -> None:
        """served: rows that were stored with their ranking are taken as they are."""
        self._served = served
        self._left = memory_mb * 1_000_000
        self._folder: TemporaryDirectory[str] | None = None
        self._made = 0

    def groups(self, log: Log, builder: FeatureBuilder, examples: Examples) -> Groups:
        """The examples' rows; in a file where they would take more memory than is left."""
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
