"""The report of a load: what was found, what was written and what could not be used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RejectReason:
    """Why rows were rejected, with one of them as an example."""

    reason: str
    """Values in it are replaced by '…', so that rows with the same problem count together."""
    count: int
    example_row: int
    """Row number, from 1."""
    example: str
    """The full reason of that row."""


@dataclass(frozen=True, slots=True)
class FrameReport:
    """What was found in one data frame."""

    frame: str
    """items, users, rankings or interactions."""
    rows: int
    """Rows of the frame."""
    new: int
    """Events written to the journal."""
    duplicates: int
    """Events that the journal or an earlier row of the frame has already; they were not written again."""
    rejected: int
    """Rows (of rankings: rankings) that are no valid event."""
    reasons: tuple[RejectReason, ...]
    """Most frequent first."""
    columns: Mapping[str, str]
    """Part of the event -> the frame's column."""
    fields: tuple[str, ...]
    """Columns that became fields of the events."""
    unused: Mapping[str, str]
    """Column that could not be used -> why."""
    notes: tuple[str, ...]
    """How values were read, such as the unit and the zone of times."""
    first_at: float | None = None
    """Unix seconds of the earliest event; None: there is none, or the events are items or users without a time."""
    last_at: float | None = None
    known_items: int | None = None
    """Interactions, or items shown in rankings, whose item has an item event; None: does not apply."""
    unknown_items: int | None = None
    """Those whose item had no item event when they were loaded."""

    def lines(self) -> list[str]:
        """Describe the frame in lines of text."""
        kept = f"{self.new:,} new, {self.duplicates:,} duplicates, {self.rejected:,} rejected"
        lines = [f"{self.frame}: {self.rows:,} rows: {kept}"]
        mapped = ", ".join(part if part == column else f"{part} <- {column}" for part, column in self.columns.items())
        lines.append(f"  columns: {mapped}")
        if self.fields:
            lines.append(f"  kept as fields: {', '.join(self.fields)}")
        lines += [f"  not used: {column}: {reason}" for column, reason in self.unused.items()]
        lines += [f"  note: {note}" for note in self.notes]
        if self.first_at is not None and self.last_at is not None:
            lines.append(f"  time: {_moment(self.first_at)} to {_moment(self.last_at)}")
        if self.known_items is not None and self.unknown_items is not None:
            what = "interactions" if self.frame == "interactions" else "items shown"
            total = self.known_items + self.unknown_items
            lines.append(f"  {what} with a known item: {self.known_items:,} of {total:,}")
        lines += [
            f"  rejected {entry.count:,}: {entry.reason} (first: row {entry.example_row}: {entry.example})"
            for entry in self.reasons
        ]
        return lines


@dataclass(frozen=True, slots=True, repr=False)
class LoadReport:
    """What `Home.load` found and wrote; its `repr` is the report as text."""

    frames: tuple[FrameReport, ...]
    items_created: int
    """Items created from ids that only interactions or rankings name."""
    items_left_unknown: int
    """Ids that only interactions or rankings name, where the load was not to create items from them."""
    journal: Mapping[str, int]
    """Event type -> number of events in the journal now."""
    rejects_path: Path
    """JSON lines file to which all rejected rows of all loads are appended."""
    seconds: float

    def __getitem__(self, frame: str) -> FrameReport:
        """Return the report of one frame. Raises KeyError for a frame that was not loaded."""
        for report in self.frames:
            if report.frame == frame:
                return report
        raise KeyError(f"{frame!r} was not loaded; loaded were {', '.join(report.frame for report in self.frames)}")

    @property
    def new(self) -> int:
        """Number of events written, without created items."""
        return sum(report.new for report in self.frames)

    @property
    def rejected(self) -> int:
        """Number of rejected rows of all frames."""
        return sum(report.rejected for report in self.frames)

    def __repr__(self) -> str:
        """Return the report as text."""
        lines = [line for report in self.frames for line in report.lines()]
        if self.items_created:
            lines.append(f"items created from ids that no item describes: {self.items_created:,}")
        if self.items_left_unknown:
            lines.append(
                f"ids that no item describes: {self.items_left_unknown:,}; they can't be recommended, and their"
                " interactions are not learnt from. Load their items, or pass create_items=True"
            )
        if self.rejected:
            lines.append(f"rejected rows are in {self.rejects_path}, with row number and reason")
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.journal.items()))
        lines.append(f"events in the journal: {counts or 'none'} ({self.seconds:.1f} s)")
        return "\n".join(lines)


def _moment(seconds: float) -> str:
    """Format unix seconds as UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + " UTC"
    except (OverflowError, ValueError, OSError):
        return f"unix second {seconds:.0f}"
