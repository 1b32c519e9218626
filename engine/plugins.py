"""Imports a plug-in: a class or function of the user's own, named as "package.module:name"."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def is_plugin_path(text: str) -> bool:
    """Return whether a text has the form "package.module:name"."""
    module, _, name = text.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_plugin(path: str, what: str, kind: str = "class or function") -> Callable[..., Any]:
    """Import the class or function at a path of the form "package.module:name".

    what: what is loaded, for messages, such as `index.kind`. kind: what it must be, for messages. Raises ValueError if
    the path has another form, or if the module can't be imported or has no such class or function.
    """
    if not is_plugin_path(path):
        raise ValueError(f'found {what} {path!r}, expected the form "package.module:name"')
    module, _, name = path.partition(":")
    try:
        imported = import_module(module)
    except Exception as problem:  # the module is the user's: it may raise anything
        advice = "; install it, or add its folder to PYTHONPATH" if isinstance(problem, ModuleNotFoundError) else ""
        raise ValueError(
            f"can't import the module of {what} {path!r}: {type(problem).__name__}: {problem}{advice}"
        ) from problem
    found = getattr(imported, name, None)
    if not callable(found):
        own = [key for key, value in vars(imported).items() if callable(value) and not key.startswith("_")]
        raise ValueError(
            f"found no {kind} {name!r} in {module} for {what} {path!r}; the module has {', '.join(own) or 'none'}"
        )
    return found  # type: ignore[no-any-return]  # callable() says so


def check_call(
    function: Callable[..., Any], what: str, positional: tuple[str, ...], arguments: Mapping[str, Any]
) -> None:
    """Check that a plug-in can be called in this way, without calling it.

    what: the plug-in, for the message. positional: names of the arguments that feedrank passes by position. arguments:
    keyword arguments from the config. Raises ValueError.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled code may have none; then the call itself tells
        return
    try:
        signature.bind(*positional, **arguments)
    except TypeError as problem:
        call = ", ".join([*positional, *(f"{name}=..." for name in arguments)])
        raise ValueError(f"can't call {what} as ({call}): {problem}; its signature is {signature}") from None
