"""Implement `feedrank recommend` and `feedrank serve`: print a feed, or serve feeds over HTTP."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console
from feedrank.api.config import Config
from feedrank.api.home import Home


@click.command()
@click.option("--user", default=None, help="User id; an unknown user gets popular items.")
@click.option("--query", default="", help="Search query of the request.")
@click.option(
    "--history", default=None, help="Item ids, latest first, separated by commas; replaces the stored history."
)
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1, 1000), help="Number of items.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON response of the HTTP endpoint.")
@click.pass_obj
def recommend(
    obj: tuple[Home, Config], user: str | None, query: str, history: str | None, count: int, as_json: bool
) -> None:
    """Print one feed. It is written to the journal like any other ranking."""
    from feedrank.api import compose
    from feedrank.api.http.bodies import RecommendBody
    from feedrank.engine.serving.request import RecommendationRequest

    home, config = obj
    with command_errors():
        item_ids = None if history is None else [item.strip() for item in history.split(",") if item.strip()]
        RecommendBody(user=user, query=query, history=item_ids, n=count)  # has the limits of the HTTP API
        given = None if item_ids is None else tuple(item_ids)
        request = RecommendationRequest(user, query=query, history=given, n=count)
        recommender = compose.build_recommender(home, config)
        event = recommender.recommend(str(uuid.uuid4()), time.time(), request)
    if as_json:
        click.echo(json.dumps(event.to_answer(), indent=1))
        return
    if not event.items:
        click.echo("the feed is empty: this user has already interacted with every item")
        return
    catalogue = recommender.catalogue
    table = Table("", "item", "title", "categories", "score", title=f"feed of {user or 'an unknown user'}")
    for position, (item, score) in enumerate(zip(event.items, event.scores, strict=True), 1):
        row = catalogue.ids.row(item)
        table.add_row(
            str(position), item, catalogue.titles[row], ", ".join(catalogue.category_names(row)), f"{score:.3f}"
        )
    console.print(table)


@click.command()
@click.option("--host", default=None, help="Address to listen on; by default that of the config, 127.0.0.1.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="Port; by default that of the config, 8080.")
@click.option("--workers", default=None, type=click.IntRange(0, 256),
              help="Worker processes; by default that of the config, 2. 0: one process without gunicorn.")  # fmt: skip
@click.option("--no-keys", is_flag=True, help="Accept requests without an API key; allowed on a loopback address only.")
@click.pass_obj
def serve(obj: tuple[Home, Config], host: str | None, port: int | None, workers: int | None, no_keys: bool) -> None:
    """Serve feeds over HTTP until interrupted."""
    from feedrank.api import server

    home, config = obj
    with command_errors():
        serve_settings = replace(
            config.serve,
            host=host or config.serve.host,
            port=config.serve.port if port is None else port,
            workers=config.serve.workers if workers is None else workers,
            require_api_key=config.serve.require_api_key and not no_keys,
        )
        server.serve(home, replace(config, serve=serve_settings), click.echo)
