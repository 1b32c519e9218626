"""`feedrank bundles`: which there are, which serves, and back to the one before."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console
from api.config import Config
from api.home import Home
from models import bundle, registry


@click.group()
def bundles() -> None:
    """List, compare, promote and remove bundles."""


@bundles.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(obj: tuple[Home, Config], as_json: bool) -> None:
    """All bundles, oldest first."""
    home, _ = obj
    with command_errors():
        found = registry.entries(home.bundles)
    if as_json:
        lines = [{"name": one.name, "current": one.current, "bytes": one.bytes, "problem": one.problem,
                  "made": dict(one.made), **_short(one.manifest)} for one in found]  # fmt: skip
        click.echo(json.dumps(lines, indent=1))
        return
    if not found:
        click.echo(f"there are no bundles in {home.bundles}; make one with `feedrank train`")
        return
    table = Table("", "bundle", "made", "ranker", "items", "data up to", "size")
    for one in found:
        short = _short(one.manifest)
        table.add_row(
            "*" if one.current else "", one.name, str(one.made.get("at", ""))[:19], short["ranker"],
            f"{short['items']:,}", short["until"] or "", f"{one.bytes / 1e6:.1f} MB",
        )  # fmt: skip
    console.print(table)
    for one in found:
        if one.problem:
            click.echo(f"{one.name}: {one.problem}")


@bundles.command()
@click.argument("name", default=bundle.CURRENT)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is.")
@click.pass_obj
def show(obj: tuple[Home, Config], name: str, as_json: bool) -> None:
    """What is in a bundle, and whether it is whole; without NAME the current one."""
    home, _ = obj
    with command_errors():
        opened = bundle.load(home.bundles / name)
    if as_json:
        click.echo(json.dumps(opened.manifest, indent=1))
        return
    table = Table(show_header=False, title=opened.name)
    for key, value in registry.differences(opened.manifest, {}).items():
        if not key.startswith(("features.names", "space.views")):
            table.add_row(key, _cell(value[0]))
    for key, value in bundle.read_made(opened.folder).items():
        table.add_row(f"made.{key}", str(value))
    console.print(table)
    click.echo(f"{len(opened.manifest['files'])} files, each as its sha256 says; {len(opened.builder.names)} features")


@bundles.command()
@click.argument("one")
@click.argument("other", default=bundle.CURRENT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def diff(obj: tuple[Home, Config], one: str, other: str, as_json: bool) -> None:
    """Where two bundles differ; without OTHER, from the current one."""
    home, _ = obj
    with command_errors():
        first, second = (bundle.read_manifest((home.bundles / name).resolve()) for name in (one, other))
    found = registry.differences(first, second)
    if as_json:
        click.echo(json.dumps({key: list(pair) for key, pair in found.items()}, indent=1))
        return
    table = Table("", first["name"], second["name"])
    for key, pair in found.items():
        table.add_row(key, *(_cell(value) for value in pair))
    console.print(table)


@bundles.command()
@click.argument("name")
@click.pass_obj
def promote(obj: tuple[Home, Config], name: str) -> None:
    """Make NAME the bundle that serves, once every file of it has been checked. A server takes it at its next start."""
    home, _ = obj
    with command_errors():
        registry.promote(home.bundles, name)
    click.echo(f"current bundle: {name}")


@bundles.command()
@click.pass_obj
def rollback(obj: tuple[Home, Config]) -> None:
    """Go back to the bundle that served before the current one."""
    home, _ = obj
    with command_errors():
        name = registry.rollback(home.bundles)
    click.echo(f"current bundle: {name}")


@bundles.command()
@click.option("--keep", default=5, show_default=True, type=click.IntRange(min=0), help="How many of the newest stay.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj
def prune(obj: tuple[Home, Config], keep: int, dry_run: bool) -> None:
    """Remove old bundles. The current one, the one before it and those of running experiments always stay."""
    from api.compose.experiments import Desk

    home, config = obj
    with command_errors():
        made = config.journal.url is not None or home.journal_path.exists()
        wanted = Desk(home, home.journal(config.journal.url)).roster.bundles if made else ()
        gone = registry.prune(home.bundles, keep, dry_run, wanted)
    click.echo(f"{'would remove' if dry_run else 'removed'}: {', '.join(gone) or 'nothing'}")


def _short(manifest: Any) -> dict[str, Any]:
    until = manifest.get("window", {}).get("last")
    day = None if until is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(until))
    trees = manifest.get("trees")
    ranker = "" if not manifest else f"{trees} trees" if trees else "recall order"
    return {"ranker": ranker, "items": manifest.get("items", 0), "until": day, "metrics": manifest.get("metrics")}


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
