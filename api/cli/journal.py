"""`feedrank forget`, `feedrank retain` and `feedrank snapshot`: the upkeep of the journal and of what is made of it."""

from __future__ import annotations

import time
import uuid

import click

from api.cli.screen import command_errors, steps
from api.config import Config
from api.home import Home
from engine.events import FORGOTTEN, UserEvent

DAY_MS = 86_400_000


@click.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.pass_obj
def forget(obj: tuple[Home, Config], user: str, yes: bool) -> None:
    """Delete everything that the journal holds of one person, for good.

    Their rankings, their interactions, what is known of them, and clicks that name no user but answer one of their
    rankings. The snapshot of the state goes too, and is made anew at the next start. One event stays, by which servers
    that run hear of it; `feedrank retain` deletes it with what is as old. Loading a file that has the person brings
    them back.
    """
    home, config = obj
    if not yes:
        click.confirm(f"Delete every event of {user!r} from the journal? This can't be undone.", abort=True)
    with command_errors():
        now = round(time.time() * 1000)
        note = UserEvent(f"forget-{uuid.uuid4()}", now, user, {FORGOTTEN: True}, now)
        gone = home.journal(config.journal.url).forget(user, note)
        home.snapshot.unlink(missing_ok=True)
    click.echo(f"{gone:,} events of {user!r} deleted" if gone else f"the journal holds nothing of {user!r}")


@click.command()
@click.option("--days", required=True, type=click.FloatRange(min=0, min_open=True), help="What is older goes.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.pass_obj
def retain(obj: tuple[Home, Config], days: float, yes: bool) -> None:
    """Delete rankings and interactions older than so many days; items and what is known of users stay."""
    home, config = obj
    since = round(time.time() * 1000 - days * DAY_MS)
    day = time.strftime("%Y-%m-%d", time.gmtime(since / 1000))
    if not yes:
        click.confirm(f"Delete every ranking and interaction from before {day}? This can't be undone.", abort=True)
    with command_errors():
        gone = home.journal(config.journal.url).retain(since)
        home.snapshot.unlink(missing_ok=True)
    click.echo(f"{gone:,} events from before {day} deleted")


@click.command()
@click.pass_obj
def snapshot(obj: tuple[Home, Config]) -> None:
    """Write the state of the journal as of now, so that the next start reads only what comes after it.

    A start writes one by itself where it had to read much; this is for a timer beside a server that runs for weeks.
    """
    from api import compose

    home, config = obj
    with command_errors(), steps() as show:
        show("reading the journal", 0, 0)
        living = compose.take_snapshot(home, config)
    click.echo(f"{home.snapshot}: {len(living.people):,} people, up to offset {living.offset:,} of the journal")
