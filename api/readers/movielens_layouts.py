"""The file layouts of MovieLens: 100K, 1M and 10M, the later releases, and RecBole's atomic files of 100K."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from feedrank.api.readers import lines
from feedrank.api.readers.folders import COMPRESSION_SUFFIXES, Folder
from feedrank.api.readers.rejects import Rejects

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genres in the order of the flags in u.item."""

OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip
"""Occupations in the order of the numbers in users.dat."""

Film = tuple[str, list[str]]
"""A title with its year, and the names of its genres."""


CSV_RATINGS = ("userId", "movieId", "rating", "timestamp")
CSV_FILMS = ("movieId", "title", "genres")
CSV_TAGS = ("userId", "movieId", "tag", "timestamp")
DAT_FILES = ("ratings.dat", "movies.dat", "users.dat", "tags.dat")


@dataclass(frozen=True, slots=True)
class Layout:
    """Files and cell layout of films and ratings; columns are named, or given by position if there is no header."""

    ratings: str
    films: str
    rating_columns: tuple[str, ...] | None
    """Columns of user, item, rating and timestamp; None: no header, and these are the four cells."""
    film_columns: tuple[str, ...] | None
    """The item's column, then those that `film` takes; None: no header, all cells, and the first is the item."""
    film: Callable[[list[str]], Film]
    """Parses a film's cells, without the item's."""
    delimiters: tuple[str, str] = ("\t", "\t")
    """Delimiters of ratings and films; a comma means CSV with quotes."""
    widths: tuple[int, int] = (0, 0)
    """Cells per line of ratings and films; 0: as many as in the header."""
    film_encoding: str = "utf-8"


def detect_layout(folder: Folder) -> Layout:
    if ratings := folder.find("u.data"):
        films = _required_file(folder, ratings, "u.item")
        return Layout(ratings, films, None, None, film_100k, ("\t", "|"), (4, 5 + len(GENRES)), "latin-1")
    if ratings := folder.find("ratings.dat"):
        return dat_layout(folder, ratings, _required_file(folder, ratings, "movies.dat"))
    if ratings := folder.find("ratings.csv"):
        films = _required_file(folder, ratings, "movies.csv")
        return Layout(ratings, films, CSV_RATINGS, CSV_FILMS, film_later, (",", ","))
    if stems := atomic_files(folder):
        stem = next(iter(stems))
        if len(stems) > 1:
            raise ValueError(f"{folder.path} has {', '.join(stems.values())}, expected one; put it in its own folder")
        columns = ("user_id", "item_id", "rating", "timestamp")
        film_columns = ("item_id", "movie_title", "release_year", "class")
        return Layout(
            stems[stem], _required_file(folder, stems[stem], f"{stem}.item"), columns, film_columns, _film_atomic
        )
    raise ValueError(
        f"{folder.path} has no MovieLens ratings; expected u.data and u.item, ratings.dat and movies.dat, ratings.csv"
        " and movies.csv, or ml-100k.inter and ml-100k.item"
    )


def dat_layout(folder: Folder, ratings: str, films: str) -> Layout:
    encoding = dat_encoding(folder, films) if films else "utf-8"
    return Layout(ratings, films, None, None, film_later, ("::", "::"), (4, 3), encoding)


def dat_encoding(folder: Folder, name: str) -> str:
    """Return UTF-8 if a file is in it, as those of 10M are; those of 1M are in Latin-1."""
    problems = Rejects()
    with folder.open(name) as stream:
        for _ in lines.decode_lines(stream, name, problems):
            pass
    examples = [problems.example(reason)[1] for reason in problems.reasons()]
    return "latin-1" if any(reason.startswith("not utf-8") for reason in examples) else "utf-8"


def atomic_files(folder: Folder) -> dict[str, str]:
    """Return stem -> file name of each .inter file."""
    suffixes = [(name, ".inter" + compression) for name in folder.names for compression in COMPRESSION_SUFFIXES]
    return {name.removesuffix(suffix): name for name, suffix in suffixes if name.endswith(suffix)}


def is_own_atomic(folder: Folder, stem: str) -> bool:
    """Return whether atomic files are those of MovieLens 100K, whose films have a title, a year and a class."""
    name = folder.find(f"{stem}.item")
    if name is None:
        return stem == "ml-100k"
    with folder.open(name) as stream:
        first = next((text for _, text in lines.decode_lines(stream, name, Rejects())), "")
    return {"movie_title", "release_year", "class"} <= {cell.partition(":")[0] for cell in first.split("\t")}


def _required_file(folder: Folder, ratings: str, films: str) -> str:
    found = folder.find(films)
    if found is None:
        raise ValueError(f"{folder.path} has {ratings} but no {films}, which holds the films; put it next to {ratings}")
    return found


def film_100k(cells: list[str]) -> Film:
    flags = cells[4:]
    if not set(flags) <= {"0", "1"}:
        raise ValueError(f"genres: found {'|'.join(flags)!r}, expected {len(GENRES)} flags of 0 or 1")
    return _title(cells[0]), [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]


def film_later(cells: list[str]) -> Film:
    title, genres = cells
    return _title(title), [] if genres == "(no genres listed)" else [genre for genre in genres.split("|") if genre]


def _film_atomic(cells: list[str]) -> Film:
    title, year, genres = cells
    if title == year == "unkonwn":  # RecBole's spelling of the film named "unknown" in 100K.
        title, year = "unknown", ""
    return _title(f"{_title(title)} ({year.strip()})" if year.strip() else title), genres.split()


def _title(text: str) -> str:
    if not text.strip():
        raise ValueError("title: found nothing, expected the name of the film")
    return text.strip()
