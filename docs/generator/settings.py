"""The reference pages of the config keys and of the features, from what the code says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from docs.generator.markdown import code, table, text, value

CONFIG_INTRO = """# Config keys

Settings are TOML, in `feedrank.toml` of the home folder or in the file that `--config` names.
Every key has a default. An unknown key is an error that names the key.
`feedrank config` prints the same list.
"""
FEATURES_INTRO = """# Features

These are the features that the ranker reads, with the default config. A missing value is NaN, as are all features of an
item that is not in the catalogue. `late_interaction` and `cross_encoder` have features only with a model in the config.
`feedrank features` prints the same list for your own config.
"""


def config_keys() -> list[Any] | None:
    """Return the config keys, each with key, type, default, unit and meaning; None if this version can't list them."""
    module = _module("feedrank.api.config_reference")
    return None if module is None else list(module.config_keys())


def features() -> list[Any] | None:
    """Return the features, each with name, family, sentence, unit and missing; None if this version can't list them."""
    module = _module("feedrank.features.catalog")
    return None if module is None else list(module.all_features())


def config_page() -> str:
    """Return the page of the config keys: a table for each section."""
    keys = config_keys()
    if keys is None:
        return f"{CONFIG_INTRO}\n{_absent('feedrank.api.config_reference')}"
    parts = [CONFIG_INTRO]
    for section, entries in _grouped(keys, lambda entry: entry.key.rpartition(".")[0]):
        rows = [(code(one.key.rpartition(".")[2]), code(one.type), _default(one.default), text(one.unit or ""),
                 text(one.meaning)) for one in entries]  # fmt: skip
        heading = f"## [{section}]\n" if section else "## Top level\n"
        parts += [heading, table(("key", "type", "default", "unit", "meaning"), rows)]
    return "\n".join(parts)


def features_page() -> str:
    """Return the page of the features: a table for each family."""
    found = features()
    if found is None:
        return f"{FEATURES_INTRO}\n{_absent('feedrank.features.catalog')}"
    parts = [FEATURES_INTRO]
    for family, entries in _grouped(found, lambda entry: entry.family):
        rows = [(code(one.name), text(one.sentence), text(one.unit or ""), text(one.missing or "")) for one in entries]
        parts += [f"## {family}\n", table(("feature", "meaning", "unit", "missing when"), rows)]
    return "\n".join(parts)


def _grouped(entries: Iterable[Any], key: Callable[[Any], str]) -> Iterable[tuple[str, list[Any]]]:
    """Return (group, entries) in the order of each group's first entry."""
    groups: dict[str, list[Any]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups.items()


def _default(found: object) -> str:
    return code(found) if isinstance(found, str) else value(found)


def _module(name: str) -> Any | None:
    try:
        return import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name != name:
            raise
        return None


def _absent(module: str) -> str:
    return f"This version of feedrank has no `{module}` yet, so this page has no table.\n"
