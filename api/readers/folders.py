"""The files of a folder or of a zip archive, by their bare names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

PACKED = ("", ".gz", ".zst")
"""Endings under which a file is found; what it really is, its first bytes say."""

# What zipfile raises for archives that are damaged, encrypted, or packed in a way it does not know.
_UNZIPPABLE = (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError)


class Folder:
    """A folder or a zip archive (a wheel is one) to read files of; a context manager. Raises ValueError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}
        if path.is_dir():
            self.names = sorted(file.name for file in path.iterdir() if file.is_file())
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNZIPPABLE as problem:
            raise ValueError(f"{path} is neither a folder nor a zip archive that can be read: {problem}") from None
        # The shallowest of the same name counts: what lies deeper is an example or a copy.
        for member in sorted(self._zip.namelist(), key=lambda name: (name.count("/"), name)):
            self._members.setdefault(member.rpartition("/")[2], member)
        self.names = sorted(filter(None, self._members))

    def find(self, name: str) -> str | None:
        """The name under which a file is here, packed or not; None if it isn't."""
        return next((name + ending for ending in PACKED if name + ending in self.names), None)

    def source(self, name: str) -> str:
        """The place of a file, for messages."""
        return f"{self.path}/{self._members.get(name, name)}"

    def open(self, name: str) -> BinaryIO:
        """The bytes of a file that `find` named, as they are stored."""
        if self._zip is None:
            return (self.path / name).open("rb")
        try:
            return cast(BinaryIO, self._zip.open(self._members[name]))
        except _UNZIPPABLE as problem:
            raise ValueError(f"{self.source(name)} can't be unzipped: {problem}; unzip it yourself") from None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()
