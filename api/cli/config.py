"""Implement `feedrank config`: print the keys of the config file, the values in force, or a template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby

import click
from rich.console import Console
from rich.table import Column, Table

from feedrank.api.cli.progress import command_errors, console
from feedrank.api.config import Config, load_config
from feedrank.api.config_reference import ConfigKey, config_keys, experiment_keys
from feedrank.api.config_template import config_template
from feedrank.api.effective_config import EffectiveValue, effective_values
from feedrank.api.home_paths import HomePaths

MIN_WIDTH = 110
"""Width of the tables, in characters, where the output is not a terminal."""


@click.command()
@click.argument("section", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--toml", "as_toml", is_flag=True, help="Print a commented config file with every key at its default.")
@click.option("--effective", is_flag=True, help="Print the values in force for the home instead of the reference.")
@click.option("--experiment", is_flag=True, help="Print the keys of an experiment file instead.")
@click.pass_obj
def config(
    obj: tuple[HomePaths, Config], section: str, as_json: bool, as_toml: bool, effective: bool, experiment: bool
) -> None:
    """Print the keys of the config file: type, default, unit and meaning.

    SECTION is a section, such as index, or one key, such as index.trees; by default all keys are printed. The config
    file is HOME/feedrank.toml, or the file that `feedrank --config` names. Start one with
    `feedrank config --toml > feedrank.toml`.

    Exit codes: 0 printed, 1 the config file can't be used (only with --effective), 2 wrong arguments.
    """
    if (as_toml and (as_json or effective or experiment)) or (effective and experiment):
        raise click.UsageError("--toml goes with no other option, and --effective not with --experiment")
    home, _ = obj
    keys = _select(experiment_keys() if experiment else config_keys(), section)
    if as_toml:
        click.echo(config_template(keys), nl=False)
    elif effective:
        with command_errors():
            values = effective_values(load_config(home.config), keys)
        _print_effective(home, values, as_json)
    elif as_json:
        click.echo(json.dumps([asdict(key) for key in keys], indent=1, ensure_ascii=False))
    else:
        _print_reference(keys)


def _select(keys: Sequence[ConfigKey], section: str) -> list[ConfigKey]:
    """Return the keys of a section and of those inside it, or the one key of this name."""
    selected = [key for key in keys if not section or key.key == section or f"{key.section}.".startswith(f"{section}.")]
    if not selected:
        sections = ", ".join(name for name in dict.fromkeys(key.section for key in keys) if name)
        raise click.BadParameter(f"there is no section or key {section!r}; the sections are {sections}")
    return selected


def _print_reference(keys: Iterable[ConfigKey]) -> None:
    for section, entries in groupby(keys, lambda key: key.section):
        table = Table(
            Column("key", no_wrap=True), Column("type", max_width=18), Column("default", max_width=24, overflow="fold"),
            "unit", Column("meaning", overflow="fold"),
            title=f"[{section}]" if section else "top level", title_justify="left",
        )  # fmt: skip
        for key in entries:
            table.add_row(key.name, key.type, key.default, key.unit, key.meaning)
        _print(table)


def _print_effective(home: HomePaths, values: Sequence[EffectiveValue], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(value) for value in values], indent=1, ensure_ascii=False))
        return
    click.echo(f"config file: {home.config or f'none in {home.folder}'}")
    table = Table("", Column("key", no_wrap=True), Column("value", overflow="fold"), Column("default", overflow="fold"))
    for value in values:
        table.add_row("*" if value.differs else "", value.key, value.value, value.default if value.differs else "")
    _print(table)
    count = sum(value.differs for value in values)
    click.echo(f"{count} of {len(values)} values differ from the default; they are marked with *")


def _print(table: Table) -> None:
    if console.is_terminal:
        console.print(table)
    else:
        width = max(console.width, MIN_WIDTH)
        Console(markup=False, emoji=False, highlight=False, width=width).print(table)
