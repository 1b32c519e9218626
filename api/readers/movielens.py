"""Read MovieLens in its three file layouts: 100K, the later releases, and RecBole's atomic files.

Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedrank.api.readers import lines, records
from feedrank.api.readers.folders import COMPRESSION_SUFFIXES, Folder
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genres in the order of the flags in u.item."""

_Film = tuple[str, list[str]]
"""A title with its year, and the names of its genres."""


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the films as item events at time 0, then the ratings ordered by (timestamp, item, user), ids as numbers.

    `path` is a folder or a zip with u.data and u.item, with ratings.csv and movies.csv (compressed or not), or with
    RecBole's *.inter and *.item (its wheel is such a zip). Ratings are interactions of type "rating" with the rating
    as value; their ids end with the event's timestamp in milliseconds. Raises ValueError if a file is missing.
    """
    with Folder(path) as folder:
        form = _detect_layout(folder)
        yield from _film_items(folder, form, rejects)
        yield from _rating_events(folder, form, rejects)


def is_movielens(folder: Folder) -> bool:
    """Return whether the folder holds ratings in one of the three layouts."""
    return any(folder.find(name) for name in ("u.data", "ratings.csv")) or bool(_atomic_files(folder))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Files and cell layout of films and ratings; columns are named, or given by position if there is no header."""

    ratings: str
    films: str
    rating_columns: tuple[str, ...] | None
    """Columns of user, item, rating and timestamp; None: no header, and these are the four cells."""
    film_columns: tuple[str, ...] | None
    """The item's column, then those that `film` takes; None: no header, all cells, and the first is the item."""
    film: Callable[[list[str]], _Film]
    """Parses a film's cells, without the item's."""
    delimiters: tuple[str, str] = ("\t", "\t")
    """Delimiters of ratings and films; a comma means CSV with quotes."""
    widths: tuple[int, int] = (0, 0)
    """Cells per line of ratings and films; 0: as many as in the header."""
    film_encoding: str = "utf-8"


def _detect_layout(folder: Folder) -> _Layout:
    if ratings := folder.find("u.data"):
        films = _required_file(folder, ratings, "u.item")
        return _Layout(ratings, films, None, None, _film_100k, ("\t", "|"), (4, 5 + len(GENRES)), "latin-1")
    if ratings := folder.find("ratings.csv"):
        films = _required_file(folder, ratings, "movies.csv")
        columns = ("userId", "movieId", "rating", "timestamp")
        return _Layout(ratings, films, columns, ("movieId", "title", "genres"), _film_later, (",", ","))
    if stems := _atomic_files(folder):
        stem = next(iter(stems))
        if len(stems) > 1:
            raise ValueError(f"{folder.path} has {', '.join(stems.values())}, expected one; put it in its own folder")
        columns = ("user_id", "item_id", "rating", "timestamp")
        film_columns = ("item_id", "movie_title", "release_year", "class")
        return _Layout(
            stems[stem], _required_file(folder, stems[stem], f"{stem}.item"), columns, film_columns, _film_atomic
        )
    raise ValueError(
        f"{folder.path} has no MovieLens ratings; expected u.data and u.item, ratings.csv and movies.csv, or"
        " ml-100k.inter and ml-100k.item"
    )


def _atomic_files(folder: Folder) -> dict[str, str]:
    """Return stem -> file name of each .inter file."""
    suffixes = [(name, ".inter" + compression) for name in folder.names for compression in COMPRESSION_SUFFIXES]
    return {name.removesuffix(suffix): name for name, suffix in suffixes if name.endswith(suffix)}


def _required_file(folder: Folder, ratings: str, films: str) -> str:
    found = folder.find(films)
    if found is None:
        raise ValueError(f"{folder.path} has {ratings} but no {films}, which holds the films; put it next to {ratings}")
    return found


def _film_items(folder: Folder, layout: _Layout, rejects: Rejects) -> Iterator[ItemEvent]:
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
        rejects.accept()
        fields: dict[str, FieldValue] = {"title": title}
        if genres:
            fields["category"] = genres
        yield ItemEvent(f"item:{name}", 0, name, fields)


def _rating_events(folder: Folder, layout: _Layout, rejects: Rejects) -> Iterator[InteractionEvent]:
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
        rejects.accept()
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
    indexes: list[int] | None = None
    with folder.open(name) as stream:
        numbered = lines.decode_lines(stream, source, rejects, encoding)
        if delimiter == ",":
            table = records.split_csv(numbered, source, rejects)
        else:
            table = records.split_delimited(numbered, source, rejects, delimiter=delimiter, width=width)
        for number, text, cells in table:
            if columns is None:
                yield number, text, cells
            elif indexes is None:
                header = [cell.partition(":")[0].strip() for cell in cells]  # RecBole adds the type: user_id:token.
                if missing := [column for column in columns if column not in header]:
                    raise ValueError(
                        f"{source} has no column {', '.join(missing)}: found {', '.join(header)}, expected"
                        f" {', '.join(columns)}"
                    )
                indexes = [header.index(column) for column in columns]
            else:
                yield number, text, [cells[index] for index in indexes]


def _film_100k(cells: list[str]) -> _Film:
    flags = cells[4:]
    if not set(flags) <= {"0", "1"}:
        raise ValueError(f"genres: found {'|'.join(flags)!r}, expected {len(GENRES)} flags of 0 or 1")
    return _title(cells[0]), [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]


def _film_later(cells: list[str]) -> _Film:
    title, genres = cells
    return _title(title), [] if genres == "(no genres listed)" else [genre for genre in genres.split("|") if genre]


def _film_atomic(cells: list[str]) -> _Film:
    title, year, genres = cells
    if title == year == "unkonwn":  # RecBole's spelling of the film named "unknown" in 100K.
        title, year = "unknown", ""
    return _title(f"{_title(title)} ({year.strip()})" if year.strip() else title), genres.split()


def _title(text: str) -> str:
    if not text.strip():
        raise ValueError("title: found nothing, expected the name of the film")
    return text.strip()


def _id(text: str, name: str) -> int:
    digits = text.strip()
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
