"""Implement `feedrank keys`: manage API keys and their scopes for the HTTP API."""

from __future__ import annotations

import time

import click
from rich.table import Column, Table

from feedrank.api.cli.progress import command_errors, console
from feedrank.api.clock import clock_ms
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.keys import SCOPES, ApiKeys

DAY_MS = 86_400_000


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, default=("read",), show_default=True, type=click.Choice(SCOPES),
    help="Scope of the key; repeatable. import: events may hold what only the service writes. admin: all scopes.",
)  # fmt: skip
@click.option(
    "--days", default=None, type=click.IntRange(1, 36_500), help="Days until the key expires; by default it never does."
)
@click.pass_obj
def create(obj: tuple[HomePaths, Config], name: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Create a key called NAME and print its token once; only a hash of it is stored."""
    home, _ = obj
    path = home.keys
    now = clock_ms()
    with command_errors():
        key, token = ApiKeys(path).create(name, scopes, now, None if days is None else now + days * DAY_MS)
    click.echo(token)
    click.echo(
        f"key {key.id} has the scopes {', '.join(key.scopes)}; the token is not shown again, so store it now", err=True
    )


@keys.command("list")
@click.pass_obj
def list_(obj: tuple[HomePaths, Config]) -> None:
    """List all keys, oldest first, without their secrets."""
    home, _ = obj
    path = home.keys
    now = clock_ms()
    with command_errors():
        all_keys = ApiKeys(path).all()
    if not all_keys:
        click.echo(f"there are no keys in {path}; create one with `feedrank keys create`")
        return
    table = Table(Column("id", no_wrap=True), "name", "scopes", "created", "expires")
    for key in all_keys:
        expires = (
            "never" if key.expires is None else _format_time(key.expires) + (", expired" if key.expires <= now else "")
        )
        table.add_row(key.id, key.name, ", ".join(key.scopes), _format_time(key.created), expires)
    console.print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.pass_obj
def revoke(obj: tuple[HomePaths, Config], key_id: str) -> None:
    """Delete the key ID permanently; running servers refuse it from the next request on."""
    home, _ = obj
    path = home.keys
    with command_errors():
        if not ApiKeys(path).revoke(key_id):
            raise ValueError(f"there is no key {key_id!r} in {path}; `feedrank keys list` shows all keys")
    click.echo(f"key {key_id} is revoked")


def _format_time(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
