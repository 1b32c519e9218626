"""`feedrank import`: items and events into the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps
from api.config import Config
from api.home import Home

MOVIELENS = "movielens-100k"


@click.command("import")
@click.argument("source")
@click.option("--format", "kind", default=None, help="jsonl, csv, parquet, movielens or mind; by default guessed.")
@click.option("--strict", is_flag=True, help="Stop at the first line that can't be read.")
@click.pass_obj
def import_events(obj: tuple[Home, Config], source: str, kind: str | None, strict: bool) -> None:
    """Load items and events from SOURCE into the journal.

    SOURCE is a file or a folder: JSONL (plain, .gz, .zst), CSV, Parquet, MovieLens, MIND; or the word movielens-100k,
    which fetches that data set through the package index. Loading the same events twice counts them once. Lines that
    can't be read are counted, and kept with line number and reason in HOME/rejects.jsonl.
    """
    from api.readers import Rejects, read
    from api.readers.fetch import fetch_movielens_100k

    home, _ = obj
    with command_errors():
        if source == MOVIELENS and not Path(source).exists():
            path = fetch_movielens_100k(home.downloads, click.echo)
        else:
            path = Path(source)
        journal = home.journal()
        with Rejects(home.rejects, strict=strict) as rejects, steps() as show:
            total = new = 0
            chunk: list[Any] = []
            for event in read(path, rejects, kind):
                chunk.append(event)
                if len(chunk) == 20_000:
                    new += sum(journal.append(chunk))
                    total += len(chunk)
                    chunk = []
                    show(f"events read: {total:,}", 0, 0)
            new += sum(journal.append(chunk))
            total += len(chunk)
        table = Table(title=f"{source} -> {home.journal_path}", show_header=False)
        for name, count in sorted(journal.counts().items()):
            table.add_row(f"{name} events in the journal", f"{count:,}")
        table.add_row("events new to it", f"{new:,} of {total:,}")
        table.add_row("lines rejected", f"{rejects.rejected:,}")
        for reason, count in list(rejects.summary()["reasons"].items())[:10]:
            table.add_row(f"  {reason}", f"{count:,}")
        console.print(table)
        if rejects.rejected:
            click.echo(f"rejected lines are in {home.rejects}, each with its line number and reason")
