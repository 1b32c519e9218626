"""Finds the names of version 0.1 that are still used: in code, config, JSON, features or the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.import_graph import PACKAGES, PROJECT

OLD_NAMES = Path(__file__).with_name("old_names.txt")
"""Sections of names: modules (the last part of their import name), identifiers, config, json, features and flags."""

KEPT = {
    "--days": "`keys create`, `retrain` and `experiment plan` count days; only `purge` had it in another meaning",
    "Clock": "the client's protocol of a clock; the old `Clock` was a callback of the fine-tuning",
    "GAIN": "the gain of Jacobson's estimator, by the paper's name",
    "Moments": "statistical moments of an outcome; the old `Moments` were point-in-time queries",
    "Outcome": "what came of one HTTP attempt; the old `Outcome` was a retraining's result",
    "Verdict": "an experiment's verdict; the old one of the same name was the gate's decision",
    "difference": "a difference of two means or rankings, in its plain sense",
    "targets": "the items that a group's user chose next, as the literature on sequences says",
}
"""Name -> why it stays. Only names that are listed above and found are needed here."""


def old_names_left() -> list[tuple[str, str]]:
    """(old name, where it stands) of each old name that is still used, but for those in `KEPT`."""
    found = [(name, where) for name, where in _uses() if name not in KEPT]
    return sorted(set(found))


def _uses() -> Iterator[tuple[str, str]]:
    sections = _sections()
    identifiers, modules = sections.pop("identifiers"), sections.pop("modules")
    strings = set().union(*sections.values())
    for path in _library():
        where = str(path.relative_to(PROJECT))
        if path.stem in modules:
            yield path.stem, where
        if path.name in _READS_OLD_NAMES:
            continue
        tree = ast.parse(path.read_text())
        yield from ((name, where) for name in _defined(tree) if name in identifiers)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in strings:
                yield str(node.value), where


def _sections() -> dict[str, set[str]]:
    sections: dict[str, set[str]] = {}
    for part in OLD_NAMES.read_text().split("[")[1:]:
        title, _, names = part.partition("]")
        sections[title] = set(names.split())
    return sections


def _library() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines: classes, functions, parameters, fields and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and re.fullmatch(r"[A-Z_]+", node.id):
            yield node.id


_READS_OLD_NAMES = frozenset({"legacy.py", "renamed_keys.py"})
"""The two modules that must know the old names: the journal's upgrade and the config's errors."""
