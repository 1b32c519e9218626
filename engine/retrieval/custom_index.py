"""A vector index class of the user's own: it is imported, built, and saved to and loaded from a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.engine.plugins import check_call, load_plugin
from feedrank.engine.protocols import VectorIndex
from feedrank.engine.types import Matrix


class CustomIndexError(ValueError):
    """Raised for a custom index that can't be used; the message names its path."""


@dataclass(frozen=True, slots=True)
class CustomIndexType:
    """The class of a custom index, and the arguments that the config gives it."""

    path: str
    """The class as the config names it: "package.module:Class"."""
    arguments: Mapping[str, Any]
    """Keyword arguments of the class and of its `load`."""
    factory: Callable[..., Any]
    """The class; a function that returns an index will do, but can't be saved."""

    @classmethod
    def from_path(cls, path: str, arguments: Mapping[str, Any]) -> CustomIndexType:
        """Import a class and check that it takes these arguments. Raises CustomIndexError."""
        try:
            factory = load_plugin(path, "index.kind")
            custom = cls(path, arguments, factory)
            check_call(factory, f"index.kind {path!r} with [index.arguments]", ("vectors", "metric"), arguments)
            if custom.is_saved:
                what = f"the `load` of index.kind {path!r} with [index.arguments]"
                check_call(custom._load, what, ("folder", "vectors", "metric"), arguments)
        except ValueError as problem:
            raise CustomIndexError(str(problem)) from problem
        return custom

    @property
    def is_saved(self) -> bool:
        """Whether what the class builds is kept with the bundle: it has `save` and `load`.

        Raises CustomIndexError if it has only one of them.
        """
        has = {name: callable(getattr(self.factory, name, None)) for name in ("save", "load")}
        if has["save"] != has["load"]:
            there, missing = ("save", "load") if has["save"] else ("load", "save")
            raise self._error(f"has a method {there} and no {missing}, expected both or neither")
        return has["save"]

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-ready dict, by which a bundle tells whether its index is the one that the config names."""
        return {"kind": self.path, "arguments": json.loads(json.dumps(dict(self.arguments), default=str))}

    def build(self, vectors: Matrix, metric: str) -> VectorIndex:
        """Build the index of (n, d) vectors. Raises CustomIndexError."""
        return self._checked("can't be built", lambda: self.factory(vectors, metric, **self.arguments))

    def write(self, folder: Path, vectors: Matrix, metric: str) -> None:
        """Build the index, save it in a new folder, and load it once as a check. Raises CustomIndexError."""
        index = self.build(vectors, metric)
        folder.mkdir()
        try:
            index.save(folder)  # type: ignore[attr-defined]  # `is_saved` says that it has it
        except Exception as problem:
            raise self._error(f"can't be saved: {type(problem).__name__}: {problem}") from problem
        if not any(path.is_file() for path in folder.rglob("*")):
            raise self._error("saved no file, expected at least one in the folder that `save` is given")
        loaded = self.load(folder, vectors, metric)
        if len(vectors):
            rows, again = (each.search(vectors[0], 10)[0] for each in (index, loaded))
            if not np.array_equal(rows, again):
                raise self._error(f"finds rows {again} after it was loaded, and {rows} before it was saved")

    def load(self, folder: Path, vectors: Matrix, metric: str) -> VectorIndex:
        """Load the index that `write` saved. Raises CustomIndexError."""
        return self._checked(
            f"can't be loaded from {folder}", lambda: self._load(folder, vectors, metric, **self.arguments)
        )

    @property
    def _load(self) -> Callable[..., Any]:
        loader: Callable[..., Any] = self.factory.load  # type: ignore[attr-defined]  # `is_saved` says that it has it
        return loader

    def _checked(self, failure: str, make: Callable[[], Any]) -> VectorIndex:
        try:
            index: VectorIndex = make()
        except Exception as problem:  # the class is the user's: it may raise anything
            raise self._error(f"{failure}: {type(problem).__name__}: {problem}") from problem
        if not callable(getattr(index, "search", None)):
            raise self._error(f"gave {type(index).__name__}, expected an object with a method search(vector, k)")
        return index

    def _error(self, problem: str) -> CustomIndexError:
        return CustomIndexError(f"index.kind {self.path!r} {problem}")
