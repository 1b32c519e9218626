"""TREC run and qrels files, the common tongue of evaluation tools.

trec_eval keeps scores as float32 and sorts again by them, ties by document id descending, whatever the order of the
lines. So a run is written with float32 scores that fall strictly within a query, and the file keeps our order. White
space, control characters and % in an id are percent-encoded, since the columns are parted by white space. A query
without any row leaves no trace in a file.
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

from engine.types import Offsets, Scores
from models.files import written_aside
from models.metrics import Column, Ideal

_Number = TypeVar("_Number", int, float)
_UNSAFE = re.compile(r"[\s%\x00-\x1f\x7f]")
_SPAN = 1 << 34
"""Wider than the ordinals of all float32 and the rows of a group together."""
_TINY = 0x007FFFFF
"""The bits of the greatest subnormal float32."""
_HUGE = np.float32(1e38)
"""Scores are clipped to this, which leaves room to fall below it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a system listed: Q queries, N rows in final order, query after query."""

    queries: Sequence[str]
    """(Q,) query ids."""
    documents: Sequence[str]
    """(N,) document ids, best first within a query."""
    scores: NDArray[np.floating[Any]]
    """(N,) never rising within a query; NaN last."""
    offsets: Offsets
    """(Q + 1,) bounds of each query's rows."""

    def __post_init__(self) -> None:
        _check(self.queries, self.documents, len(self.scores), "scores", self.offsets)


@dataclass(frozen=True, slots=True)
class Qrels:
    """What was judged: Q queries, N rows, query after query, in any order within one."""

    queries: Sequence[str]
    """(Q,) query ids."""
    documents: Sequence[str]
    """(N,) document ids."""
    labels: Column
    """(N,) whole numbers; > 0 is relevant."""
    offsets: Offsets
    """(Q + 1,) bounds of each query's rows."""

    def __post_init__(self) -> None:
        _check(self.queries, self.documents, len(self.labels), "labels", self.offsets)


@dataclass(frozen=True, slots=True)
class Judged:
    """A run with the labels of its rows, in the shape that `models.metrics.evaluate` reads."""

    queries: Sequence[str]
    """(Q,) the queries of the qrels."""
    labels: Column
    """(N,) in final order; 0 where not judged."""
    scores: Scores
    """(N,)"""
    offsets: Offsets
    """(Q + 1,) empty where the run lacks the query."""
    ideal: Ideal
    """All judged labels of each query, listed or not."""


def falling(scores: NDArray[np.floating[Any]], offsets: Offsets) -> Scores:
    """(N,) float32 scores that fall strictly within each group, as near below the given ones as can be.

    The given ones, (N,), must not rise within a group (ValueError says where they do). They are clipped to +-1e38; NaN
    becomes the lowest, and subnormals become 0, since some tools flush them to it.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    inner = np.ones(len(known), bool)
    inner[offsets[:-1][offsets[:-1] < len(known)]] = False
    if (rises := np.flatnonzero(inner[1:] & (known[1:] > known[:-1]))).size:
        row = int(rises[0])
        raise ValueError(
            f"scores rise from {scores[row]} to {scores[row + 1]} at row {row + 1}; a run is in final order, "
            "best first: put the rows in order with models.metrics.order, or give minus the rank as the score"
        )
    clipped = np.clip(known, -_HUGE, _HUGE).astype(np.float32)
    # Float32 in order of size are the integers in order: with ordinals, "at least one step below the one before" is a
    # running minimum. Each group lies a span below the one before it, so that one pass serves them all.
    bits = clipped.view(np.int32).astype(np.int64)
    size = np.maximum((bits & 0x7FFFFFFF) - _TINY, 0)
    groups = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    base = np.arange(len(bits)) - groups * _SPAN
    ordinal = np.minimum.accumulate(np.where(bits < 0, -size, size) + base) - base
    size = np.abs(ordinal)
    size += np.where(size > 0, _TINY, 0)
    lowered: Scores = np.where(ordinal < 0, -1, 1).astype(np.float32) * size.astype(np.int32).view(np.float32)
    return lowered


def write_run(path: str | Path, run: Run, tag: str = "feedrank") -> None:
    """Write `query Q0 document rank score tag` lines in order; gzip where the name ends in .gz."""
    scores = falling(run.scores, run.offsets).tolist()
    documents = [_encode(name) for name in run.documents]
    tag = _encode(tag)
    lines = (
        f"{query} Q0 {documents[row]} {row - start + 1} {scores[row]:.9g} {tag}\n"
        for query, start, end in _spans(run.queries, run.offsets)
        for row in range(start, end)
    )
    _write(Path(path), lines)


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write `query 0 document label` lines, gzip to a .gz name. ValueError for a label that is not whole."""
    values = qrels.labels.astype(np.float64)
    if (broken := np.flatnonzero(~np.isfinite(values) | (np.floor(values) != values))).size:
        row = int(broken[0])
        raise ValueError(f"label {qrels.labels[row]} at row {row}; qrels hold whole numbers: round or scale them first")
    levels, documents = qrels.labels.astype(np.int64).tolist(), [_encode(name) for name in qrels.documents]
    lines = (
        f"{query} 0 {documents[row]} {levels[row]}\n"
        for query, start, end in _spans(qrels.queries, qrels.offsets)
        for row in range(start, end)
    )
    _write(Path(path), lines)


def read_run(path: str | Path) -> Run:
    """Read a run as trec_eval would: by float32 score, ties by document id descending; rank and tag are ignored."""
    queries, documents, scores, offsets = _read(Path(path), ("query", "Q0", "document", "rank", "score", "tag"), _score)
    column = np.array(scores, np.float64).clip(-3e38, 3e38).astype(np.float32)
    keys = list(zip(column.tolist(), documents, strict=True))
    by = [
        row
        for start, end in pairwise(offsets.tolist())
        for row in sorted(range(start, end), key=keys.__getitem__, reverse=True)
    ]
    return Run(queries, tuple(unquote(documents[row]) for row in by), column[by], offsets)


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements, in the order of the file within each query."""
    queries, documents, labels, offsets = _read(Path(path), ("query", "0", "document", "label"), _label)
    return Qrels(queries, tuple(map(unquote, documents)), np.array(labels, np.int64), offsets)


def judge(run: Run, qrels: Qrels) -> Judged:
    """Give each row of a run its label; the groups are the queries of the qrels, a query the run lacks lists nothing.

    Queries of the run that were not judged are left out, as trec_eval leaves them out.
    """
    spans = {query: (start, end) for query, start, end in _spans(run.queries, run.offsets, encode=False)}
    levels = qrels.labels.tolist()
    rows: list[int] = []
    labels: list[float] = []
    bounds = [0]
    for query, start, end in _spans(qrels.queries, qrels.offsets, encode=False):
        known = dict(zip(qrels.documents[start:end], levels[start:end], strict=True))
        listed = range(*spans.get(query, (0, 0)))
        rows += listed
        labels += [known.get(run.documents[row], 0) for row in listed]
        bounds.append(len(rows))
    return Judged(
        queries=qrels.queries,
        labels=np.array(labels, qrels.labels.dtype),
        scores=run.scores[np.array(rows, np.int64)].astype(np.float32),
        offsets=np.array(bounds, np.int64),
        ideal=Ideal(qrels.labels, qrels.offsets),
    )


def _check(queries: Sequence[str], documents: Sequence[str], rows: int, name: str, offsets: Offsets) -> None:
    if len(offsets) != len(queries) + 1 or offsets[0] != 0 or offsets[-1] != rows or np.any(np.diff(offsets) < 0):
        raise ValueError(f"offsets of {len(offsets)} bounds do not span {rows} {name} of {len(queries)} queries")
    if len(documents) != rows:
        raise ValueError(f"{len(documents)} documents but {rows} {name}")
    if len(set(queries)) != len(queries):
        raise ValueError(f"query {_twice(queries)!r} comes twice; give each query one stretch of rows")
    for query, start, end in _spans(queries, offsets, encode=False):
        if len(set(documents[start:end])) != end - start:
            raise ValueError(f"query {query!r} has document {_twice(documents[start:end])!r} twice; keep one of them")


def _twice(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _spans(queries: Sequence[str], offsets: Offsets, encode: bool = True) -> Iterator[tuple[str, int, int]]:
    bounds = offsets.tolist()
    for query, start, end in zip(queries, bounds[:-1], bounds[1:], strict=True):
        yield (_encode(query) if encode else query), start, end


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise ValueError(f"the score is {text!r}; expected a number")
    return value


def _label(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"the label is {text!r}; expected a whole number") from None


def _encode(name: str) -> str:
    if not name:
        raise ValueError("an id is empty, which a file of columns parted by white space can't hold; give it a name")
    return _UNSAFE.sub(lambda found: quote(found[0], safe=""), name)


def _write(path: Path, lines: Iterable[str]) -> None:
    with written_aside(path) as draft, draft.open("wb") as raw:
        # Neither the name nor the time goes into the gzip header, so that equal runs are equal bytes.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text:
            text.writelines(lines)


def _read(
    path: Path, columns: tuple[str, ...], parse: Callable[[str], _Number]
) -> tuple[tuple[str, ...], list[str], list[_Number], Offsets]:
    """Query ids, document ids (still encoded), values of the score or label column, and bounds, grouped by query."""
    place = 4 if "score" in columns else 3
    found: dict[str, list[tuple[str, _Number]]] = {}
    unpack: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
    with unpack(path, "rt", encoding="utf-8") as lines:
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
                value = parse(parts[place])
            except ValueError as problem:
                raise ValueError(f"{path}, line {number}: {problem}") from None
            found.setdefault(unquote(parts[0]), []).append((parts[2], value))
    sizes = [len(rows) for rows in found.values()]
    rows = [row for group in found.values() for row in group]
    offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64)
    return tuple(found), [document for document, _ in rows], [value for _, value in rows], offsets
