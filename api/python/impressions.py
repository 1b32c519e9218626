"""Groups a table with one row per impression into one row per ranking."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

ROW = "__row__"
"""Column of the row number, from 1; of a ranking, that of its first row."""
_PER_ITEM = ("positions", "labels", "scores", "propensities")


def group(table: Any, fields: Collection[str]) -> tuple[Any, tuple[str, ...], dict[str, str], dict[int, str]]:
    """Group the rows by the ranking's `id`; items are in the order of `positions`, or else in that of the rows.

    fields: columns that are neither parts of the ranking nor of its items. Returns the table of rankings, the fields
    that differ within a ranking and so belong to its items, which are lists, the fields that can't be used with the
    reason, and row number -> reason of rows that can't be used.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    invalid = dict.fromkeys(
        table.filter(pc.is_null(table["id"]))[ROW].to_pylist(), "ranking: found nothing, expected the ranking's id"
    )
    with_id = table.filter(pc.is_valid(table["id"]))
    order = [("positions", "ascending")] if "positions" in table.schema.names else []
    with_id = with_id.sort_by([*order, (ROW, "ascending")])
    nested = [name for name in fields if pa.types.is_nested(table.schema.field(name).type)]
    flat = [name for name in fields if name not in nested]
    per_item = [name for name in ("item", *_PER_ITEM) if name in table.schema.names]
    shared = [name for name in table.schema.names if name not in (*per_item, *fields, "id", ROW)]
    if pa.types.is_integer(table.schema.field("timestamp").type):
        times = [("timestamp", "min")]
        shared.remove("timestamp")
    else:
        times = []  # text: some of it is no time, and its ranking is rejected
    distinct = [(name, "count_distinct") for name in (*flat, *(name for name in ("user",) if name in shared))]
    grouped = with_id.group_by("id", use_threads=False).aggregate(
        [(name, "list") for name in per_item]
        + [(name, "first") for name in (*shared, *flat)]
        + [(name, "list") for name in flat]
        + [(ROW, "min"), *times, *distinct]
    )
    unused = dict.fromkeys(nested, "it is a list for each item of a ranking")
    varying = tuple(name for name in flat if (pc.max(grouped[f"{name}_count_distinct"]).as_py() or 0) > 1)
    if "user_count_distinct" in grouped.schema.names:
        mixed = grouped.filter(pc.greater(grouped["user_count_distinct"], 1))
        reason = "user: found several users in one ranking, expected one; are its ids unique?"
        invalid |= dict.fromkeys(mixed[f"{ROW}_min"].to_pylist(), reason)
    columns = {"id": grouped["id"], "items": grouped["item_list"], ROW: grouped[f"{ROW}_min"]}
    columns |= {name: grouped[f"{name}_list"] for name in per_item if name != "item"}
    columns |= {name: grouped[f"{name}_first"] for name in (*shared, *flat) if name not in varying}
    columns |= {name: grouped[f"{name}_list"] for name in varying}
    columns |= {name: grouped[f"{name}_min"] for name, _ in times}
    rankings = pa.table(columns)
    return rankings.sort_by(ROW), varying, unused, invalid
