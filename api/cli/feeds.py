"""Implement `feedrank recommend` and `feedrank serve`: print a feed, or serve feeds over HTTP."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths


@click.command()
@click.option("--user", default=None, help="User id; an unknown user gets popular items.")
@click.option("--query", default="", help="Search query of the request.")
@click.option(
    "--history", default=None, help="Item ids, latest first, separated by commas; replaces the stored history."
)
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1, 1000), help="Number of items.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON response of the HTTP endpoint.")
@click.option("--log", is_flag=True, help="Write the feed to the journal, as one that the user sees.")
@click.option("--users", "users_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Recommend for all users of this file: .txt (one id per line), .csv or .parquet (a column"
              " `user`). Needs --out.")  # fmt: skip
@click.option("--out", "out_path", type=click.Path(dir_okay=False, path_type=Path),
              help="File for the feeds of --users: .parquet, .csv or .jsonl; one row per user and item.")  # fmt: skip
@click.pass_obj
def recommend(
    obj: tuple[HomePaths, Config], user: str | None, query: str, history: str | None, count: int, as_json: bool,
    log: bool, users_path: Path | None, out_path: Path | None,
) -> None:  # fmt: skip
    """Print one feed, or write the feeds of many users to a file.

    Nothing is written to the journal, as the user does not see these feeds, unless --log says that the user does.
    """
    from feedrank.api import compose
    from feedrank.api.http.bodies import RecommendBody
    from feedrank.engine.serving.request import RecommendationRequest

    home, config = obj
    if users_path is not None or out_path is not None:
        if users_path is None or out_path is None:
            raise click.UsageError("found only one of --users and --out, expected both")
        if user is not None or query or history is not None or as_json or log:
            raise click.UsageError(
                "found --user, --query, --history, --json or --log beside --users, which allows -n only"
            )
        with command_errors():
            _recommend_many(home, config, users_path, out_path, count)
        return
    with command_errors():
        item_ids = None if history is None else [item.strip() for item in history.split(",") if item.strip()]
        RecommendBody(user=user, query=query, history=item_ids, n=count)  # has the limits of the HTTP API
        given = None if item_ids is None else tuple(item_ids)
        request = RecommendationRequest(user, query=query, history=given, n=count)
        recommender = compose.build_recommender(home, config)
        record = recommender.recommend(str(uuid.uuid4()), time.time(), request, log=log)
        event = record if log else replace(record, logged=False)
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


def _recommend_many(home: HomePaths, config: Config, users_path: Path, out_path: Path, count: int) -> None:
    """Write the feeds of all users of a file to another file, and print counts."""
    from feedrank.api import compose, feed_files
    from feedrank.api.python.recommender import Recommender, feed_schema

    feed_files.check_feed_file(out_path)
    users = feed_files.read_users(users_path)
    started = time.perf_counter()
    rows, unknown, with_feed = 0, 0, 0
    journal = home.existing_journal(config.journal.url)
    with Recommender(compose.build_recommender(home, config, journal), journal, log=False) as recommender:
        opened = time.perf_counter()
        with progress_bars() as show, feed_files.feed_writer(out_path, feed_schema()) as writer:
            for table, unknown_users in recommender.feed_batches(users, count, progress=show):
                writer.write(table)
                rows += table.num_rows
                unknown += len(unknown_users)
                with_feed += len(table["user"].unique())
    seconds = time.perf_counter() - opened
    click.echo(f"{out_path}: {rows:,} rows for {with_feed:,} of {len(users):,} users")
    if unknown:
        click.echo(f"unknown users, who got popular items: {unknown:,}")
    if with_feed < len(users):
        click.echo(f"users with an empty feed, who have interacted with every item: {len(users) - with_feed:,}")
    click.echo(
        f"{seconds:.1f} s, {len(users) / max(seconds, 1e-9):,.0f} users per second; {opened - started:.1f} s to open"
    )


@click.command()
@click.option("--host", default=None, help="Address to listen on; by default that of the config, 127.0.0.1.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="Port; by default that of the config, 8080.")
@click.option("--workers", default=None, type=click.IntRange(0, 256),
              help="Worker processes; by default that of the config, 2. 0: one process without gunicorn.")  # fmt: skip
@click.option("--no-keys", is_flag=True, help="Accept requests without an API key; allowed on a loopback address only.")
@click.pass_obj
def serve(
    obj: tuple[HomePaths, Config], host: str | None, port: int | None, workers: int | None, no_keys: bool
) -> None:
    """Serve feeds over HTTP until interrupted."""
    from feedrank.api.process_end import end_on_interrupt, end_process

    end_on_interrupt()
    from feedrank.api import server  # which takes seconds

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
    end_process()
