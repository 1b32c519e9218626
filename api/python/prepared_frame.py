"""A data frame whose columns are mapped and converted, ready to be parsed into events row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feedrank.api.python import impressions
from feedrank.api.python.arrow_columns import CONVERTERS, as_field, as_list
from feedrank.api.python.columns import map_columns
from feedrank.api.readers.rows import EVENT_COLUMNS

KINDS = {"items": "item", "users": "user", "rankings": "ranking", "interactions": "interaction"}
"""Frame -> the type of its events; in the order in which frames are written to the journal."""
_REQUIRED = {"items": ("item",), "users": ("user",), "interactions": ("item", "timestamp"), "rankings": ("timestamp",)}
_RATING_COLUMNS = ("rating", "ratings", "stars", "overall")
"""Names of value columns that say that the interactions are ratings."""
_BATCH_ROWS = 8192


@dataclass(frozen=True, eq=False, slots=True)
class PreparedFrame:
    """A frame with one row per event; its columns are named like parts of the event, or are fields of it."""

    frame: str
    """items, users, rankings or interactions."""
    table: Any
    """A pyarrow Table."""
    n_rows: int
    """Rows of the frame as it was given."""
    columns: Mapping[str, str]
    """Part -> the frame's column."""
    fields: tuple[str, ...]
    """Columns that become fields of the events."""
    unused: Mapping[str, str]
    """Column that can't be used -> why."""
    notes: tuple[str, ...]
    """How values were read."""
    invalid: Mapping[int, str]
    """Row number, from 1 -> why the row, and what belongs to it, can't be used."""
    item_fields: tuple[str, ...] = ()
    """Those of the fields that belong to the items of a ranking: they differ within rankings."""

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number from 1, event column -> value) of each event, as `RowParser` takes it."""
        kind = KINDS[self.frame]
        for batch in self.table.to_batches(_BATCH_ROWS):
            for row in batch.to_pylist():
                number = row.pop(impressions.ROW)
                if number not in self.invalid:
                    row |= self._with_item_fields(row)
                    yield number, {**row, "event": kind}

    def _with_item_fields(self, row: dict[str, Any]) -> dict[str, Any]:
        """Move the columns of a ranking's items into its items."""
        if not self.item_fields:
            return {}
        columns = [row.pop(name) for name in self.item_fields]
        fields = [dict(zip(self.item_fields, values, strict=True)) for values in zip(*columns, strict=True)]
        return {"items": [{"id": item, "fields": named} for item, named in zip(row["items"], fields, strict=True)]}


def prepare_frame(frame: str, table: Any, given: Mapping[str, str | None]) -> PreparedFrame:
    """Map and convert the columns of a frame. given: part -> column, for columns with other names.

    Raises ValueError for a frame without a part that its events need, or with values that can't be that part.
    """
    import pyarrow as pa

    table = table.drop_columns([name for name in table.schema.names if name.startswith("__index_level_")])
    mapped = map_columns(frame, table.schema.names, given)
    parts, others = dict(mapped.parts), list(mapped.others)
    if frame == "rankings" and {"item", "items"} <= parts.keys():
        dropped = "item" if _holds_lists(table.column(parts["items"])) else "items"
        others.append(parts.pop(dropped))
    _check_required(frame, parts, table.schema.names)
    columns: dict[str, Any] = {}
    notes: list[str] = []
    for part, name in parts.items():
        convert = CONVERTERS[part]
        if frame == "rankings" and "items" in parts and part in ("labels", "positions", "scores", "propensities"):
            convert = as_list
        columns[part], more = convert(table.column(name), name)
        notes += more
    if frame == "interactions":
        notes += _complete_interactions(columns, parts, table)
    fields, unused = _field_columns(frame, table, others, columns)
    columns |= fields
    columns[impressions.ROW] = pa.chunked_array([pa.array(range(1, len(table) + 1), pa.int64())])
    prepared = pa.table(columns)
    invalid: dict[int, str] = {}
    per_item: tuple[str, ...] = ()
    if frame == "rankings" and "item" in parts:
        prepared, per_item, nested, invalid = impressions.group(prepared, fields)
        unused |= nested
        notes.append(f"rows were grouped into rankings by {parts['id']!r}")
    used = tuple(name for name in fields if name not in unused)
    return PreparedFrame(frame, prepared, len(table), parts, used, unused, tuple(notes), invalid, per_item)


def _check_required(frame: str, parts: Mapping[str, str], names: list[str]) -> None:
    needed = [*_REQUIRED[frame]]
    if frame == "rankings":
        needed += ["item", "id"] if "items" not in parts and "item" in parts else ["items"]
    missing = [part for part in needed if part not in parts]
    if not missing:
        return
    more = " (a list column, or one row per item with the columns `item` and `ranking`)" if "items" in missing else ""
    raise ValueError(
        f"{frame}: found no column for {' and '.join(missing)}{more} among {', '.join(names) or 'no columns'}; name it"
        f" with columns={{{missing[0]!r}: 'your column'}}"
    )


def _complete_interactions(columns: dict[str, Any], parts: Mapping[str, str], table: Any) -> list[str]:
    """Add what a frame of interactions leaves open; return notes about it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    notes = []
    if "id" in parts and not pa.types.is_string(_type_of_text(table.column(parts["id"]).type)):
        # numbers count rows, and other frames count theirs from the same start; an event id is unique in the journal
        prefix, colon = pa.scalar("interaction", pa.large_string()), pa.scalar(":", pa.large_string())
        columns["id"] = pc.binary_join_element_wise(prefix, columns["id"], colon)
    if "type" not in parts and parts.get("value", "").lower() in _RATING_COLUMNS:
        columns["type"] = pa.chunked_array([pa.array(["rating"] * len(table), pa.string())])
        notes.append(f"there is no type column; because of {parts['value']!r} the type is 'rating'")
    elif "type" not in parts:
        notes.append("there is no type column; the type is 'click'")
    if "user" not in parts:
        notes.append("there is no user column, so the interactions count for the items only")
    elif missing := columns["user"].null_count:
        notes.append(f"{missing:,} rows have no user and count for the items only")
    return notes


def _field_columns(
    frame: str, table: Any, others: list[str], columns: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the columns that become fields, converted, and the others with the reason why they can't."""
    reserved = {"event", "id", "timestamp", "labels", *EVENT_COLUMNS[KINDS[frame]], *columns, impressions.ROW}
    fields, unused = {}, {}
    for name in others:
        if not name:
            unused["(no name)"] = "it has no name"
        elif name in reserved:
            unused[name] = f"`{name}` is a part of the event, and this column is not used for it"
        else:
            try:
                fields[name] = as_field(table.column(name), name).column
            except ValueError as problem:
                unused[name] = str(problem)
    return fields, unused


def _holds_lists(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(column.type))


def _type_of_text(kind: Any) -> Any:
    """Return the string type for each of Arrow's text types, also dictionary-encoded; other types as they are."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind
