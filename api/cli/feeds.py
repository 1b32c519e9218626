"""`feedrank recommend` and `feedrank serve`: a feed in the terminal, and feeds over HTTP."""

from __future__ import annotations

import json
import signal
import time
import uuid
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console
from api.config import Config
from api.home import Home


@click.command()
@click.option("--user", default=None, help="Whose feed; a stranger gets a popular one.")
@click.option("--query", default="", help="A text that the feed should answer.")
@click.option("--history", default=None, help="Item ids, latest first, separated by commas; instead of what is known.")
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many items.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as the HTTP endpoint gives it.")
@click.pass_obj
def recommend(
    obj: tuple[Home, Config], user: str | None, query: str, history: str | None, count: int, as_json: bool
) -> None:
    """Print one feed. It is written to the journal like any other."""
    from api import compose
    from api.schemas import RecommendBody, feed_body

    home, config = obj
    with command_errors():
        past = None if history is None else [item.strip() for item in history.split(",") if item.strip()]
        asked = RecommendBody(user=user, query=query, history=past, n=count)
        recommender = compose.recommender(home, config)
        event = recommender.recommend(str(uuid.uuid4()), time.time(), asked.user, asked.query, asked.history, asked.n)
    if as_json:
        click.echo(json.dumps(feed_body(event), indent=1))
        return
    if not event.items:
        click.echo("the feed is empty: there is no item that was not touched before")
        return
    catalogue = recommender.catalogue
    table = Table("", "item", "title", "categories", "score", title=f"feed of {user or 'a stranger'}")
    for place, (item, score) in enumerate(zip(event.items, event.extra["scores"], strict=True), 1):
        row = catalogue.ids.row(item)
        table.add_row(str(place), item, catalogue.titles[row], ", ".join(catalogue.category_names(row)), f"{score:.3f}")
    console.print(table)


@click.command()
@click.option("--host", default=None, help="Address to listen on; by default that of the config, 127.0.0.1.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="Port; by default that of the config, 8080.")
@click.pass_obj
def serve(obj: tuple[Home, Config], host: str | None, port: int | None) -> None:
    """Serve feeds over HTTP until interrupted."""
    from waitress import create_server

    from api import compose
    from api.app import create_app

    home, config = obj
    with command_errors():
        recommender = compose.recommender(home, config)
        app = create_app(recommender)
        try:
            server = create_server(
                app, host=host or config.serve.host, port=config.serve.port if port is None else port,
                threads=config.serve.threads, ident="feedrank",
            )  # fmt: skip
        except (OSError, ValueError) as problem:
            wanted = f"{host or config.serve.host}:{config.serve.port if port is None else port}"
            raise ValueError(f"can't listen on {wanted}: {problem}; choose another --host or --port") from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    click.echo(
        f"bundle {recommender.pipeline.bundle}, {len(recommender.catalogue):,} items; "
        f"listening on {' and '.join(_addresses(server))} (Ctrl-C stops)"
    )
    server.run()
    click.echo("stopped")


def _stop(number: int, _: object) -> None:
    """End the server's loop, which then waits for the requests under way."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise SystemExit


def _addresses(server: Any) -> list[str]:
    """The URLs that a server listens on: a name such as localhost can stand for several addresses."""
    one = hasattr(server, "effective_port")
    sockets = [(server.effective_host, server.effective_port)] if one else server.effective_listen
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host, port in sockets]
