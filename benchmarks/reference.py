"""What the code has and the reference pages lack: config keys, features, table columns, commands and routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import click

from benchmarks.bars import PROJECT
from docs.generator import routes
from feedrank.api.cli import main
from feedrank.api.config import Config
from feedrank.api.readers.rows import EVENT_COLUMNS
from feedrank.features.catalog import all_features

REFERENCE = PROJECT / "docs" / "reference"


def missing_from_reference() -> list[str]:
    """Return what no reference page has, such as "config index.kind"."""
    missing = []
    config, features, tables = _page("config.md"), _page("features.md"), _page("tables.md")
    for section, key in config_keys(Config):
        in_section = config.partition(f"## [{section}]\n")[2].partition("\n## ")[0]
        missing += [] if f"| `{key}` |" in in_section else [f"config {section}.{key}"]
    missing += [f"feature {one.name}" for one in all_features() if f"| `{one.name}` |" not in features]
    for kind, columns in EVENT_COLUMNS.items():
        table = tables.partition(f"## {kind.capitalize()} columns")[2].partition("\n## ")[0]
        missing += [f"column {kind}.{column}" for column in columns if f"| `{column}` |" not in table]
    cli, http = _page("cli.md"), _page("http.md")
    missing += [f"command {name}" for name in commands() if f"\n## {name}\n" not in cli]
    missing += [f"route {route}" for route in routes_of_the_service() if f"### {route}\n" not in http]
    return missing


def config_keys(section: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (section, key) of every key of the config, from its dataclasses."""
    types = get_type_hints(section)
    for entry in fields(section):
        if is_dataclass(kind := types[entry.name]):
            assert isinstance(kind, type)
            yield from config_keys(kind, f"{prefix}.{entry.name}" if prefix else entry.name)
        else:
            yield prefix, entry.name


def commands(command: click.Command = main, name: str = "feedrank") -> Iterator[str]:
    """Yield the name of every command that can be run, such as "feedrank bundles list"."""
    if not isinstance(command, click.Group):
        yield name
        return
    for part in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), part)
        assert found is not None
        yield from commands(found, f"{name} {part}")


def routes_of_the_service() -> Iterator[str]:
    """Yield every route with its method, such as "POST /v1/recommend"."""
    for rule in routes.application().url_map.iter_rules():
        if not rule.rule.startswith(("/docs", "/static")):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            yield from (f"{method} {path}" for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))


def _page(name: str) -> Any:
    path = REFERENCE / name
    return path.read_text() if path.exists() else ""
