"""Implement `feedrank forget`, `purge` and `snapshot`: erase users, purge old events, and save the state."""

from __future__ import annotations

import time
import uuid

import click

from feedrank.api.cli.progress import command_errors, progress_bars
from feedrank.api.clock import clock_ms
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import TOMBSTONE, UserEvent

DAY_MS = 86_400_000


@click.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def forget(obj: tuple[HomePaths, Config], user: str, yes: bool) -> None:
    """Delete all events of the user with the id USER from the journal permanently.

    This covers the user's rankings, interactions and user events, and clicks without a user id on these rankings. The
    state snapshot is deleted too and rebuilt at the next start. A tombstone event remains so that running servers drop
    the user; `feedrank purge` deletes it once it is old enough. Importing a file with the user restores the events.
    """
    home, config = obj
    if not yes:
        click.confirm(f"Delete every event of {user!r} from the journal? This can't be undone.", abort=True)
    with command_errors():
        now = clock_ms()
        tombstone = UserEvent(f"forget-{uuid.uuid4()}", now, user, {TOMBSTONE: True}, now)
        deleted = home.existing_journal(config.journal.url).erase_user(user, tombstone)
        home.snapshot.unlink(missing_ok=True)
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
    with command_errors():
        deleted = home.existing_journal(config.journal.url).purge_before(since)
        home.snapshot.unlink(missing_ok=True)
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
