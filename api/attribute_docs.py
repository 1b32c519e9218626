"""Reads the docstrings of a class's attributes from its source; they do not exist at run time."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise


def attribute_docs(owner: type) -> dict[str, str]:
    """Return attribute -> docstring, on one line, of a class and its base classes.

    An attribute's docstring is the string literal right after its annotation. Raises RuntimeError if the source of the
    class is not installed.
    """
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__ != "builtins":
            found |= _docs_of_module(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _docs_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return class -> attribute -> docstring for the top-level classes of an imported module."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        raise RuntimeError(
            f"found no source of {module}, from which the meaning of its settings is read; install feedrank with its "
            ".py files"
        ) from None
    return {node.name: _docs_of_class(node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _docs_of_class(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for statement, following in pairwise(node.body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs
