"""The feeds of many users as one table, for batch jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feedrank.api.python.frames import ResultTable


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class FeedTable(ResultTable):
    """Feeds with one row per user and item; any data frame library reads it, such as `polars.DataFrame(feeds)`."""

    table: Any
    """A pyarrow Table: user (text), position (from 1), item (text), score (higher is better), source of the
    candidates. Users are in the order in which they were given."""
    users: int
    """Number of distinct users."""
    unknown_users: tuple[str, ...]
    """Users without interactions and rankings; they get popular items."""
    empty_users: tuple[str, ...]
    """Users without a row, since they have interacted with every item."""
    seconds: float

    def to_pyarrow(self) -> Any:
        """Return the pyarrow Table."""
        return self.table

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        """Describe the table in one line."""
        unknown = f", {len(self.unknown_users):,} of them unknown" if self.unknown_users else ""
        empty = f", {len(self.empty_users):,} with an empty feed" if self.empty_users else ""
        columns = ", ".join(self.table.schema.names)
        return f"feeds of {self.users:,} users{unknown}{empty}: {len(self):,} rows ({columns})"
