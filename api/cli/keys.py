"""`feedrank keys`: who may call the HTTP API, and what they may do there."""

from __future__ import annotations

import time

import click
from rich.table import Column, Table

from api.cli.screen import command_errors, console
from api.config import Config
from api.home import Home
from api.keys import SCOPES, Keys

DAY_MS = 86_400_000


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, default=("read",), show_default=True, type=click.Choice(SCOPES),
    help="What the key may do; give it once for each. admin may do everything.",
)  # fmt: skip
@click.option("--days", default=None, type=click.IntRange(1, 36_500), help="How long it is valid; by default for ever.")
@click.pass_obj
def create(obj: tuple[Home, Config], name: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a key called NAME and print its token, once: only a hash of it is kept."""
    home, _ = obj
    path = home.keys
    now = round(time.time() * 1000)
    with command_errors():
        key, token = Keys(path).create(name, scopes, now, None if days is None else now + days * DAY_MS)
    click.echo(token)
    click.echo(f"key {key.id} may {', '.join(key.scopes)}; the token is not shown again, so keep it now", err=True)


@keys.command("list")
@click.pass_obj
def list_(obj: tuple[Home, Config]) -> None:
    """All keys, oldest first, without their secrets."""
    home, _ = obj
    path = home.keys
    now = time.time() * 1000
    with command_errors():
        found = Keys(path).all()
    if not found:
        click.echo(f"there are no keys in {path}; make one with `feedrank keys create`")
        return
    table = Table(Column("id", no_wrap=True), "name", "scopes", "created", "expires")
    for key in found:
        expires = "never" if key.expires is None else _day(key.expires) + (", over" if key.expires <= now else "")
        table.add_row(key.id, key.name, ", ".join(key.scopes), _day(key.created), expires)
    console.print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.pass_obj
def revoke(obj: tuple[Home, Config], key_id: str) -> None:
    """Remove the key ID for good; a server that runs refuses it from the next request on."""
    home, _ = obj
    path = home.keys
    with command_errors():
        if not Keys(path).revoke(key_id):
            raise ValueError(f"there is no key {key_id!r} in {path}; `feedrank keys list` shows which there are")
    click.echo(f"key {key_id} is revoked")


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
