"""The reference of the config file and of an experiment file: type, default, unit and meaning of every key.

The settings dataclasses are its only source: fields and defaults from the classes, meanings from the docstrings of
their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from feedrank.api.attribute_docs import attribute_docs
from feedrank.api.config import Config, key_of
from feedrank.api.toml_text import to_toml
from feedrank.engine.experiments.spec import ExperimentSpec

NOT_SET, REQUIRED = "not set", "required"
"""Defaults of a key without a default value: it may be left out, or it may not."""
UNIT_OF_SUFFIX = {
    "_ms": "milliseconds", "_s": "seconds", "_h": "hours", "_days": "days", "_mb": "MB", "_units": "units",
}  # fmt: skip
"""End of a name -> unit."""
_STATED_UNIT = re.compile(r" ?Unit: (?P<unit>[^.]+)\.$")
_NAMES = {str: "text", int: "integer", float: "number", bool: "true or false"}
_PLURALS = {str: "text", int: "integers", float: "numbers", bool: "true or false"}
_PARTS_OF_ROOT = ("plan",)
"""Nested settings of an experiment whose keys stand beside those of the experiment."""


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """A key of a TOML file."""

    key: str
    """Section and name, such as index.trees. `*` stands for a name that the file chooses."""
    type: str
    """Type in words, such as integer, list of text, or one of int8, float32."""
    default: str
    """Default as TOML; `not set` or `required` where there is none."""
    unit: str
    """Unit of the value; empty: it has none."""
    meaning: str
    """What the key does, in one or two sentences."""

    @property
    def section(self) -> str:
        """The key without its name, such as index; empty at the top level."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


def config_keys() -> list[ConfigKey]:
    """List the keys of feedrank.toml, section by section. Keys of a list of tables follow the key of the list."""
    return list(_keys(Config, ""))


def experiment_keys() -> list[ConfigKey]:
    """List the keys of the TOML file, or of the body of a request, that declares an experiment."""
    return list(_keys(ExperimentSpec, ""))


def _keys(section: Any, prefix: str) -> Iterator[ConfigKey]:
    types, docs = get_type_hints(section), attribute_docs(section)
    for entry in fields(section):
        kind, path = types[entry.name], f"{prefix}{key_of(entry.name)}"
        if is_dataclass(kind):
            yield from _keys(kind, prefix if entry.name in _PARTS_OF_ROOT else f"{path}.")
            continue
        stated = _STATED_UNIT.search(docs.get(entry.name, ""))
        meaning = _STATED_UNIT.sub("", docs.get(entry.name, ""))
        unit = stated["unit"] if stated else _unit_of_name(entry.name)
        yield ConfigKey(path, type_name(kind), _default(entry), unit, meaning)
        nested = _nested(kind)
        if nested is not None:
            yield from _keys(nested, f"{path}.*." if get_origin(kind) is Mapping else f"{path}.")


def type_name(kind: Any, plural: bool = False) -> str:
    """Name a type of a setting in words. Raises TypeError for a type that no setting has."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _NAMES:
        return (_PLURALS if plural else _NAMES)[kind]
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        options = [argument for argument in arguments if argument is not NoneType]
        return " or ".join(type_name(option, plural) for option in options)
    if origin is tuple:
        return f"{'lists' if plural else 'list'} of {type_name(arguments[0], plural=True)}"
    if origin is Mapping:
        values = "" if arguments[1] is Any else f" of {type_name(arguments[1], plural=True)}"
        return f"{'tables' if plural else 'table'}{values}"
    if is_dataclass(kind):
        return "tables" if plural else "table"
    raise TypeError(f"found a setting of type {kind}, which the config reference has no name for; add one")


def default_text(value: Any) -> str:
    """Write a value as the reference shows it: as TOML, or `not set` for None."""
    return NOT_SET if value is None else to_toml(value)


def _default(entry: Field[Any]) -> str:
    if entry.default_factory is not MISSING:
        return default_text(entry.default_factory())
    return REQUIRED if entry.default is MISSING else default_text(entry.default)


def _nested(kind: Any) -> Any | None:
    """Return the dataclass inside a list, a table or an optional type; None if there is none."""
    for argument in (kind, *get_args(kind)):
        if is_dataclass(argument):
            return argument
    return None


def _unit_of_name(name: str) -> str:
    return next((unit for suffix, unit in UNIT_OF_SUFFIX.items() if name.endswith(suffix)), "")
