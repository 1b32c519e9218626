"""Read MovieLens in its four file layouts: 100K, 1M and 10M, the later releases, and RecBole's atomic files.

Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from feedrank.api.readers import lines, records
from feedrank.api.readers.delimited import split_table
from feedrank.api.readers.folders import Folder, SingleFile, open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.movielens_layouts import (
    CSV_FILMS,
    CSV_RATINGS,
    CSV_TAGS,
    DAT_FILES,
    GENRES,
    OCCUPATIONS,
    Layout,
    atomic_files,
    dat_encoding,
    dat_layout,
    detect_layout,
    film_100k,
    film_later,
    is_own_atomic,
)
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.tag_history import GivenTag, tag_events
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, UserEvent


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the films as item events at time 0, then the ratings ordered by (timestamp, item, user), ids as numbers.

    `path` is a folder or a zip with u.data and u.item, with ratings.dat and movies.dat, with ratings.csv and movies.csv
    (compressed or not), or with RecBole's ml-100k.inter and .item (its wheel is such a zip). Ratings are interactions
    of type "rating" with the rating as value; their ids end with the event's timestamp in milliseconds. The users of
    users.dat come before the ratings. Raises ValueError if a file is missing.

    `path` may also be one of these files, or tags.csv or tags.dat, plain or in a zip: tags become the items' tags as
    of the time at which they were given. Those of a folder are not read with it.
    """
    with open_files(path) as folder:
        if isinstance(folder, SingleFile) or (path.is_file() and len(folder.names) == 1):
            yield from _read_single_file(folder, rejects, options)
            return
        form = detect_layout(folder)
        form = replace(form, film_encoding=options.encoding or form.film_encoding)
        yield from _film_items(folder, form, rejects)
        yield from _users(folder, rejects)
        yield from _rating_events(folder, form, rejects)
        for name in (*folder.match("tags.csv"), *folder.match("tags.dat")):
            rejects.note(f"tags of {folder.source(name)} were not read; import that file by itself to add them")


def is_movielens(folder: Folder) -> bool:
    """Return whether the folder, or the single file, holds ratings in one of the four layouts."""
    if isinstance(folder, SingleFile):
        return any(folder.find(name) for name in ("u.data", "u.item", *DAT_FILES))
    return any(folder.find(name) for name in ("u.data", "ratings.dat", "ratings.csv")) or any(
        is_own_atomic(folder, stem) for stem in atomic_files(folder)
    )


def is_columns(columns: Iterable[str]) -> bool:
    """Return whether a header is that of the later releases' ratings, films or tags."""
    return any(set(header) <= set(columns) for header in (CSV_RATINGS, CSV_FILMS, CSV_TAGS))


def _read_single_file(folder: Folder, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    """Read one file of the releases by itself: films, users, ratings or tags; its name or its header tells which."""
    name = folder.names[0]
    kind = folder.plain_name(name).lower()
    encoding = options.encoding
    if kind == "users.dat":
        yield from _users(folder, rejects)
    elif kind == "tags.dat":
        yield from _tag_items(folder, name, rejects, None, "::")
    elif kind in ("movies.dat", "ratings.dat"):
        layout = dat_layout(folder, name, name if kind == "movies.dat" else "")
        layout = replace(layout, film_encoding=encoding or layout.film_encoding)
        yield from (_film_items if kind == "movies.dat" else _rating_events)(folder, layout, rejects)
    elif kind in ("u.data", "u.item"):
        layout = Layout(name, name, None, None, film_100k, ("\t", "|"), (4, 5 + len(GENRES)), encoding or "latin-1")
        yield from (_film_items if kind == "u.item" else _rating_events)(folder, layout, rejects)
    else:
        known = [column.lower() for column in (*CSV_RATINGS, *CSV_FILMS, *CSV_TAGS)]
        with folder.open(name) as stream:
            numbered = lines.decode_lines(stream, name, Rejects(), encoding or "utf-8")
            table = split_table(numbered, name, Rejects(), DEFAULTS, (), known)
        columns = [] if table is None else table.header
        layout = Layout(name, name, CSV_RATINGS, CSV_FILMS, film_later, (",", ","), film_encoding=encoding or "utf-8")
        if set(CSV_TAGS) <= set(columns):
            yield from _tag_items(folder, name, rejects, CSV_TAGS, ",")
        elif set(CSV_FILMS) <= set(columns):
            yield from _film_items(folder, layout, rejects)
        else:
            yield from _rating_events(folder, layout, rejects)


def _users(folder: Folder, rejects: Rejects) -> Iterator[UserEvent]:
    """Yield the users of 1M's users.dat; the lowest age of each class is the age."""
    name = folder.find("users.dat")
    if name is None:
        return
    for number, text, (user, gender, age, occupation, zip_code) in _table(
        folder, name, rejects, None, "::", 5, dat_encoding(folder, name)
    ):
        try:
            code = _id(occupation, "occupation")
            if code >= len(OCCUPATIONS):
                raise ValueError(f"occupation: found {occupation!r}, expected 0 to {len(OCCUPATIONS) - 1}")
            fields: dict[str, FieldValue] = {
                "gender": gender, "age": _number(age, "age"), "occupation": OCCUPATIONS[code], "zip": zip_code
            }  # fmt: skip
            user_id = str(_id(user, "user"))
        except ValueError as problem:
            rejects.reject(folder.source(name), number, str(problem), text)
            continue
        rejects.accept(number)
        yield UserEvent(f"user:{user_id}", 0, user_id, {key: value for key, value in fields.items() if value != ""})


def _tag_items(
    folder: Folder, name: str, rejects: Rejects, columns: tuple[str, ...] | None, separator: str
) -> Iterator[Event]:
    given: list[GivenTag] = []
    encoding = dat_encoding(folder, name) if separator == "::" else "utf-8"
    for number, text, (_, item, tag, time) in _table(folder, name, rejects, columns, separator, 4, encoding):
        try:
            entry = GivenTag(round(_number(time, "timestamp") * 1000), str(_id(item, "item")), tag.strip())
        except ValueError as problem:
            rejects.reject(folder.source(name), number, str(problem), text)
            continue
        rejects.accept()  # without its number, as the events come in another order
        given.append(entry)
    yield from tag_events(entry for entry in given if entry.tag)


def _film_items(folder: Folder, layout: Layout, rejects: Rejects) -> Iterator[ItemEvent]:
    seen: set[str] = set()
    options = (layout.film_columns, layout.delimiters[1], layout.widths[1], layout.film_encoding)
    for number, text, (item, *cells) in _table(folder, layout.films, rejects, *options):
        try:
            name = str(_id(item, "item"))
            if name in seen:
                raise ValueError(f"item {name!r} is in this file twice")
            title, genres = layout.film(cells)
        except ValueError as problem:
            rejects.reject(folder.source(layout.films), number, str(problem), text)
            continue
        seen.add(name)
        rejects.accept(number)
        fields: dict[str, FieldValue] = {"title": title}
        if genres:
            fields["category"] = genres
        yield ItemEvent(f"item:{name}", 0, name, fields)


def _rating_events(folder: Folder, layout: Layout, rejects: Rejects) -> Iterator[InteractionEvent]:
    # Numeric columns, because the largest release has 32 million ratings to sort.
    times, items, users, values = array("q"), array("q"), array("q"), array("d")
    for number, text, cells in _table(
        folder, layout.ratings, rejects, layout.rating_columns, layout.delimiters[0], layout.widths[0]
    ):
        try:
            user, item = _id(cells[0], "user"), _id(cells[1], "item")
            value, seconds = _number(cells[2], "rating"), _number(cells[3], "timestamp")
            if not 0 <= seconds < 1e12:
                raise ValueError(f"timestamp: found {cells[3]!r}, expected seconds since 1970")
        except ValueError as problem:
            rejects.reject(folder.source(layout.ratings), number, str(problem), text)
            continue
        rejects.accept()  # without its number, as the events come in another order
        times.append(round(seconds * 1000))
        items.append(item)
        users.append(user)
        values.append(value)
    for row in np.lexsort([np.array(column, np.int64) for column in (users, items, times)]).tolist():
        user_name, item_name, time = str(users[row]), str(items[row]), times[row]
        yield InteractionEvent(
            f"rating:{user_name}:{item_name}:{time}", time, item_name, "rating", user=user_name, value=values[row]
        )


def _table(
    folder: Folder,
    name: str,
    rejects: Rejects,
    columns: tuple[str, ...] | None,
    delimiter: str,
    width: int,
    encoding: str = "utf-8",
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, text, cells of `columns`) for each record; with `columns` the first record is the header."""
    source = folder.source(name)
    with folder.open(name) as stream:
        numbered = lines.decode_lines(stream, source, rejects, encoding)
        if columns is None or delimiter != ",":
            table = records.split_delimited(numbered, source, rejects, delimiter=delimiter, width=width)
            if columns is None:
                yield from table
                return
            first = next(table, None)
            # RecBole adds the type: user_id:token
            header = [] if first is None else [cell.partition(":")[0].strip() for cell in first.cells]
        else:
            opened = split_table(numbered, source, rejects, DEFAULTS, (), [column.lower() for column in columns])
            header, table = ([], iter(())) if opened is None else (opened.header, opened.records)
        if not header:
            return
        if missing := [column for column in columns if column not in header]:
            raise ValueError(
                f"{source} has no column {', '.join(missing)}: found {', '.join(header)}, expected {', '.join(columns)}"
            )
        indexes = [header.index(column) for column in columns]
        for number, text, cells in table:
            yield number, text, [cells[index] for index in indexes]


def _id(text: str, name: str) -> int:
    digits = text.strip().removesuffix(".0")  # pandas writes a column with gaps as floats
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise ValueError(f"{name}: found {text!r}, expected a whole number")
    return int(digits)


def _number(text: str, name: str) -> float:
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: found {text!r}, expected a finite number")
    return number
