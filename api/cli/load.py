"""`feedrank import`: items and events into the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps
from api.config import Config
from api.home import Home
from models.files import written_aside

MOVIELENS = "movielens-100k"
CHUNK = 20_000
"""Events that are written together, and after which an import that is broken off goes on."""


@click.command("import")
@click.argument("source")
@click.option("--format", "kind", default=None,
              help="jsonl, csv, parquet, movielens, mind, ubi, gorse or open-bandit; by default guessed.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Stop at the first line that can't be read.")
@click.option("--again", is_flag=True, help="Begin at the first line, also where an earlier import was broken off.")
@click.pass_obj
def import_events(obj: tuple[Home, Config], source: str, kind: str | None, strict: bool, again: bool) -> None:
    """Load items and events from SOURCE into the journal.

    SOURCE is a file or a folder: JSON or JSONL (ours, or Metarank's unchanged; plain, .gz, .zst), CSV, Parquet,
    MovieLens, MIND, OpenSearch UBI, gorse, the Open Bandit Dataset; or the word movielens-100k, which fetches that data
    set through the package index. Loading the same events twice counts them once. Lines that can't be read are counted,
    and kept with line number and reason in HOME/rejects.jsonl. An import that is broken off goes on where it was.
    """
    from api.readers import Rejects, guess, read
    from api.readers.fetch import fetch_movielens_100k

    home, config = obj
    with command_errors():
        if source == MOVIELENS and not Path(source).exists():
            path = fetch_movielens_100k(home.downloads, click.echo)
        else:
            path = Path(source)
        kind = kind or guess(path)
        journal = home.journal(config.journal.url)
        progress = _Progress(home.imports, path, kind)
        skipped = 0 if again else progress.done
        with (
            Rejects(home.rejects, strict=strict, passed=progress.rejected if skipped else 0) as rejects,
            steps() as show,
        ):
            events = iter(read(path, rejects, kind))
            total = len(list(islice(_counted(events, show), skipped))) if skipped else 0
            new = 0
            while chunk := list(islice(events, CHUNK)):
                new += sum(journal.append(chunk))
                total += len(chunk)
                progress.note(total, rejects.rejected)
                show(f"events read: {total:,}", 0, 0)
            progress.finish()
        table = Table(title=f"{source} ({kind}) -> {config.journal.url or home.journal_path}", show_header=False)
        for name, count in sorted(journal.counts().items()):
            table.add_row(f"{name} events in the journal", f"{count:,}")
        if skipped:
            table.add_row("events that an earlier import had written", f"{skipped:,}")
        table.add_row("events new to it", f"{new:,} of {total - skipped:,}")
        table.add_row("lines rejected", f"{rejects.rejected:,}")
        for reason, count in list(rejects.summary()["reasons"].items())[:10]:
            table.add_row(f"  {reason}", f"{count:,}")
        console.print(table)
        if rejects.rejected:
            click.echo(f"rejected lines are in {home.rejects}, each with its line number and reason")
        if kind == "gorse":
            click.echo(
                "gorse keeps no lists of what was shown: its feedback feeds counters and co-clicks, but makes no"
                " rankings to train on. `feedrank train` takes its groups from what recall finds"
            )


class _Progress:
    """How far the import of a file came, in a small file beside the journal; a file that has changed starts anew."""

    def __init__(self, path: Path, source: Path, kind: str) -> None:
        self._path = path
        self._key = str(source.resolve())
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist; give the path of a file or folder of events")
        about = source.stat()
        self._about = {"format": kind, "size": about.st_size, "modified": about.st_mtime_ns}
        known = self._read().get(self._key, {})
        same = {name: known.get(name) for name in self._about} == self._about and not source.is_dir()
        self.done = int(known["done"]) if same else 0
        self.rejected = int(known["rejected"]) if same else 0

    def note(self, done: int, rejected: int) -> None:
        """So many events are in the journal."""
        self._write(self._read() | {self._key: {**self._about, "done": done, "rejected": rejected}})

    def finish(self) -> None:
        """All are: an import of the same file reads it whole, and finds nothing new."""
        self._write({key: known for key, known in self._read().items() if key != self._key})

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, body: dict[str, Any]) -> None:
        with written_aside(self._path) as aside:
            aside.write_text(json.dumps(body, indent=1) + "\n")


def _counted(events: Iterator[Any], show: Any) -> Iterator[Any]:
    for number, event in enumerate(events, 1):
        if number % CHUNK == 0:
            show(f"events that are there already: {number:,}", 0, 0)
        yield event
