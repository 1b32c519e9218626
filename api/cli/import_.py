"""Implement `feedrank import`: load items and events into the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.item_completion import ItemCompletion
from feedrank.api.readers.import_options import TIME_UNITS, ImportOptions, parse_map
from feedrank.models.atomic_files import atomic_write

MOVIELENS = "movielens-100k"
CHUNK = 20_000
"""Events per write; an interrupted import resumes after the last complete chunk."""


@click.command("import")
@click.argument("source")
@click.option("--format", "file_format", default=None,
              help="jsonl, csv, parquet, movielens, mind, ubi, gorse, open-bandit, recbole, retailrocket, hm, otto,"
              " amazon, lastfm, sequences, or a reader of your own as package.module:function;"
              " by default detected.")  # fmt: skip
@click.option(
    "--map",
    "column_map",
    multiple=True,
    metavar="COLUMN=NAME,...",
    help="Names of columns or JSON keys, such as visitorid=user,itemid=item.",
)
@click.option("--type-column", default=None, metavar="COLUMN", help="Column that holds the interaction type.")
@click.option("--separator", default=None, help="Text between two cells, such as ';', '::' or tab; by default found.")
@click.option("--encoding", default=None, help="Encoding of the file, such as cp1252; by default UTF-8 or by its mark.")
@click.option(
    "--time-unit",
    type=click.Choice(TIME_UNITS),
    default=None,
    help="Unit of times that are numbers; auto: from the size of the first ones. By default ms.",
)
@click.option(
    "--zone",
    default=None,
    metavar="NAME",
    help="Zone of times that have none, such as Europe/Berlin; without it they are rejected.",
)
@click.option("--strict", is_flag=True, help="Stop at the first invalid line.")
@click.option("--restart", is_flag=True, help="Start at the first line even if an earlier import was interrupted.")
@click.pass_obj
def import_events(
    obj: tuple[HomePaths, Config], /, source: str, file_format: str | None, column_map: tuple[str, ...], strict: bool,
    restart: bool, **about_file: Any,
) -> None:  # fmt: skip
    """Load items and events from SOURCE into the journal.

    SOURCE is a file or a folder: JSON or JSONL (ours, or Metarank's unchanged; plain, .gz, .zst), CSV, Parquet,
    MovieLens, MIND, OpenSearch UBI, gorse, the Open Bandit Dataset, RecBole's atomic files, RetailRocket, H&M, OTTO,
    Amazon reviews, Last.fm, sequences of items; or the word movielens-100k, which downloads that
    data set from the package index. Importing the same events twice stores them once. Invalid lines are counted and
    written with line number and reason to HOME/rejects.jsonl. An interrupted import resumes where it stopped. An item
    that only interactions or rankings name is made of its id, unless the config has journal.create_items = false.
    """
    from feedrank.api.readers import Rejects, guess_format, read_events
    from feedrank.api.readers.movielens_download import fetch_movielens_100k

    home, config = obj
    with command_errors():
        options = ImportOptions(parse_map(column_map), **about_file)
        if source == MOVIELENS and not Path(source).exists():
            path = fetch_movielens_100k(home.downloads, click.echo)
        else:
            path = Path(source)
        file_format = file_format or guess_format(path)
        journal = home.journal(config.journal.url)
        progress = _ImportProgress(home.import_progress, path, file_format)
        skipped = 0 if restart else progress.done
        completion = ItemCompletion()
        with (
            Rejects(home.rejects, strict=strict, already_written=progress.rejected if skipped else 0) as rejects,
            progress_bars() as show,
        ):
            events = completion.watch(read_events(path, rejects, file_format, options, journal))
            total = len(list(islice(_count_skipped(events, show), skipped))) if skipped else 0
            new = 0
            while chunk := list(islice(events, CHUNK)):
                new += sum(journal.append(chunk))
                total += len(chunk)
                progress.save(total, rejects.rejected)
                show(f"events read: {total:,}", 0, 0)
            progress.finish()
            created = completion.create_missing(journal) if config.journal.create_items else 0
        table = Table(title=f"{source} ({file_format}) -> {config.journal.url or home.journal_path}", show_header=False)
        for name, count in sorted(journal.count_by_kind().items()):
            table.add_row(f"{name} events in the journal", f"{count:,}")
        if skipped:
            table.add_row("events written by an earlier import", f"{skipped:,}")
        table.add_row("new events", f"{new:,} of {total - skipped:,}")
        if created:
            table.add_row("items made of ids that no item describes", f"{created:,}")
        for what, count in rejects.tallies.most_common():
            table.add_row(what, f"{count:,}")
        table.add_row("lines rejected", f"{rejects.rejected:,}")
        for reason, count in list(rejects.summary()["reasons"].items())[:10]:
            table.add_row(f"  {reason}", f"{count:,}")
        console.print(table)
        if rejects.rejected:
            click.echo(f"rejected lines are in {home.rejects}, with line number and reason")
        if file_format == "gorse":
            click.echo(
                "gorse stores no impressions: its feedback updates counters and co-clicks, but gives no rankings to"
                " train on. `feedrank train` builds its groups from recall candidates"
            )


class _ImportProgress:
    """Persist the progress of imports per source in a small file; a source that has changed starts from 0."""

    def __init__(self, path: Path, source: Path, file_format: str) -> None:
        self._path = path
        self._key = str(source.resolve())
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist; give the path of a file or folder of events")
        stat = source.stat()
        self._source_stat = {"format": file_format, "size": stat.st_size, "modified": stat.st_mtime_ns}
        stored = self._read().get(self._key, {})
        unchanged = {name: stored.get(name) for name in self._source_stat} == self._source_stat and not source.is_dir()
        self.done = int(stored["done"]) if unchanged else 0
        self.rejected = int(stored["rejected"]) if unchanged else 0

    def save(self, done: int, rejected: int) -> None:
        """Save the number of events written and lines rejected so far."""
        self._write(self._read() | {self._key: {**self._source_stat, "done": done, "rejected": rejected}})

    def finish(self) -> None:
        """Remove the entry after a complete import; importing the same file again then reads all of it."""
        self._write({key: entry for key, entry in self._read().items() if key != self._key})

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _write(self, body: dict[str, Any]) -> None:
        with atomic_write(self._path) as temporary:
            temporary.write_text(json.dumps(body, indent=1) + "\n")


def _count_skipped(events: Iterator[Any], progress: Any) -> Iterator[Any]:
    for number, event in enumerate(events, 1):
        if number % CHUNK == 0:
            progress(f"events already imported: {number:,}", 0, 0)
        yield event
