"""Read feature files of learning to rank: LETOR, SVMlight with query ids or a query file, and tables with query ids.

LETOR: Qin, Liu, Xu, Li, LETOR: A benchmark collection for research on learning to rank, 2010.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from feedrank.api.readers import feature_table, graded_lists, lines, records
from feedrank.api.readers.feature_lines import indices_of, is_data, is_feature_lines, parse_line
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.graded_lists import GradedRow
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.separators import find_start
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import MAX_FIELDS

SIZE_SUFFIXES = (".query", ".group")
"""Endings of files with the sizes of queries beside a feature file: LightGBM's and XGBoost's."""
_OTHER_SUFFIXES = (*SIZE_SUFFIXES, ".weight", ".init", ".position")
_FIRST_LINES = 20
_ORDER = ("train", "", "vali", "dev", "test")
ABSENT = "absent"
"""Value of the import option `missing` that leaves out numbers which sparse lines leave out; otherwise they are 0."""


def is_letor(folder: Folder) -> bool:
    """Return whether a folder, or a single file, holds lines of LETOR or SVMlight."""
    return "lines" in _feature_files(folder, DEFAULTS).values()


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read each query as a ranking: its items in the order of the file, with their grades as labels.

    The numbers of a row become fields that the list brings for the item: f1, f2, ... by the indices of the file, or by
    the names of a table's columns. An item's id is the `docid` of the comment, or else FILE:QUERY:NUMBER. Queries are
    named by `qid:`, by a column, or by a file NAME.query or NAME.group beside NAME, which holds their sizes. A number
    that a sparse line leaves out is 0, unless the option `missing` is absent. The files of a folder are read in the
    order training, validation, test. Times are synthetic, in file order: see `list_ms`.

    Raises ValueError for a file without query ids, or with more than 1,000 features.
    """
    with open_files(path) as folder:
        forms = _feature_files(folder, options)
        if not any(forms.values()):
            raise ValueError(
                f"{path}: found no line such as '2 qid:10 1:0.5 2:0.1' and no table with the columns qid and label,"
                " expected a feature file"
            )
        if others := [name for name, form in forms.items() if not form]:
            rejects.note(f"no feature files, and not read: {', '.join(others)}")
        for name in sorted((name for name, form in forms.items() if form), key=_position):
            plain, source = folder.plain_name(name), folder.source(name)
            if forms[name] == "table":
                rows = feature_table.read_rows(_lines(folder, name, rejects, options), source, rejects, options)
                yield from graded_lists.read_rankings(rows, plain, source, rejects)
            else:
                yield from _read_lines(folder, name, rejects, options)


def _read_lines(folder: Folder, name: str, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    plain, source = folder.plain_name(name), folder.source(name)
    n_lines, indices = 0, set[int]()
    for _, text in _lines(folder, name, Rejects(), options):
        if is_data(text):
            n_lines += 1
            indices |= indices_of(text)
            if len(indices) > MAX_FIELDS:
                raise ValueError(f"{source}: found more than {MAX_FIELDS:,} features, expected at most {MAX_FIELDS:,}")
    zeros = [] if options.missing == ABSENT else [f"f{index}" for index in sorted(indices)]
    rejects.note(
        "numbers that a line leaves out are missing (--missing absent)"
        if options.missing == ABSENT
        else "numbers that a line leaves out are 0, as in SVMlight; --missing absent keeps them missing"
    )
    sizes = _sizes(folder, name, n_lines, rejects)
    rows = _rows(_lines(folder, name, rejects, options), source, rejects, sizes)
    yield from graded_lists.read_rankings(rows, plain, source, rejects, zeros)


def _rows(
    numbered: Iterator[tuple[int, str]], source: str, rejects: Rejects, sizes: Sequence[int] | None
) -> Iterator[GradedRow]:
    """Parse the lines. sizes: number of lines of each query, which is then named by its number; None: by `qid:`."""
    by_size = iter(()) if sizes is None else (str(query) for query, size in enumerate(sizes, 1) for _ in range(size))
    for number, text in numbered:
        if not is_data(text):
            continue
        of_size = next(by_size, None)
        try:
            line = parse_line(text)
            query = line.query if sizes is None else of_size
            if query is None:
                raise ValueError("found no query id, expected one after the label, such as qid:10")
        except ValueError as problem:
            rejects.reject(source, number, str(problem), text)
            continue
        rejects.accept(number)
        fields: dict[str, float | None] = {f"f{index}": value for index, value in line.numbers.items()}
        fields |= dict.fromkeys((f"f{index}" for index in line.missing), None)
        yield GradedRow(number, str(query), line.label, fields, line.document)


def _sizes(folder: Folder, name: str, n_lines: int, rejects: Rejects) -> list[int] | None:
    """Return the sizes of the queries of a file whose lines have no `qid:`; None if they have it.

    Raises ValueError if there is no file of sizes, or if it does not fit.
    """
    first = next((text for _, text in _lines(folder, name, Rejects(), DEFAULTS) if is_data(text)), "")
    if " qid:" in first.replace("\t", " "):
        return None
    plain, source = folder.plain_name(name), folder.source(name)
    beside = next((found for suffix in SIZE_SUFFIXES if (found := folder.find_beside(plain + suffix))), None)
    if beside is None:
        raise ValueError(
            f"{source}: found lines without qid: and no file {plain}.query or {plain}.group beside it, expected query"
            " ids, or the number of lines of each query, one number a line"
        )
    with folder.open(beside) as stream:
        texts = [text.strip() for _, text in lines.decode_lines(stream, beside, Rejects()) if text.strip()]
    wrong = next((text for text in texts if not (text.isascii() and text.isdecimal())), None)
    if wrong is not None:
        raise ValueError(f"{folder.source(beside)}: found {wrong!r}, expected the number of lines of a query")
    sizes = [int(text) for text in texts]
    if sum(sizes) != n_lines:
        raise ValueError(
            f"{folder.source(beside)}: found sizes that add up to {sum(sizes):,} lines, expected {n_lines:,}, as many"
            f" as {plain} has"
        )
    rejects.note(f"queries are numbered by the sizes in {beside}")
    return sizes


def _feature_files(folder: Folder, options: ImportOptions) -> dict[str, str]:
    """Return file -> how it is read, as lines or as a table; empty text if it is no feature file."""
    names = [name for name in folder.names if not folder.plain_name(name).endswith(_OTHER_SUFFIXES)]
    return {name: _form(folder, name, options) for name in names}


def _form(folder: Folder, name: str, options: ImportOptions) -> str:
    try:
        first = [text for _, text in islice(_lines(folder, name, Rejects(), options), _FIRST_LINES)]
    except ValueError:
        return ""
    if is_feature_lines(first):
        return "lines"
    if options.map:
        return "table"
    start = find_start(first, feature_table.KNOWN)
    numbered = iter(list(enumerate(first, 1))[start.skipped :])
    top = next(records.split_csv(numbered, name, Rejects(), options.separator or start.separator), None)
    return "table" if top is not None and feature_table.is_feature_table(top.cells) else ""


def _lines(folder: Folder, name: str, rejects: Rejects, options: ImportOptions) -> Iterator[tuple[int, str]]:
    with folder.open(name) as stream:
        yield from lines.decode_lines(stream, folder.source(name), rejects, options.encoding or "utf-8")


def _position(name: str) -> tuple[int, str]:
    """Return where a file stands among those of its folder."""
    later = next((place for place, part in enumerate(_ORDER) if part and part in name.lower()), _ORDER.index(""))
    return later, name
