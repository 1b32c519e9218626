"""Writes values as TOML text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(value: Any) -> str:
    """Write a value as TOML on one line; tables and dataclasses are inline tables, without the fields that are None.

    Raises TypeError for a value that TOML can't hold, such as None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {entry.name.rstrip("_"): getattr(value, entry.name) for entry in fields(value)}
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)  # TOML has inf and nan too
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, Mapping):
        entries = [f"{_key(name)} = {to_toml(entry)}" for name, entry in value.items() if entry is not None]
        return f"{{{', '.join(entries)}}}"
    raise TypeError(f"found {value!r}, expected a value that TOML can hold")


def _key(name: object) -> str:
    text = str(name)
    return text if _BARE_KEY.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    """Write a basic string: JSON's escapes are TOML's, which also escapes DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
