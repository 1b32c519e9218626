"""`feedrank index` and `feedrank train`: from the journal to a bundle."""

from __future__ import annotations

import time

import click
from rich.table import Table

from api.cli.screen import bias_table, command_errors, console, stamp, steps, texts
from api.config import Config
from api.home import Home


@click.command()
@click.option("--name", default=None, help="Name of the bundle; by default made of the time.")
@click.pass_obj
def index(obj: tuple[Home, Config], name: str | None) -> None:
    """Embed the items, factorise behaviour, build the Annoy index; feeds then come in recall order.

    Items whose text has not changed are not embedded again. `feedrank train` makes its own index, so this is for a
    feed without a trained ranker.
    """
    from api import compose

    home, config = obj
    name = name or stamp("index")
    with command_errors(), steps() as show:
        compose.check_name(home, name)
        made = compose.material(home, config, texts(show))
        show("behavioural views and index", 0, 0)
        compose.save(home, config, name, compose.index_only(made, config), None, {})
    click.echo(f"current bundle: {home.current.resolve()} (recall order; `feedrank train` adds the ranker)")


@click.command()
@click.option("--name", default=None, help="Name of the bundle; by default made of the time.")
@click.option("--tuned", is_flag=True, help="Use the parameters that `feedrank tune` found.")
@click.pass_obj
def train(obj: tuple[Home, Config], name: str | None, tuned: bool) -> None:
    """Train a LambdaRank ranker on the whole journal, and make it the current bundle.

    Where the journal has enough rankings with clicks they are the training groups, and the latest tenth of them stops
    training early; where it has not, groups are what recall finds just before each person's latest touches, and a slice
    of people stops it early.
    """
    from api import compose

    home, config = obj
    started = time.perf_counter()
    name = name or stamp("lambdarank")
    with command_errors(), steps() as show:
        compose.check_name(home, name)
        config = compose.with_tuned(home, config) if tuned else config
        made = compose.material(home, config, texts(show))
        trained = compose.train(made, config, show)
        show("writing the bundle", 0, 0)
        seconds = round(time.perf_counter() - started, 1)
        compose.save_trained(home, config, name, made, trained, {}, seconds)
    best = sorted(trained.ranker.importance().items(), key=lambda pair: -pair[1])[:10]
    table = Table("feature", "share of gain", title=f"{trained.ranker.trees} trees; what they use most")
    for feature, share in best:
        table.add_row(feature, f"{share:.1%}")
    console.print(table)
    if trained.ranker.position_bias is not None:
        console.print(bias_table(trained.ranker.position_bias))
    groups = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in trained.counts.items())
    click.echo(f"groups: {groups}\ncurrent bundle: {home.current.resolve()}")
