"""Implement `feedrank journal backup` and `feedrank journal restore`: copy the journal, and put a copy back."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import click

from feedrank.api.cli.progress import command_errors
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.private_files import make_private_folder

USE_PG_DUMP = (
    "the journal is in PostgreSQL: use pg_dump and pg_restore; what opens the restored journal next, a command or a"
    " server, deletes the erased users of HOME/erased.jsonl again"
)
REQUIRED_COLUMNS = {"id", "kind", "timestamp", "body"}
"""Columns of the table of events in every version."""


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def backup(obj: tuple[HomePaths, Config], target: Path) -> None:
    """Write a complete copy of the journal to the new file TARGET, while servers run.

    A backup holds users who are erased later. `feedrank journal restore` deletes them again, as HOME/erased.jsonl says.
    """
    home, config = obj
    with command_errors():
        if config.journal.url is not None:
            raise ValueError(USE_PG_DUMP)
        if not home.journal_path.exists():
            raise ValueError(f"there is no journal at {home.journal_path}")
        if target.exists():
            raise ValueError(f"{target} exists; give a new file")
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with closing(sqlite3.connect(home.journal_path, timeout=30)) as connection:
                connection.execute("VACUUM INTO ?", (str(target),))
        except BaseException as problem:  # Ctrl-C too: a part of a backup must not pass for one
            target.unlink(missing_ok=True)
            if isinstance(problem, sqlite3.Error):
                raise ValueError(f"the backup failed: {problem}") from None
            raise
    click.echo(f"{target}: {target.stat().st_size:,} bytes")


@click.command()
@click.argument("source", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def restore(obj: tuple[HomePaths, Config], source: Path, yes: bool) -> None:
    """Replace the journal by the backup SOURCE, and delete the users again who were erased since.

    Stop the servers first. The erasures come from HOME/erased.jsonl, which is kept.
    """
    home, config = obj
    with command_errors():
        if config.journal.url is not None:
            raise ValueError(USE_PG_DUMP)
        n_events = _check_backup(source)
    if not yes:
        click.confirm(f"Replace {home.journal_path} by {source} ({n_events:,} events)?", abort=True)
    with command_errors():
        if not home.folder.exists():
            click.echo(f"new home: {home.folder.absolute()}")
            make_private_folder(home.folder)
        _copy_into(source, home.journal_path)
        home.delete_user_data()
        with closing(home.journal()) as restored:
            counts = restored.count_by_kind()
    left = sum(count for kind, count in counts.items() if kind != "tombstone")
    click.echo(f"{home.journal_path}: {left:,} events, after {n_events - left:,} of erased users were deleted again")


def _check_backup(source: Path) -> int:
    """Return the number of events of a backup. Raises ValueError if it is not a whole journal."""
    if not source.is_file():
        raise ValueError(f"there is no file {source}; give a backup of the journal")
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if not columns >= REQUIRED_COLUMNS:
                raise ValueError(f"{source} is not a journal: found no table of events in it")
            if state != "ok":
                raise ValueError(f"{source} is damaged: {state}; take another backup")
            return int(connection.execute("SELECT count(*) FROM events WHERE kind != 'tombstone'").fetchone()[0])
    except sqlite3.Error as problem:
        raise ValueError(f"{source} can't be read as a journal: {problem}") from None


def _copy_into(source: Path, target: Path) -> None:
    """Replace the content of an SQLite file as one transaction. Raises ValueError if another process has it open."""
    with (
        closing(sqlite3.connect(source)) as backup_file,
        closing(sqlite3.connect(target, timeout=1, isolation_level=None)) as connection,
    ):
        target.chmod(0o600)
        try:
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
            backup_file.backup(connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as problem:
            raise ValueError(f"{target} can't be replaced: {problem}; stop the servers of this home first") from None
