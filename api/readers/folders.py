"""Open the files of a folder or of a zip archive by their base names."""

from __future__ import annotations

import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from feedrank.api.readers.streams import data_files

COMPRESSION_SUFFIXES = ("", ".gz", ".zst")
"""Suffixes that a file may have; its first bytes decide how it is decompressed."""
ARCHIVE_SUFFIXES = (".zip", ".whl")
"""Suffixes of files that are opened as folders."""

# zipfile raises these for archives that are damaged, encrypted, or compressed by an unknown method.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError)


class Folder:
    """A folder or a zip archive (such as a wheel) of data files; a context manager.

    Raises ValueError for a path that is neither, or for a file that can't be unzipped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}
        if path.is_dir():
            self.names = sorted(data_files(file.name for file in path.iterdir() if file.is_file()))
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as problem:
            raise ValueError(f"{path} is neither a folder nor a zip archive that can be read: {problem}") from None
        # Of several files with one base name the shallowest counts: deeper ones are examples or copies.
        for member in sorted(data_files(self._zip.namelist()), key=lambda name: (name.count("/"), name)):
            self._members.setdefault(member.rpartition("/")[2], member)
        self.names = sorted(self._members)

    def find(self, name: str) -> str | None:
        """Return the name of a file here, possibly with a compression suffix; None if it is missing."""
        return next((name + ending for ending in COMPRESSION_SUFFIXES if name + ending in self.names), None)

    def find_beside(self, name: str) -> str | None:
        """Return the name of a file that belongs to another one here, possibly with a compression suffix; or None."""
        return self.find(name)

    def match(self, pattern: str) -> list[str]:
        """Return the names of all files here whose name without its compression suffix fits a pattern such as *.inter.

        Capital letters make no difference.
        """
        return [name for name in self.names if fnmatchcase(self.plain_name(name).lower(), pattern.lower())]

    @staticmethod
    def plain_name(name: str) -> str:
        """Return a file's name without its compression suffix."""
        suffix = next((suffix for suffix in COMPRESSION_SUFFIXES[1:] if name.lower().endswith(suffix)), "")
        return name[: len(name) - len(suffix)]

    def source(self, name: str) -> str:
        """Return the path of a file for messages."""
        return f"{self.path}/{self._members.get(name, name)}"

    def open(self, name: str) -> BinaryIO:
        """Open a file, by the name that `find` returned, as it is stored."""
        if self._zip is None:
            return (self.path / name).open("rb")
        try:
            return cast(BinaryIO, self._zip.open(self._members[name]))
        except _ZIP_ERRORS as problem:
            raise ValueError(f"{self.source(name)} can't be unzipped: {problem}; unzip it yourself") from None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()


class SingleFile(Folder):
    """One file, opened like a folder that holds nothing else."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, [path.name]
        self._zip, self._members = None, {}

    def find_beside(self, name: str) -> str | None:
        """Return the name of a file in the same folder, possibly with a compression suffix; None if it is missing."""
        return next((name + end for end in COMPRESSION_SUFFIXES if self.path.with_name(name + end).is_file()), None)

    def source(self, name: str) -> str:
        """Return the path of a file for messages."""
        return str(self.path.with_name(name))

    def open(self, name: str) -> BinaryIO:
        """Open the file as it is stored; also one that `find_beside` returned."""
        return self.path.with_name(name).open("rb")


def open_files(path: Path) -> Folder:
    """Open a folder, a zip archive or one file. Raises ValueError for an archive that can't be read."""
    is_folder = path.is_dir() or path.suffix.lower() in ARCHIVE_SUFFIXES
    return Folder(path) if is_folder else SingleFile(path)
