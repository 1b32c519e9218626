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
    shown = str(signature).replace("'", "")
    if len(name + shown) > 90:
        inside = ",\n    ".join(str(one).replace("'", "") for one in signature.parameters.values())
        ends = "" if signature.return_annotation is inspect.Signature.empty else f" -> {signature.return_annotation}"
        shown = f"(\n    {inside},\n){ends}".replace("'", "")
    return f"```python\n{name}{shown}\n```\n"


def _fields(found: type) -> str:
    if not dataclasses.is_dataclass(found):
        return ""
    rows = [(code(one.name), code(str(one.type).replace("'", ""))) for one in dataclasses.fields(found)
            if not one.name.startswith("_")]  # fmt: skip
    return table(("field", "type"), rows)


def _members(name: str, found: type) -> Iterator[str]:
    for member in vars(found):
        if member.startswith("_"):
            continue
        raw = inspect.getattr_static(found, member)
        document = inspect.getdoc(getattr(found, member)) or ""
        if isinstance(raw, property):
            yield f"### {name}.{member}\n\n{prose(document)}\n"
        elif callable(getattr(found, member)):
            signature = _signature(f"{name}.{member}", getattr(found, member))
            yield f"### {name}.{member}\n\n{signature}\n{prose(document)}\n"
