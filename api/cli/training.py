"""Implement `feedrank index` and `feedrank train`: build a bundle from the journal."""

from __future__ import annotations

import click
from rich.table import Table

from feedrank.api.cli.exit_codes import EXIT_REFUSED
from feedrank.api.cli.progress import (
    command_errors,
    console,
    embedding_progress,
    position_bias_table,
    print_notes,
    print_shuffled,
    progress_bars,
    timestamped_name,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths


@click.command()
@click.option("--name", default=None, help="Name of the bundle; by default a timestamp.")
@click.pass_obj
def index(obj: tuple[HomePaths, Config], name: str | None) -> None:
    """Embed the items, factorise interactions and build the Annoy index; feeds are then in recall order.

    Items with unchanged text are not embedded again. `feedrank train` builds its own index, so this command is for
    feeds without a trained ranker.
    """
    from feedrank.api import compose
    from feedrank.models.bundles.bundle import BundleParts

    home, config = obj
    name = name or timestamped_name("index")
    with command_errors(), progress_bars() as show:
        compose.check_bundle_name(home, name)
        inputs = compose.load_training_inputs(home, config, embedding_progress(show), needs_positive=False)
        show("collaborative views and index", 0, 0)
        parts = BundleParts(compose.fit_without_ranker(inputs, config))
        compose.save_bundle(home, config, name, parts, {"window": {"offset": inputs.window["offset"]}})
    click.echo(f"current bundle: {home.current_bundle.resolve()} (recall order; `feedrank train` adds the ranker)")


@click.command()
@click.option("--name", default=None, help="Name of the bundle; by default a timestamp.")
@click.option("--tuned", is_flag=True, help="Use the parameters that `feedrank tune` found.")
@click.option("--promote/--no-promote", default=None,
              help="Make the bundle current even if its ranker is no better than recall order, or only keep it."
              " By default the measurement decides.")  # fmt: skip
@click.pass_context
def train(context: click.Context, name: str | None, tuned: bool, promote: bool | None) -> None:
    """Train a LambdaRank ranker on the whole journal and make it the current bundle.

    If the journal has enough rankings with clicks, they are the training groups, and the latest tenth is used for early
    stopping. Otherwise groups are built from recall candidates just before each user's latest interactions, and a slice
    of users is used for early stopping.

    First a small ranker is trained on clicks that were shuffled within their rankings. If it predicts them, features
    see their own labels, and nothing is written. A single feature that ranks too well is named in a warning.

    A ranker that learnt nothing (one tree, or not clearly better than random order), or that is no better than recall
    order, is not made current, unless its nDCG@10 on validation groups is clearly above that of recall order. The
    command says so and ends with the exit code 3; the bundle is kept. If nothing serves yet, a bundle in recall order
    is made current. `--promote` overrides this, and `--no-promote` keeps any bundle for an experiment.

    Exit codes: 0 the bundle is current, 3 the ranker should not serve, 5 another training is running, 1 failed.
    """
    from feedrank.api import compose
    from feedrank.models.bundles import registry

    home: HomePaths
    config: Config
    home, config = context.obj
    with command_errors(), progress_bars() as show:
        run = compose.train_bundle(home, config, name, tuned, show, promote)
    trained = run.trained
    top_features = sorted(trained.ranker.importance().items(), key=lambda item: -item[1])[:10]
    table = Table("feature", "share of gain", title=f"{trained.ranker.trees} trees; most important features")
    for feature, share in top_features:
        table.add_row(feature, f"{share:.1%}")
    console.print(table)
    if trained.ranker.position_bias is not None:
        console.print(position_bias_table(trained.ranker.position_bias))
    groups = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in trained.counts.items())
    print_notes(run.notes, trained.warnings)
    print_shuffled(run.shuffled)
    click.echo(f"groups: {groups}")
    if not run.promoted and promote is False:
        click.echo(f"the bundle {run.bundle} is kept; `feedrank bundles promote {run.bundle}` makes it current")
    elif not run.promoted:
        for line in run.weaknesses:
            click.echo(f"not promoted: {line}", err=True)
        serving = registry.current_name(home.bundles)
        stays = f"{serving} stays current" if run.recall_bundle is None else f"{serving} serves, in recall order"
        click.echo(
            f"the bundle {run.bundle} is kept, but {stays}. `feedrank bundles promote {run.bundle}` overrides this"
        )
        context.exit(EXIT_REFUSED)
    else:
        click.echo(f"current bundle: {home.current_bundle.resolve()}")
