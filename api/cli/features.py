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

    Without --bundle, these are the features that a bundle trained with this config can have. Your own families,
    counters and declared features are among them. With --bundle, the share of missing values in the training rows and
    the share of the ranker's gain stand beside each.
    """
    if context.invoked_subcommand is not None:
        if name is not None or family is not None or as_json:
            raise click.UsageError(f"options of the list do not go with `features {context.invoked_subcommand}`")
        return
    home: HomePaths
    config: Config
    home, config = context.obj
    with command_errors():
        found, learnt = (_config_features(config), {}) if name is None else _bundle_features(home, name)
        listed = [feature for feature in found if family in (None, feature.family)]
        if family is not None and not listed:
            families = dict.fromkeys(feature.family for feature in found)
            raise ValueError(f"found no features of the family {family!r}; there are {', '.join(families)}")
    if as_json:
        click.echo(json.dumps([asdict(feature) | learnt.get(feature.name, {}) for feature in listed], indent=1))
        return
    table = Table(expand=True)
    table.add_column("feature", ratio=4, overflow="fold")
    table.add_column("family", no_wrap=True)
    for heading, ratio in (("meaning", 5), ("unit", 3), ("missing when", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for heading in ("missing", "gain") if learnt else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for feature in listed:
        cells = (feature.name, feature.family, feature.sentence, feature.unit, feature.missing)
        shares = learnt.get(feature.name, {})
        table.add_row(*cells, *("" if share is None else f"{share:.1%}" for share in shares.values()))
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


def _bundle_features(home: HomePaths, name: str) -> tuple[Sequence[Feature], dict[str, dict[str, float | None]]]:
    """Return the features of a bundle, and for each its share of missing values at training and of the ranker's gain.

    A bundle without a ranker has no shares.
    """
    from feedrank.models.bundles import bundle

    opened = bundle.load(bundle.path_of(home.bundles, name))
    features = opened.builder.features
    if opened.ranker is None:
        return features, {}
    histogram, gains = bundle.read_histogram(opened.folder), opened.ranker.importance()
    missing = {} if histogram is None else {of: shares[-1] for of, shares in histogram.shares.items()}
    return features, {
        feature.name: {"missing_share": missing.get(feature.name), "gain_share": gains.get(feature.name)}
        for feature in features
    }
