"""Implement `feedrank import`: load items and events into the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from feedrank.api.cli.import_summary import ImportSummary
from feedrank.api.cli.progress import command_errors, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.id_matching import IdMatching, KnownIds
from feedrank.api.item_completion import create_from_ids
from feedrank.api.readers.import_options import MISSING, TIME_UNITS, ImportOptions, parse_map
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.events import Event
from feedrank.engine.journal.journal import Journal
from feedrank.models.atomic_files import atomic_write

MOVIELENS = "movielens-100k"
CHUNK = 5_000
"""Events per write; an interrupted import resumes after the last complete chunk."""
UNPARSED_FORMATS = ("movielens", "mind", "sequences", "lastfm", "letor")
"""Formats whose readers make events themselves; those of others give each to `parse`, which the journal need not."""
COMPARED = 100
"""Events with a known id that are compared with the stored ones."""


@click.command("import")
@click.argument("source")
@click.option("--format", "file_format", default=None,
              help="jsonl, csv, parquet, movielens, mind, ubi, gorse, open-bandit, recbole, retailrocket, hm, otto,"
              " amazon, lastfm, sequences, letor, or a reader of your own as package.module:function;"
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
@click.option(
    "--missing",
    type=click.Choice(MISSING),
    default=None,
    help="Numbers that a sparse line of a feature file leaves out: zero, as in SVMlight, or absent. By default zero.",
)
@click.option("--strict", is_flag=True, help="Stop at the first invalid line.")
@click.option("--include-erased", is_flag=True, help="Take in events of erased users from before the erasure too.")
@click.option("--restart", is_flag=True, help="Start at the first line even if an earlier import was interrupted.")
@click.pass_obj
def import_events(
    obj: tuple[HomePaths, Config], /, source: str, file_format: str | None, column_map: tuple[str, ...], strict: bool,
    restart: bool, include_erased: bool, **about_file: Any,
) -> None:  # fmt: skip
    """Load items and events from SOURCE into the journal.

    SOURCE is a file or a folder: JSON or JSONL (ours, or Metarank's unchanged), CSV (other separators too), Parquet,
    MovieLens, MIND, OpenSearch UBI, gorse, the Open Bandit Dataset, RecBole's atomic files, RetailRocket, H&M, OTTO,
    Amazon reviews, Last.fm, sequences of items, feature files of learning to rank (LETOR, SVMlight); or the word
    movielens-100k, which downloads that data set from the package index. Importing the same events twice stores them
    once. Invalid lines are counted and written with line number and reason to HOME/rejects.jsonl. A file whose times
    can't be right is refused. An import that takes in nothing, or whose ids do not meet those of the journal, ends with
    an error. An interrupted import resumes where it stopped. Events of erased users (`feedrank forget`) from before the
    erasure are left out. An item that only interactions or rankings name is created from its id, unless the config has
    journal.create_items = false.
    """
    from feedrank.api.readers import guess_format, read_events
    from feedrank.api.readers.event_checks import check_events
    from feedrank.api.readers.movielens_download import fetch_movielens_100k

    home, config = obj
    with command_errors():
        options = ImportOptions(parse_map(column_map), **about_file)
        if source == MOVIELENS and not Path(source).exists():
            path = fetch_movielens_100k(home.downloads, click.echo)
        else:
            path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder of events")
        file_format = file_format or guess_format(path)
        if not home.folder.exists():
            click.echo(f"new home: {home.folder.absolute()}")
        journal = home.journal(config.journal.url)
        progress = _ImportProgress(home.import_progress, path, file_format, options)
        skipped = 0 if restart else progress.done
        matching = IdMatching()
        with (
            Rejects(home.rejects, strict=strict, already_written=progress.rejected if skipped else 0) as rejects,
            progress_bars() as show,
        ):
            found = read_events(path, rejects, file_format, options, journal)
            found = check_events(found, rejects, str(path), round(time.time() * 1000), _time_advice(options))
            events = matching.watch(found)
            total = len(list(islice(_count_skipped(events, show), skipped))) if skipped else 0
            new, repeated, erased = 0, list[Event](), 0
            while found_chunk := list(islice(events, CHUNK)):
                # read again for each chunk, as users may be erased meanwhile
                chunk = found_chunk if include_erased else journal.erasure_log.known().without(found_chunk)
                erased += len(found_chunk) - len(chunk)
                is_new = journal.append(chunk, checked=file_format not in UNPARSED_FORMATS)
                new += sum(is_new)
                repeated += [event for event, flag in zip(chunk, is_new, strict=True) if not flag][
                    : COMPARED - len(repeated)
                ]
                total += len(found_chunk)
                progress.save(total, rejects.rejected)
                show(f"events read: {total:,}", 0, 0)
            progress.finish()
        known = KnownIds.of(journal, matching)
        matches = matching.matches(known, journal)
        missing = matching.undescribed - known.items - known.created_items
        summary = ImportSummary(
            source=str(path), format=file_format, journal=config.journal.url or str(home.journal_path), events=total,
            resumed=skipped, new=new, erased=erased, taken=[event.id for event in repeated if _differs(event, journal)],
            created=create_from_ids(journal, missing) if config.journal.create_items else 0,
            stored=journal.count_by_kind(), types=matching.types, known=known, matches=matches,
        )  # fmt: skip
        summary.print(rejects, config.interactions)
        summary.check(rejects, config.journal.max_unknown_share)


def _time_advice(options: ImportOptions) -> str | None:
    """Return what to do about times that can't be right, if the user gave their unit; None otherwise."""
    if options.time_unit is None:
        return None
    return f"they were read with --time-unit {options.time_unit}; give another unit, or correct them"


def _differs(event: Event, journal: Journal) -> bool:
    """Return whether the journal has another event under an event's id."""
    stored = journal.find(event.id)
    return stored is not None and replace(stored, received=None) != replace(event, received=None)


class _ImportProgress:
    """Persist the progress of imports per source in a small file; a source that has changed starts from 0."""

    def __init__(self, path: Path, source: Path, file_format: str, options: ImportOptions) -> None:
        self._path = path
        self._key = str(source.resolve())
        stat = source.stat()
        given = json.dumps({name: getattr(options, name) for name in options.given}, default=dict)
        self._source_stat = {
            "format": file_format,
            "options": given,
            "size": stat.st_size,
            "modified": stat.st_mtime_ns,
        }
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
