"""Implement `feedrank features`: list the features of the ranker and what each says, suggest some, prune them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.feature import Feature
from feedrank.features.families.history import ITEM_ITEM_MATRICES
from feedrank.features.sample_item_model import ItemModelParts

OPTIONAL_FAMILIES = ("late_interaction", "cross_encoder")
"""Families whose features only exist with a model in the section of the same name."""

PIPE_WIDTH = 170
"""Width of the table where the output is no terminal: every name is in one line."""


@click.group(invoke_without_command=True)
@click.option("--bundle", "name", default=None, help="List the features of this bundle; `current` is the one in use.")
@click.option("--family", default=None, help="List the features of this family only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def features(context: click.Context, name: str | None, family: str | None, as_json: bool) -> None:
    """List all features: name, family, what each says, unit, and when it is missing.

    Without --bundle, these are the features that a bundle trained with this config can have. Your own families and
    counters are among them.
    """
    if context.invoked_subcommand is not None:
        if name is not None or family is not None or as_json:
            raise click.UsageError(f"options of the list do not go with `features {context.invoked_subcommand}`")
        return
    home: HomePaths
    config: Config
    home, config = context.obj
    with command_errors():
        found = _config_features(config) if name is None else _bundle_features(home, name)
        listed = [feature for feature in found if family in (None, feature.family)]
        if family is not None and not listed:
            families = dict.fromkeys(feature.family for feature in found)
            raise ValueError(f"found no features of the family {family!r}; there are {', '.join(families)}")
    if as_json:
        click.echo(json.dumps([asdict(feature) for feature in listed], indent=1))
        return
    table = Table(expand=True)
    table.add_column("feature", ratio=4, overflow="fold")
    table.add_column("family", no_wrap=True)
    for heading, ratio in (("meaning", 5), ("unit", 3), ("missing when", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for feature in listed:
        table.add_row(feature.name, feature.family, feature.sentence, feature.unit, feature.missing)
    wide = Console(markup=False, emoji=False, highlight=False, width=PIPE_WIDTH)
    (console if console.is_terminal else wide).print(table)
    click.echo(f"{len(listed)} feature{'s' * (len(listed) != 1)}")
    for optional in OPTIONAL_FAMILIES if name is None else ():
        if any(feature.family == optional for feature in listed) and not getattr(config, optional).model:
            click.echo(f"the features of {optional} only exist with a model in [{optional}]; the config has none")


def _config_features(config: Config) -> Sequence[Feature]:
    from feedrank.features.catalog import all_features

    matrices = tuple(name for name in ITEM_ITEM_MATRICES if config.items.ease_items or name not in ("ease", "slist"))
    return all_features(config.features, config.state_spec, ItemModelParts(item_item=matrices))


def _bundle_features(home: HomePaths, name: str) -> Sequence[Feature]:
    from feedrank.models.bundles import bundle

    return bundle.load(bundle.path_of(home.bundles, name)).builder.features
