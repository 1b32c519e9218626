"""The values of the config that are in force, and which of them differ from their defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from feedrank.api.config import Config
from feedrank.api.config_reference import ConfigKey, default_text

_PASSWORD_IN_URL = re.compile(r"(?<=://)(?P<user>[^:/@\s\"]*):[^@/\s\"]+@")


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """The value of one key."""

    key: str
    value: str
    """The value as TOML, or `not set`; a password in a URL is replaced by ***."""
    default: str
    differs: bool
    """Whether the value differs from the default."""


def effective_values(config: Config, keys: Iterable[ConfigKey]) -> list[EffectiveValue]:
    """Return the value of each of these keys of `config`, except those inside a list or a table of tables."""
    values, lists = [], set[str]()
    for key in keys:
        if key.section.removesuffix(".*") in lists:
            continue
        if key.type in ("list of tables", "table of tables"):
            lists.add(key.key)
        value = default_text(reduce(getattr, key.key.split("."), config))
        shown = _PASSWORD_IN_URL.sub(r"\g<user>:***@", value)
        values.append(EffectiveValue(key.key, shown, key.default, value != key.default))
    return values
