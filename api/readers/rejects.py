"""What could not be read: counted, grouped by reason and kept in a file, so that an import loses nothing silently."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

LONGEST_TEXT = 2000
"""Characters of a rejected line that are kept."""
MOST_REASONS = 100
"""Groups in a summary; what comes after them is counted together."""

_FOUND = re.compile(r"found .*?, (?=expected|which)", re.DOTALL)
_LITERAL = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)"(?:[^"\\]|\\.)*"(?!\w)|\d[\d.,]*(?<=\d)""", re.DOTALL)


class RejectedLine(ValueError):
    """The first line that could not be read, where the reading is strict."""

    def __init__(self, source: str, line_number: int, reason: str) -> None:
        super().__init__(f"{source}:{line_number}: {reason}")
        self.source = source
        self.line_number = line_number
        self.reason = reason


class Rejects:
    """Counts the records read and rejected; a context manager that closes its file.

    With a path each reject is appended to that JSONL file as {source, line, reason, text}; the file is made when the
    first one comes. With `strict` the first reject raises RejectedLine and nothing is written.
    """

    def __init__(self, path: Path | None = None, *, strict: bool = False, passed: int = 0) -> None:
        """passed: so many rejects come first that an earlier import has written to the file already."""
        self._passed = passed
        self.path = path
        self.strict = strict
        self.accepted = 0
        self.rejected = 0
        self._reasons: Counter[str] = Counter()
        self._file: TextIO | None = None

    @property
    def read(self) -> int:
        """Records read, good or bad; headers and blank lines are not records."""
        return self.accepted + self.rejected

    def accept(self) -> None:
        """Count one good record."""
        self.accepted += 1

    def reject(self, source: str, line_number: int, reason: str, line: str | bytes = "") -> None:
        """Count and keep one bad record; `line_number` is from 1. Raises RejectedLine where strict."""
        self.rejected += 1
        group = _group(reason)
        if group not in self._reasons and len(self._reasons) >= MOST_REASONS:
            group = "other reasons"
        self._reasons[group] += 1
        if self.strict:
            raise RejectedLine(source, line_number, reason)
        if self.path is not None and self.rejected > self._passed:
            self._write({"source": source, "line": line_number, "reason": reason, "text": _text(line)})

    def summary(self) -> dict[str, Any]:
        """{read, rejected, reasons: {reason: count, most frequent first}}; values inside reasons become '…'."""
        return {"read": self.read, "rejected": self.rejected, "reasons": dict(self._reasons.most_common())}

    def close(self) -> None:
        """Close the file, if there is one; a later reject opens it again."""
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
            # Line buffered, so that an interrupted import leaves whole lines.
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _text(line: str | bytes) -> str:
    # At most four bytes make a character: cut before decoding, so that a huge line costs nothing.
    text = line[: 4 * LONGEST_TEXT].decode("utf-8", "backslashreplace") if isinstance(line, bytes) else line
    return text[:LONGEST_TEXT]


def _group(reason: str) -> str:
    return _LITERAL.sub("…", _FOUND.sub("found …, ", reason))
