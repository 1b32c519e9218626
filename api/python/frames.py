"""Data frames in and out, through the Arrow stream interface that pandas, polars, pyarrow and DuckDB share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class ArrowStream(Protocol):
    """A data frame that can be read as an Arrow stream, such as a pandas or polars DataFrame or a pyarrow Table."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a PyCapsule of an ArrowArrayStream."""
        ...


def to_arrow(frame: object, name: str) -> Any:
    """Read a data frame as a pyarrow Table. `name` is its name in messages.

    Raises TypeError for an object without the Arrow stream interface, and ValueError for a frame that Arrow can't hold
    or that has a column twice.
    """
    import pyarrow as pa

    if not isinstance(frame, ArrowStream):
        raise TypeError(
            f"{name}: found {_type_name(frame)}, expected a data frame with the Arrow stream interface, such as a"
            " pandas (2.2 or newer) or polars DataFrame or a pyarrow Table; `pyarrow.Table.from_pylist` makes one of"
            " dicts, and `feedrank import` reads files"
        )
    try:
        table = pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as problem:
        raise ValueError(
            f"{name}: a column can't be read as Arrow: {str(problem).partition(chr(10))[0]}; give each column values of"
            " one type, such as text with astype('string')"
        ) from None
    names = table.schema.names
    if repeated := sorted({column for column in names if names.count(column) > 1}):
        raise ValueError(f"{name}: found the column {', '.join(repeated)} more than once; rename all but one")
    return table


class ResultTable(ABC):
    """A result that any data frame library reads through the Arrow stream interface."""

    __slots__ = ()

    @abstractmethod
    def to_pyarrow(self) -> Any:
        """Return the result as a pyarrow Table."""

    def to_pandas(self) -> Any:
        """Return the result as a pandas DataFrame. Raises ImportError if pandas is not installed."""
        try:
            import pandas  # noqa: F401  # pyarrow's own message does not say what to install
        except ImportError as problem:
            raise ImportError(
                "to_pandas() needs pandas, which is not installed: pip install pandas. Without it, use to_pyarrow(), or"
                " polars.DataFrame(result)"
            ) from problem
        return self.to_pyarrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a PyCapsule of an ArrowArrayStream: `polars.DataFrame(result)` and others read it."""
        return self.to_pyarrow().__arrow_c_stream__(requested_schema)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
