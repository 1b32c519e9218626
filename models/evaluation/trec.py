"""Read and write TREC run and qrels files, the common format of evaluation tools.

trec_eval ignores the order of lines: it reads scores as float32, sorts by them, and breaks ties by document id,
descending. So a run is written with float32 scores that strictly decrease within a query, which keeps our order. White
space, control characters and % in ids are percent-encoded, since white space separates the columns. A query without
rows does not appear in a file.
"""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Offsets, Scores
from feedrank.models.atomic_files import atomic_write
from feedrank.models.evaluation.metrics import Column, Ideal

_Number = TypeVar("_Number", int, float)
_UNSAFE = re.compile(r"[\s%\x00-\x1f\x7f]")
_GROUP_STRIDE = 1 << 34
"""Larger than the range of float32 ordinals plus the rows of a group."""
_MAX_SUBNORMAL_BITS = 0x007FFFFF
"""The bits of the largest subnormal float32."""
_MAX_SCORE = np.float32(1e38)
"""Scores are clipped to this, which leaves room for smaller ones below it."""


@dataclass(frozen=True, slots=True)
class Run:
    """A system's results: Q queries, N rows in final order, query after query."""

    queries: Sequence[str]
    """(Q,) query ids."""
    documents: Sequence[str]
    """(N,) document ids, best first within a query."""
    scores: NDArray[np.floating[Any]]
    """(N,) non-increasing within a query; NaN last."""
    offsets: Offsets
    """(Q + 1,) bounds of each query's rows."""

    def __post_init__(self) -> None:
        _check_columns(self.queries, self.documents, len(self.scores), "scores", self.offsets)


@dataclass(frozen=True, slots=True)
class Qrels:
    """Relevance judgements: Q queries, N rows, query after query, in any order within a query."""

    queries: Sequence[str]
    """(Q,) query ids."""
    documents: Sequence[str]
    """(N,) document ids."""
    labels: Column
    """(N,) whole numbers; > 0 is relevant."""
    offsets: Offsets
    """(Q + 1,) bounds of each query's rows."""

    def __post_init__(self) -> None:
        _check_columns(self.queries, self.documents, len(self.labels), "labels", self.offsets)


@dataclass(frozen=True, slots=True)
class LabeledRun:
    """A run with the labels of its rows, in the shape that `feedrank.models.evaluation.metrics.evaluate` reads."""

    queries: Sequence[str]
    """(Q,) the queries of the qrels."""
    labels: Column
    """(N,) in final order; 0 if not judged."""
    scores: Scores
    """(N,)"""
    offsets: Offsets
    """(Q + 1,) bounds of each query's rows; no rows if the run lacks the query."""
    ideal: Ideal
    """All judged labels of each query, listed or not."""


def strictly_decreasing(scores: NDArray[np.floating[Any]], offsets: Offsets) -> Scores:
    """Return (N,) float32 scores that strictly decrease within each group, as close below the given ones as possible.

    scores: (N,) must not rise within a group; ValueError names the row otherwise. They are clipped to +-1e38; NaN
    becomes the lowest, and subnormals become 0, since some tools flush them to 0.
    """
    finite_or_inf = np.where(np.isnan(scores), -np.inf, scores)
    inner = np.ones(len(finite_or_inf), bool)
    inner[offsets[:-1][offsets[:-1] < len(finite_or_inf)]] = False
    if (rises := np.flatnonzero(inner[1:] & (finite_or_inf[1:] > finite_or_inf[:-1]))).size:
        row = int(rises[0])
        raise ValueError(
            f"scores rise from {scores[row]} to {scores[row + 1]} at row {row + 1}; a run is in final order, "
            "best first: sort the rows with models.metrics.order, or give minus the rank as the score"
        )
    clipped = np.clip(finite_or_inf, -_MAX_SCORE, _MAX_SCORE).astype(np.float32)
    # Float32 values sort like integer ordinals, so "at least one step below the previous score" is a running minimum.
    # Each group is offset one stride below the previous one, so that one pass handles all groups.
    bits = clipped.view(np.int32).astype(np.int64)
    size = np.maximum((bits & 0x7FFFFFFF) - _MAX_SUBNORMAL_BITS, 0)
    groups = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    base = np.arange(len(bits)) - groups * _GROUP_STRIDE
    ordinal = np.minimum.accumulate(np.where(bits < 0, -size, size) + base) - base
    size = np.abs(ordinal)
    size += np.where(size > 0, _MAX_SUBNORMAL_BITS, 0)
    lowered: Scores = np.where(ordinal < 0, -1, 1).astype(np.float32) * size.astype(np.int32).view(np.float32)
    return lowered


def write_run(path: str | Path, run: Run, tag: str = "feedrank") -> None:
    """Write `query Q0 document rank score tag` lines in order; with gzip if the name ends in .gz."""
    scores = strictly_decreasing(run.scores, run.offsets).tolist()
    documents = [_percent_encode(name) for name in run.documents]
    tag = _percent_encode(tag)
    lines = (
        f"{query} Q0 {documents[row]} {row - start + 1} {scores[row]:.9g} {tag}\n"
        for query, start, end in _spans(run.queries, run.offsets)
        for row in range(start, end)
    )
    _write_lines(Path(path), lines)


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write `query 0 document label` lines, with gzip if the name ends in .gz; ValueError for a fractional label."""
    values = qrels.labels.astype(np.float64)
    if (invalid := np.flatnonzero(~np.isfinite(values) | (np.floor(values) != values))).size:
        row = int(invalid[0])
        raise ValueError(
            f"found label {qrels.labels[row]} at row {row}; qrels need whole numbers: round or scale first"
        )
    levels, documents = qrels.labels.astype(np.int64).tolist(), [_percent_encode(name) for name in qrels.documents]
    lines = (
        f"{query} 0 {documents[row]} {levels[row]}\n"
        for query, start, end in _spans(qrels.queries, qrels.offsets)
        for row in range(start, end)
    )
    _write_lines(Path(path), lines)


def read_run(path: str | Path) -> Run:
    """Read a run as trec_eval does: sort by float32 score, ties by document id descending; ignore rank and tag."""
    queries, documents, scores, offsets = _read_columns(
        Path(path), ("query", "Q0", "document", "rank", "score", "tag"), _parse_score
    )
    column = np.array(scores, np.float64).clip(-3e38, 3e38).astype(np.float32)
    keys = list(zip(column.tolist(), documents, strict=True))
    ranking = [
        row
        for start, end in pairwise(offsets.tolist())
        for row in sorted(range(start, end), key=keys.__getitem__, reverse=True)
    ]
    return Run(queries, tuple(unquote(documents[row]) for row in ranking), column[ranking], offsets)


def read_qrels(path: str | Path) -> Qrels:
    """Read qrels, in the file's order within each query."""
    queries, documents, labels, offsets = _read_columns(Path(path), ("query", "0", "document", "label"), _parse_label)
    return Qrels(queries, tuple(map(unquote, documents)), np.array(labels, np.int64), offsets)


def label_run(run: Run, qrels: Qrels) -> LabeledRun:
    """Label each row of a run; the groups are the queries of the qrels, without rows if the run lacks a query.

    Queries of the run without judgements are left out, as in trec_eval.
    """
    spans = {query: (start, end) for query, start, end in _spans(run.queries, run.offsets, encode=False)}
    levels = qrels.labels.tolist()
    rows: list[int] = []
    labels: list[float] = []
    bounds = [0]
    for query, start, end in _spans(qrels.queries, qrels.offsets, encode=False):
        label_of = dict(zip(qrels.documents[start:end], levels[start:end], strict=True))
        listed = range(*spans.get(query, (0, 0)))
        rows += listed
        labels += [label_of.get(run.documents[row], 0) for row in listed]
        bounds.append(len(rows))
    return LabeledRun(
        queries=qrels.queries,
        labels=np.array(labels, qrels.labels.dtype),
        scores=run.scores[np.array(rows, np.int64)].astype(np.float32),
        offsets=np.array(bounds, np.int64),
        ideal=Ideal(qrels.labels, qrels.offsets),
    )


def _check_columns(queries: Sequence[str], documents: Sequence[str], rows: int, name: str, offsets: Offsets) -> None:
    if len(offsets) != len(queries) + 1 or offsets[0] != 0 or offsets[-1] != rows or np.any(np.diff(offsets) < 0):
        raise ValueError(f"found {len(offsets)} offsets; they do not span {rows} {name} of {len(queries)} queries")
    if len(documents) != rows:
        raise ValueError(f"found {len(documents)} documents but {rows} {name}; expected one for each")
    if len(set(queries)) != len(queries):
        raise ValueError(f"query {_most_repeated(queries)!r} comes twice; give each query one block of rows")
    for query, start, end in _spans(queries, offsets, encode=False):
        if len(set(documents[start:end])) != end - start:
            raise ValueError(
                f"query {query!r} has document {_most_repeated(documents[start:end])!r} twice; keep one of them"
            )


def _most_repeated(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _spans(queries: Sequence[str], offsets: Offsets, encode: bool = True) -> Iterator[tuple[str, int, int]]:
    bounds = offsets.tolist()
    for query, start, end in zip(queries, bounds[:-1], bounds[1:], strict=True):
        yield (_percent_encode(query) if encode else query), start, end


def _parse_score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise ValueError(f"the score is {text!r}; expected a number")
    return value


def _parse_label(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"the label is {text!r}; expected a whole number") from None


def _percent_encode(name: str) -> str:
    if not name:
        raise ValueError("an id is empty, which a white-space separated file can't hold; give it a name")
    return _UNSAFE.sub(lambda match: quote(match[0], safe=""), name)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as draft, draft.open("wb") as raw:
        # No name or timestamp in the gzip header, so that equal runs give equal bytes.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text:
            text.writelines(lines)


def _read_columns(
    path: Path, columns: tuple[str, ...], parse: Callable[[str], _Number]
) -> tuple[tuple[str, ...], list[str], list[_Number], Offsets]:
    """Return query ids, encoded document ids, values of the score or label column, and offsets, grouped by query."""
    value_column = 4 if "score" in columns else 3
    rows_by_query: dict[str, list[tuple[str, _Number]]] = {}
    open_file: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != len(columns):
                raise ValueError(
                    f"{path}, line {number}: found {len(parts)} columns, expected {len(columns)} "
                    f"({' '.join(columns)}); percent-encode white space in ids"
                )
            try:
                value = parse(parts[value_column])
            except ValueError as problem:
                raise ValueError(f"{path}, line {number}: {problem}") from None
            rows_by_query.setdefault(unquote(parts[0]), []).append((parts[2], value))
    sizes = [len(rows) for rows in rows_by_query.values()]
    rows = [row for group in rows_by_query.values() for row in group]
    offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64)
    return tuple(rows_by_query), [document for document, _ in rows], [value for _, value in rows], offsets
