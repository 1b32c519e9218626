"""Implement `feedrank forget`, `purge`, `snapshot` and `journal`: erase, purge, save the state, check the journal."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from math import inf

import click

from feedrank.api.cli.progress import command_errors, progress_bars
from feedrank.api.clock import clock_ms
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.journal.journal_check import UnreadableRow, check_journal

DAY_MS = 86_400_000
UNREADABLE_EXIT_CODE = 3
"""Exit code of `journal check` if an event can't be read."""


@click.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def forget(obj: tuple[HomePaths, Config], user: str, yes: bool) -> None:
    """Delete all events of the user with the id USER from the journal permanently.

    This covers the user's rankings, interactions and user events, and events without a user id in the user's sessions
    or on the user's rankings. Files that are derived from them are deleted too. A tombstone remains, so that running
    servers drop the user. It is also kept in HOME/erased.jsonl, with a salted hash of the id, so that a restored backup
    is cleared when it is opened, and an import leaves out what happened before. The journal's file is rewritten, which
    takes about ten seconds a gigabyte, while others wait to write.
    """
    home, config = obj
    if not yes:
        click.confirm(f"Delete every event of {user!r} from the journal? This can't be undone.", abort=True)
    with command_errors(), closing(home.existing_journal(config.journal.url)) as journal:
        deleted = journal.erase_user(user, f"forget-{uuid.uuid4()}", clock_ms(), inf)
        home.delete_user_data()
    click.echo(f"{deleted:,} events of {user!r} deleted" if deleted else f"the journal has no events of {user!r}")


@click.command()
@click.option(
    "--older-than-days",
    required=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Delete events older than this many days.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def purge(obj: tuple[HomePaths, Config], older_than_days: float, yes: bool) -> None:
    """Delete rankings and interactions older than a number of days; item and user events stay."""
    home, config = obj
    since = round(clock_ms() - older_than_days * DAY_MS)
    day = time.strftime("%Y-%m-%d", time.gmtime(since / 1000))
    if not yes:
        click.confirm(f"Delete every ranking and interaction from before {day}? This can't be undone.", abort=True)
    with command_errors(), closing(home.existing_journal(config.journal.url)) as journal:
        deleted = journal.purge_before(since)
        home.forget_state()
    click.echo(f"{deleted:,} events from before {day} deleted")


@click.command()
@click.pass_obj
def snapshot(obj: tuple[HomePaths, Config]) -> None:
    """Save a snapshot of the current state, so that the next start replays only later events.

    A start saves one by itself after a long replay; use this command from a timer if a server runs for weeks.
    """
    from feedrank.api import compose

    home, config = obj
    with command_errors(), progress_bars() as show:
        show("reading the journal", 0, 0)
        state = compose.save_state_snapshot(home, config)
    click.echo(f"{home.snapshot}: {len(state.users):,} users, up to journal offset {state.offset:,}")


@click.group()
def journal() -> None:
    """Look into the journal."""


@journal.command()
@click.pass_obj
def check(obj: tuple[HomePaths, Config]) -> None:
    """Read every event of the journal, and list those that can't be read.

    Servers and training pass over such events. They come from another program, from an older version or from a damaged
    disk. Also says how many rankings hold parts that only the service writes, but that a caller sent in; they are read
    without these parts. Exit code 0: all events can be read; 3: some can't.
    """
    home, config = obj
    with command_errors(), closing(home.existing_journal(config.journal.url)) as opened:
        report = check_journal(opened, _print_unreadable)
    if report.foreign:
        click.echo(f"{report.foreign:,} rankings are read without the parts that only the service may write")
    click.echo(f"{report.events:,} events, {report.unreadable:,} of them can't be read")
    if report.unreadable:
        raise SystemExit(UNREADABLE_EXIT_CODE)


def _print_unreadable(row: UnreadableRow) -> None:
    click.echo(f"offset {row.offset}: {row.kind} event {row.id!r}: {row.reason}")
