"""Converts Arrow columns of data frames to the values that the row parser of the readers takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from feedrank.api.readers.import_options import ImportOptions
from feedrank.api.readers.times import GUESSED_MS, TimeReader
from feedrank.engine.events.checks import MAX_EXACT_INT, EventError, as_float
from feedrank.engine.events.ids import MISSING_IDS, WHOLE_FLOAT, is_missing

_TIME_OPTIONS = ImportOptions(time_unit="auto", zone="UTC")
_SAMPLE_ROWS = 1000
"""Values of a column, evenly spaced, that decide how its times are read."""


class Converted(NamedTuple):
    """A converted column, and what the report should say about the conversion."""

    column: Any
    """A pyarrow ChunkedArray."""
    notes: tuple[str, ...] = ()


def as_ids(column: Any, name: str) -> Converted:
    """Convert ids to text: integers, and floats that are all whole, become their digits, also where they are text.

    NaN, '' and words such as 'nan' are missing, and blanks around an id are no part of it.

    Raises ValueError for values that can't be ids.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    kind = column.type
    if _is_text(kind):
        texts = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(texts, pa.array(sorted(MISSING_IDS), pa.large_string()))
        odd = pc.sum(pc.and_(missing, pc.not_equal(texts, ""))).as_py()
        texts = pc.if_else(missing, None, texts)
        notes = (
            [f"{odd:,} rows have a word for a missing value in {name!r}, such as 'nan', and are missing"] if odd else []
        )
        if len(texts) > texts.null_count and pc.all(pc.match_substring_regex(texts, WHOLE_FLOAT)).as_py():
            texts = pc.replace_substring_regex(texts, r"\.0$", "")
            notes.append(f"whole numbers with '.0' in {name!r} were read without it")
        return Converted(texts, tuple(notes))
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        return Converted(column.cast(pa.large_string()))
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64(), safe=False)
    elif not pa.types.is_floating(kind):
        raise ValueError(f"column {name!r}: found {kind} values, expected text or integers")
    column = _without_nan(column.cast(pa.float64()))
    fractions = column.filter(pc.not_equal(column, pc.floor(column)))
    if len(fractions):
        raise ValueError(f"column {name!r}: found the id {fractions[0].as_py()!r}, expected integers or text")
    if (pc.max(pc.abs(column)).as_py() or 0) > MAX_EXACT_INT:
        raise ValueError(f"column {name!r}: found float ids above 2**53, which have lost digits; give integers or text")
    return Converted(column.cast(pa.int64()).cast(pa.large_string()), (f"floats in {name!r} were read as integer ids",))


def as_text(column: Any, name: str) -> Converted:
    """Convert text, and numbers as ids are converted; the word 'nan' is a word like any other."""
    import pyarrow.compute as pc

    column = _plain(column)
    if _is_text(column.type):
        return Converted(pc.if_else(pc.equal(column, ""), None, column))
    return Converted(as_ids(column, name).column)


def as_times(column: Any, name: str, part: str = "timestamp") -> Converted:
    """Convert times to epoch milliseconds; what is no time stays as text, so that its rows are rejected with a reason.

    Dates and times without a zone are read as UTC. Numbers and text are read as `TimeReader` reads those of files; the
    unit of numbers is taken from their size. part: timestamp or published. Raises ValueError for values that are no
    times.
    """
    import pyarrow as pa

    column = _plain(column)
    kind = column.type
    if pa.types.is_null(kind):
        return Converted(column.cast(pa.int64()))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        milliseconds = column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
        if pa.types.is_date(kind):
            return Converted(milliseconds, (f"dates in {name!r} were read as midnight UTC",))
        note = f"times in {name!r} have " + (f"the zone {zone}" if zone else "no zone and were read as UTC")
        return Converted(milliseconds, (note,))
    if not (_is_text(kind) or _is_number(kind) or pa.types.is_decimal(kind)):
        raise ValueError(f"column {name!r}: found {kind} values, expected datetimes, dates, epoch numbers or text")
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        column = _without_nan(column.cast(pa.float64(), safe=False))
    return _read_times([None if is_missing(value) else value for value in column.to_pylist()], name, part)


def as_published(column: Any, name: str) -> Converted:
    """Convert times as `as_times` does; numbers may also be years."""
    return as_times(column, name, "published")


def _read_times(values: list[Any], name: str, part: str) -> Converted:
    """Convert numbers and text with one reader."""
    import pyarrow as pa
    import pyarrow.compute as pc

    present = [value for value in values if value is not None]
    reader = TimeReader(_TIME_OPTIONS, name, present[:: max(len(present) // _SAMPLE_ROWS, 1)], part)
    odd: dict[int, str] = {}
    read: list[int | None] = []
    for row, value in enumerate(values):
        try:
            read.append(None if value is None else reader.read(value))
        except EventError:
            # A number would be taken for milliseconds.
            odd[row] = value if _is_no_number(value) else f"{value} ({reader.form_name})"
            read.append(None)
    milliseconds = pa.chunked_array([pa.array(read, pa.int64())])
    notes = reader.notes()
    has_numbers = reader.form_name.startswith("epoch") and not all(map(_is_no_number, present))
    if has_numbers and reader.form_name == "epoch milliseconds":
        notes.append(f"numbers in {name!r} were read as epoch milliseconds")
    is_usual = pc.and_(pc.greater_equal(milliseconds, GUESSED_MS[0]), pc.less_equal(milliseconds, GUESSED_MS[1]))
    if has_numbers and (unusual := pc.sum(pc.invert(is_usual)).as_py()):
        notes.append(f"{unusual:,} times in {name!r} are of another size than most, so they may be wrong")
    if odd:
        texts = [odd.get(row, None if time is None else str(time)) for row, time in enumerate(read)]
        milliseconds = pa.chunked_array([pa.array(texts, pa.large_string())])
    return Converted(milliseconds, tuple(notes))


def _is_no_number(value: Any) -> bool:
    return isinstance(value, str) and as_float(value) is None


def as_numbers(column: Any, name: str) -> Converted:
    """Convert booleans and decimals to numbers; other values stay, for the row parser to check."""
    import pyarrow as pa

    column = _plain(column)
    if pa.types.is_boolean(column.type):
        return Converted(column.cast(pa.int8()), (f"True and False in {name!r} were read as 1 and 0",))
    return Converted(column.cast(pa.float64(), safe=False) if pa.types.is_decimal(column.type) else column)


def as_positions(column: Any, name: str) -> Converted:
    """Convert positions to start from 1."""
    import pyarrow.compute as pc

    column, notes = as_numbers(column, name)
    if _is_number(column.type) and pc.min(column).as_py() == 0:
        return Converted(pc.add(column, 1), (*notes, f"positions in {name!r} start at 0 and were counted from 1"))
    return Converted(column, notes)


def as_list(column: Any, name: str) -> Converted:
    """Convert text such as 'a|b' to a list; a list column stays."""
    import pyarrow.compute as pc

    column = _plain(column)
    if not _is_text(column.type):
        return Converted(column)
    split = pc.split_pattern(column, "|")
    return Converted(split, (f"text in {name!r} was split at '|'",))


def as_names(column: Any, name: str) -> Converted:
    """Convert categories or tags to text or lists; text is split at '|' if any has one. Numbers become their digits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if _is_text(column.type):
        if pc.any(pc.match_substring(column, "|")).as_py():
            return as_list(column, name)
        return Converted(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return as_ids(column, name)
    return Converted(column)


def as_field(column: Any, name: str) -> Converted:
    """Convert any other column to a field: text, numbers, booleans, or lists of text or numbers.

    Times become ISO-8601 text. Raises ValueError for a column that no field can hold.
    """
    import pyarrow as pa

    column = _plain(column)
    kind = column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        raise ValueError("it is empty")
    if _is_text(kind) or pa.types.is_boolean(kind) or _is_number(kind):
        return Converted(column)
    if pa.types.is_decimal(kind):
        return Converted(column.cast(pa.float64(), safe=False))
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return Converted(column.cast(pa.large_string()))
    if _is_list(kind) and (_is_text(kind.value_type) or _is_number(kind.value_type)):
        return Converted(column)
    raise ValueError(f"it holds {kind} values, and a field is text, a number, a boolean or a list of text or numbers")


CONVERTERS: dict[str, Callable[[Any, str], Converted]] = {
    "user": as_ids,
    "item": as_ids,
    "ranking": as_ids,
    "session": as_ids,
    "id": as_ids,
    "type": as_text,
    "surface": as_text,
    "timestamp": as_times,
    "published": as_published,
    "value": as_numbers,
    "dwell_ms": as_numbers,
    "position": as_positions,
    "title": as_text,
    "text": as_text,
    "category": as_names,
    "tags": as_names,
    "items": as_list,
    "labels": as_numbers,
    "positions": as_positions,
    "scores": as_numbers,
    "propensities": as_numbers,
}
"""Part of an event -> the conversion of its column."""


def _plain(column: Any) -> Any:
    """Decode a dictionary-encoded (categorical) or extension column, and bring text into one of Arrow's text types."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string()) if _is_text(column.type) else column


def _without_nan(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.if_else(pc.is_finite(column), column, None)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
