"""Writes a commented config file with every key at its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

from feedrank.api.config_reference import NOT_SET, REQUIRED, ConfigKey

HEADER = """\
# Config of feedrank. Every key has a default, and every default is shown.
# To change a key, remove the # before its name. Keys that you leave alone follow the defaults of the version.
"""
_LINE = 100
"""Longest line of a comment, in characters."""


def config_template(keys: Sequence[ConfigKey]) -> str:
    """Write keys as a TOML file in which each key stands as a comment, with its meaning above.

    The file loads to the defaults, before and after its lines `#key = value` are uncommented. Keys that have no default
    value, and those of a list of tables or of tables with names of one's own, are explained in sentences only.
    """
    list_keys = {key.key for key in keys}
    parts = [HEADER]
    for section, entries in groupby(keys, lambda key: key.section):
        in_list = section.removesuffix(".*") in list_keys
        table = f"[{section.removesuffix('*')}NAME]" if section.endswith(".*") else f"[[{section}]]"
        lines = [f"# Keys of each table {table}:"] if in_list else [f"[{section}]"]
        lines += ["\n".join(_explanation(key, in_list)) + "\n" for key in entries]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _explanation(key: ConfigKey, in_list: bool) -> Iterable[str]:
    unit = f", {key.unit}" if key.unit else ""
    explained = f"{key.meaning} ({key.type}{unit})"
    if in_list or key.default in (NOT_SET, REQUIRED):
        default = key.default if key.default in (NOT_SET, REQUIRED) else f"default {key.default}"
        return _comment(f"{key.name}: {explained[:-1]}; {default})")
    return [*_comment(explained), f"#{key.name} = {key.default}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _LINE, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
