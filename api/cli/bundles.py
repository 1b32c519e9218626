"""Implement `feedrank bundles`: list, inspect, compare, promote, roll back and prune bundles."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.models.bundles import bundle, registry


@click.group()
def bundles() -> None:
    """List, compare, promote and remove bundles."""


@bundles.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(obj: tuple[HomePaths, Config], as_json: bool) -> None:
    """List all bundles, oldest first."""
    home, _ = obj
    with command_errors():
        entries = registry.list_bundles(home.bundles)
    if as_json:
        lines = [{"name": entry.name, "current": entry.current, "bytes": entry.bytes, "problem": entry.problem,
                  "build": dict(entry.build_info), **_summary(entry.manifest)} for entry in entries]  # fmt: skip
        click.echo(json.dumps(lines, indent=1))
        return
    if not entries:
        click.echo(f"there are no bundles in {home.bundles}; create one with `feedrank train`")
        return
    table = Table("", "bundle", "created", "version", "ranker", "items", "data up to", "size")
    for entry in entries:
        summary = _summary(entry.manifest)
        table.add_row(
            "*" if entry.current else "", entry.name, str(entry.build_info.get("at", ""))[:19], _version(entry),
            summary["ranker"],
            f"{summary['items']:,}", summary["until"] or "", f"{entry.bytes / 1e6:.1f} MB",
        )  # fmt: skip
    console.print(table)
    for entry in entries:
        if entry.problem:
            click.echo(f"{entry.name}: {entry.problem}")


@bundles.command()
@click.argument("name", default=bundle.CURRENT)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.pass_obj
def show(obj: tuple[HomePaths, Config], name: str, as_json: bool) -> None:
    """Show the content of the bundle NAME (by default the current one) and verify its files."""
    home, _ = obj
    with command_errors():
        opened = bundle.load(bundle.path_of(home.bundles, name))
    if as_json:
        click.echo(json.dumps(opened.manifest, indent=1))
        return
    table = Table(show_header=False, title=opened.name)
    for key, value in registry.manifest_differences(opened.manifest, {}).items():
        if not key.startswith(("features.names", "space.blocks")):
            table.add_row(key, _format_cell(value[0]))
    for key, value in bundle.read_build_info(opened.folder).items():
        table.add_row(f"build.{key}", str(value))
    console.print(table)
    click.echo(
        f"{len(opened.manifest['files'])} files, all sha256 checksums valid; {len(opened.builder.names)} features"
    )


@bundles.command()
@click.argument("first")
@click.argument("second", default=bundle.CURRENT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def diff(obj: tuple[HomePaths, Config], first: str, second: str, as_json: bool) -> None:
    """Compare the bundles FIRST and SECOND; by default SECOND is the current one."""
    home, _ = obj
    with command_errors():
        first_manifest, second_manifest = (
            bundle.read_manifest(bundle.path_of(home.bundles, name).resolve()) for name in (first, second)
        )
    differences = registry.manifest_differences(first_manifest, second_manifest)
    if as_json:
        click.echo(json.dumps({key: list(values) for key, values in differences.items()}, indent=1))
        return
    table = Table("", first_manifest["name"], second_manifest["name"])
    for key, values in differences.items():
        table.add_row(key, *(_format_cell(value) for value in values))
    console.print(table)


@bundles.command()
@click.argument("name")
@click.pass_obj
def promote(obj: tuple[HomePaths, Config], name: str) -> None:
    """Verify all files of the bundle NAME and make it the current one. Running servers load it."""
    home, _ = obj
    with command_errors():
        registry.promote(home.bundles, name)
    click.echo(f"current bundle: {name}")


@bundles.command()
@click.pass_obj
def rollback(obj: tuple[HomePaths, Config]) -> None:
    """Make the previously promoted bundle the current one again."""
    home, _ = obj
    with command_errors():
        name = registry.rollback(home.bundles)
    click.echo(f"current bundle: {name}")


@bundles.command()
@click.option(
    "--keep", default=5, show_default=True, type=click.IntRange(min=0), help="Number of newest bundles to keep."
)
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.pass_obj
def prune(obj: tuple[HomePaths, Config], keep: int, dry_run: bool) -> None:
    """Remove old bundles. The current one, the previous one and those of running experiments are always kept."""
    from feedrank.api.compose.experiments import ExperimentService

    home, config = obj
    with command_errors():
        has_journal = config.journal.url is not None or home.journal_path.exists()
        in_use = (
            ExperimentService(home, home.journal(config.journal.url)).experiment_registry.bundles if has_journal else ()
        )
        removed = registry.prune(home.bundles, keep, dry_run, in_use)
    click.echo(f"{'would remove' if dry_run else 'removed'}: {', '.join(removed) or 'nothing'}")


def _version(entry: registry.BundleEntry) -> str:
    """Return the version of feedrank that wrote a bundle; empty if the bundle does not say it."""
    return str(entry.build_info.get("version") or entry.manifest.get("version", ""))


def _summary(manifest: Any) -> dict[str, Any]:
    last = manifest.get("window", {}).get("last")
    until = None if last is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(last))
    trees = manifest.get("trees")
    ranker = "" if not manifest else f"{trees} trees" if trees else "recall order"
    return {"ranker": ranker, "items": manifest.get("items", 0), "until": until, "metrics": manifest.get("metrics")}


def _format_cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
