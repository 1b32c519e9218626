"""Count rejected input lines, group them by reason and write them to a file, so that no line is lost silently."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from feedrank.engine.private_files import create_private_file

T = TypeVar("T")

MAX_TEXT_CHARS = 2000
"""Characters of a rejected line that are written to the file."""
MAX_REASONS = 100
"""Maximum number of reasons in a summary; later ones are counted together."""

_FOUND_VALUE = re.compile(r"found .*?, (?=expected|which)", re.DOTALL)
_LITERAL = re.compile(
    r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)"(?:[^"\\]|\\.)*"(?!\w)|0x[0-9a-f]+|(?<![A-Za-z]-)(?<![\w.])\d[\d.,]*(?<=\d)""",
    re.DOTALL,
)


class RejectedLine(ValueError):
    """Raised for the first rejected line in strict mode."""

    def __init__(self, source: str, line_number: int, reason: str) -> None:
        super().__init__(f"{source}:{line_number}: {reason}")
        self.source = source
        self.line_number = line_number
        self.reason = reason


class Rejects:
    """Counts accepted and rejected records; a context manager that closes its file.

    With a path, each reject is appended to that JSONL file as {source, line, reason, text}; the first one creates the
    file. With `strict`, the first reject raises RejectedLine and nothing is written.
    """

    def __init__(self, path: Path | None = None, *, strict: bool = False, already_written: int = 0) -> None:
        """already_written: number of first rejects that an earlier, interrupted import has written to the file."""
        self._already_written = already_written
        self.path = path
        self.strict = strict
        self.accepted = 0
        self.rejected = 0
        self.tallies: Counter[str] = Counter()
        """What the report says of accepted records, such as those that join nothing -> their number."""
        self.notes: list[str] = []
        """How the file was read where it left a choice, in sentences."""
        self.last_line = 0
        """Number of the record that was accepted last, from 1; 0 if the reader does not say it."""
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, tuple[int, str]] = {}
        self._file: TextIO | None = None

    @property
    def total(self) -> int:
        """Number of records read, accepted or rejected; headers and blank lines are not records."""
        return self.accepted + self.rejected

    def accept(self, line_number: int = 0) -> None:
        """Count an accepted record; `line_number` is from 1."""
        self.accepted += 1
        self.last_line = line_number

    def tally(self, what: str, count: int = 1) -> None:
        """Count accepted records of which the report of the import says something, such as "events without a list"."""
        self.tallies[what] += count

    def note(self, *sentences: str) -> None:
        """Keep sentences for the summary of the import, each once."""
        self.notes += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.notes]

    def revoke(self, source: str, line_number: int, reason: str, line: str = "") -> None:
        """Reject a record that was accepted before. Raises RejectedLine if strict."""
        self.accepted = max(self.accepted - 1, 0)
        self.reject(source, line_number, reason, line)

    def reject(self, source: str, line_number: int, reason: str, line: str | bytes = "") -> None:
        """Count a rejected record and write it to the file; `line_number` is from 1. Raises RejectedLine if strict."""
        self.rejected += 1
        group = _reason_group(reason)
        if group not in self._reasons and len(self._reasons) >= MAX_REASONS:
            group = "other reasons"
        self._reasons[group] += 1
        self._examples.setdefault(group, (line_number, reason))
        if self.strict:
            raise RejectedLine(source, line_number, reason)
        if self.path is not None and self.rejected > self._already_written:
            self._write({"source": source, "line": line_number, "reason": reason, "text": _text(line)})

    def reasons(self) -> dict[str, int]:
        """Return reason -> number of rejects, most frequent first; values in reasons become '…'."""
        return dict(self._reasons.most_common())

    def example(self, reason: str) -> tuple[int, str]:
        """Return the line number and the full reason of the first reject of one of `reasons`."""
        return self._examples[reason]

    def summary(self) -> dict[str, Any]:
        """Return {read, rejected, reasons: {reason: count, most frequent first}}; values in reasons become '…'."""
        return {"read": self.total, "rejected": self.rejected, "reasons": self.reasons()}

    def close(self) -> None:
        """Close the file, if it is open; a later reject opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            assert self.path is not None
            create_private_file(self.path)
            # Line buffered, so that an interrupted import leaves complete lines.
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def peek(records: Iterator[T], most: int) -> tuple[list[T], Iterator[T]]:
    """Return up to `most` first records, and all records, these included.

    A RejectedLine of strict mode is raised where it would be without looking ahead.
    """
    first: list[T] = []
    stopped: list[RejectedLine] = []
    try:
        for record in islice(records, most):
            first.append(record)  # noqa: PERF402  # what came before an error is kept
    except RejectedLine as problem:
        stopped.append(problem)

    def again() -> Iterator[T]:
        yield from first
        if stopped:
            raise stopped[0]
        yield from records

    return first, again()


def _text(line: str | bytes) -> str:
    # A character has at most four bytes: truncating before decoding keeps huge lines cheap.
    text = line[: 4 * MAX_TEXT_CHARS].decode("utf-8", "backslashreplace") if isinstance(line, bytes) else line
    return text[:MAX_TEXT_CHARS]


def _reason_group(reason: str) -> str:
    return _LITERAL.sub("…", _FOUND_VALUE.sub("found …, ", reason))
