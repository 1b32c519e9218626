"""Lists the functions that take many parameters, read from the sources without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.bars import PROJECT
from benchmarks.import_graph import module_files

LIMIT = 8
"""Parameters that a function may have; `self` and `cls` are not counted."""
_COMMAND = "a click command: its parameters are its options"
_CLIENT = "a method of the public HTTP client: its keyword arguments are its interface"
_PYTHON = "a method of the public Python API: its keyword arguments are its interface"
_KERNEL = "a compiled kernel, which takes arrays"
REASONS: dict[str, str] = {
    "api.cli.evaluation.evaluate": _COMMAND,
    "api.cli.experiment_planning.simulate": _COMMAND,
    "api.cli.feeds.recommend": _COMMAND,
    "api.cli.finetune.distill": _COMMAND,
    "api.cli.off_policy.ope": _COMMAND,
    "api.cli.retrain.retrain": _COMMAND,
    "api.client.client.Client.rank": _CLIENT,
    "api.client.client.Client.recommend": _CLIENT,
    "api.client.client.Client.record_interaction": _CLIENT,
    "api.python.recommender.Recommender.rank": _PYTHON,
    "api.python.recommender.Recommender.recommend": _PYTHON,
    "features.bm25._score_batch": _KERNEL,
    "features.families.history._item_item_scores": _KERNEL,
}
"""Name of a function that may have more -> the reason."""


class LongParameterList(NamedTuple):
    """A function with more parameters than it may have."""

    path: str
    """The file, relative to the checkout."""
    line: int
    name: str
    """The module without `feedrank.`, and the function with its class, such as api.client.client.Client.recommend."""
    count: int


def long_parameter_lists(limit: int = LIMIT, files: Mapping[str, Path] | None = None) -> list[LongParameterList]:
    """Return all functions with more than `limit` parameters, most first.

    files: module -> file; None: all modules of feedrank.
    """
    modules = (module_files() if files is None else files).items()
    found = [
        LongParameterList(_shown(path), node.lineno, f"{module.removeprefix('feedrank.')}.{name}", count)
        for module, path in modules
        for name, node in _functions(ast.parse(path.read_text()), "")
        if (count := _count(node)) > limit
    ]
    return sorted(found, key=lambda entry: -entry.count)


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, node
        yield from _functions(node, f"{name}." if hasattr(node, "name") else prefix)


def _count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (bool(names) and names[0] in ("self", "cls")) + bool(node.args.vararg) + bool(node.args.kwarg)
