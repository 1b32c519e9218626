"""The reference page of the public Python API: whatever `feedrank` exports."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import feedrank
from docs.generator.markdown import code, prose, table, value

INTRO = """# Python API

The public Python API is what `import feedrank` exports. All other modules may change in any version.
"""


def exports() -> Iterator[tuple[str, Any]]:
    """Yield (name, object) of everything in `feedrank.__all__` that is not a module or a plain value."""
    for name in getattr(feedrank, "__all__", ()):
        found = getattr(feedrank, name)
        if not isinstance(found, ModuleType):
            yield name, found


def page() -> str:
    """Return the page: a section for each exported name, with signatures and docstrings."""
    sections = [_section(name, found) for name, found in exports()]
    return "\n".join([INTRO, *(sections or ["This version exports no names yet.\n"])])


def _section(name: str, found: Any) -> str:
    if not callable(found):
        return f"## feedrank.{name}\n\n{'Version of the package.' if name == '__version__' else value(found)}\n"
    parts = [f"## feedrank.{name}\n", _signature(f"feedrank.{name}", found), prose(inspect.getdoc(found) or "") + "\n"]
    if inspect.isclass(found) and not issubclass(found, BaseException):
        parts += [_fields(found), *_members(name, found)]
    return "\n".join(part for part in parts if part)


def _signature(name: str, found: Any) -> str:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # such as exceptions written in C
        return ""
    parameters, keyword_only = [], False
    for one in signature.parameters.values():
        if one.name == "self" or one.name.startswith("_"):
            continue
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            parameters.append("*")
            keyword_only = True
        parameters.append(_parameter(one))
    returned = signature.return_annotation
    ends = "" if returned is inspect.Signature.empty or inspect.isclass(found) else f" -> {_annotation(returned)}"
    shown = f"({', '.join(parameters)}){ends}"
    if len(name + shown) > 90:
        inside = ",\n    ".join(parameters)
        shown = f"(\n    {inside},\n){ends}"
    return f"```python\n{name}{shown}\n```\n"


def _parameter(one: inspect.Parameter) -> str:
    """Return a parameter as Python writes it; a default that is an object is shown by its type."""
    shown = one.name if one.annotation is inspect.Parameter.empty else f"{one.name}: {_annotation(one.annotation)}"
    if one.default is inspect.Parameter.empty:
        return shown
    plain = one.default is None or isinstance(one.default, bool | int | float | str | tuple)
    return f"{shown} = {one.default!r}" if plain else f"{shown} = {type(one.default).__name__}(...)"


def _annotation(annotation: Any) -> str:
    return (annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)).replace("'", "")


def _fields(found: type) -> str:
    if not dataclasses.is_dataclass(found):
        return ""
    rows = [(code(one.name), code(str(one.type).replace("'", ""))) for one in dataclasses.fields(found)
            if not one.name.startswith("_")]  # fmt: skip
    return table(("field", "type"), rows)


def _members(name: str, found: type) -> Iterator[str]:
    """Yield the section of each public method and property, also of inherited ones of feedrank's own classes."""
    own = [one for one in found.__mro__ if one.__module__.startswith("feedrank.")]
    names = {member: None for one in own for member in vars(one) if not member.startswith("_")}
    fields = {one.name for one in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
    for member in names:
        if member in fields:
            continue
        raw = inspect.getattr_static(found, member)
        document = inspect.getdoc(getattr(found, member)) or ""
        if isinstance(raw, property):
            yield f"### {name}.{member}\n\n{prose(document)}\n"
        elif callable(getattr(found, member)):
            signature = _signature(f"{name}.{member}", getattr(found, member))
            yield f"### {name}.{member}\n\n{signature}\n{prose(document)}\n"
