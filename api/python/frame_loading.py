"""Loads data frames into the journal: prepares all of them first, then writes their events in chunks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from feedrank.api.home_paths import HomePaths
from feedrank.api.id_matching import IdMatching
from feedrank.api.item_completion import create_from_ids, described_items
from feedrank.api.progress import ShowProgress
from feedrank.api.python.columns import ColumnNames, columns_by_frame
from feedrank.api.python.frames import to_arrow
from feedrank.api.python.load_report import FrameReport, LoadReport, RejectReason
from feedrank.api.python.prepared_frame import KINDS, PreparedFrame, prepare_frame
from feedrank.api.readers.event_checks import check_events
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import RowParser
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.private_files import make_private_folder

CHUNK = 5_000
"""Events per write."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _FrameCounts:
    """Counts of one frame while it is written."""

    events: int = 0
    new: int = 0
    erased: int = 0
    first_ms: int | None = None
    last_ms: int | None = None


def load_frames(
    home: HomePaths, journal: Journal, frames: Mapping[str, object], columns: ColumnNames | None, create_items: bool,
    progress: ShowProgress,
) -> LoadReport:  # fmt: skip
    """Write the events of data frames to the journal and report on them.

    frames: items, users, rankings or interactions -> the frame. columns: names of columns that differ from the usual
    ones. All frames are checked before the first event is written. Raises TypeError or ValueError for a frame that
    can't be used as a whole; single rows that can't be used are rejected and counted.
    """
    started, now_ms = time.perf_counter(), round(time.time() * 1000)
    tables = {frame: to_arrow(frames[frame], frame) for frame in KINDS if frame in frames}
    given = columns_by_frame(columns, {frame: table.schema.names for frame, table in tables.items()})
    prepared = [prepare_frame(frame, table, given[frame]) for frame, table in tables.items()]
    make_private_folder(home.folder)
    matchings: dict[str, IdMatching] = {}
    with ExitStack() as files:
        # All times are looked at before the first event is written.
        reports = []
        for frame in prepared:
            rejects = files.enter_context(Rejects(home.rejects))
            found = check_events(_events(frame, rejects), rejects, frame.frame, now_ms, "correct the times")
            reports.append((frame, found, rejects, _FrameCounts()))
        for frame, found, _, counts in reports:
            matchings[frame.frame] = matching = IdMatching()
            events = matching.watch(found)
            while read := list(islice(events, CHUNK)):
                chunk = journal.erasure_log.known().without(read)  # users may be erased meanwhile
                counts.erased += len(read) - len(chunk)
                counts.new += sum(journal.append(chunk, checked=True))
                counts.events += len(chunk)
                _widen(counts, chunk)
                progress(f"{frame.frame}: {counts.events:,} of {len(frame.table):,}", counts.events, len(frame.table))
    named = {item for matching in matchings.values() for item in matching.undescribed}
    unknown = named - described_items(journal) if named else named
    created = create_from_ids(journal, unknown) if create_items else 0
    report = LoadReport(
        tuple(
            _frame_report(frame, rejects, counts, matchings[frame.frame], unknown)
            for frame, _, rejects, counts in reports
        ),
        created, 0 if create_items else len(unknown), journal.count_by_kind(), home.rejects,
        round(time.perf_counter() - started, 2),
    )  # fmt: skip
    _warn(report)
    return report


def _events(frame: PreparedFrame, rejects: Rejects) -> Iterator[Event]:
    parser = RowParser(["event"], frame.frame)
    for number, reason in sorted(frame.invalid.items()):
        rejects.reject(frame.frame, number, reason)
    for number, row in frame.rows():
        try:
            event = parser.parse(row)
        except EventError as problem:
            rejects.reject(frame.frame, number, str(problem), repr(row))
        else:
            rejects.accept(number)
            yield event


def _widen(counts: _FrameCounts, chunk: list[Event]) -> None:
    """Extend the time range by the events that have a time; items and users without one have the time 0."""
    timed = (event for event in chunk if event.timestamp or isinstance(event, InteractionEvent | RankingEvent))
    times = [event.timestamp for event in timed]
    if times:
        counts.first_ms = min(times) if counts.first_ms is None else min(counts.first_ms, *times)
        counts.last_ms = max(times) if counts.last_ms is None else max(counts.last_ms, *times)


def _frame_report(
    frame: PreparedFrame, rejects: Rejects, counts: _FrameCounts, matching: IdMatching, unknown: set[str]
) -> FrameReport:
    items = matching.items or matching.shown
    has_items = frame.frame in ("interactions", "rankings")
    missed = sum(count for item, count in items.items() if item in unknown)
    return FrameReport(
        frame=frame.frame,
        rows=frame.n_rows,
        new=counts.new,
        duplicates=counts.events - counts.new,
        rejected=rejects.rejected,
        reasons=tuple(
            RejectReason(reason, count, *rejects.example(reason)) for reason, count in rejects.reasons().items()
        ),
        columns=frame.columns,
        fields=frame.fields,
        unused=frame.unused,
        notes=(*frame.notes, *rejects.notes, *_erased_notes(counts.erased)),
        first_at=None if counts.first_ms is None else counts.first_ms / 1000,
        last_at=None if counts.last_ms is None else counts.last_ms / 1000,
        known_items=sum(items.values()) - missed if has_items else None,
        unknown_items=missed if has_items else None,
    )


def _erased_notes(count: int) -> tuple[str, ...]:
    return (f"{count:,} events of erased users were left out",) if count else ()


def _warn(report: LoadReport) -> None:
    """Log what a script that does not print the report should still see."""
    for frame in report.frames:
        if frame.rejected:
            first = frame.reasons[0]
            _log.warning(
                "%s: %d of %d rows were rejected, %d of them because: %s (row %d); all are in %s",
                frame.frame, frame.rejected, frame.rows, first.count, first.example, first.example_row,
                report.rejects_path,
            )  # fmt: skip
    if report.items_left_unknown:
        _log.warning("%d items that interactions or rankings name have no item event", report.items_left_unknown)
