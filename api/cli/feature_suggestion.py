"""Implement `feedrank features suggest`: suggest declared features for the fields of the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from feedrank.api.cli.progress import command_errors, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.api.compose.feature_suggestion import SuggestionReport

PIPE_WIDTH = 160
"""Width of the table, in characters, where stderr is not a terminal."""


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the config to this file.")
@click.option("--force", is_flag=True, help="Replace the file of --output if it exists.")
@click.option("--max-events", type=click.IntRange(min=1_000), default=300_000, show_default=True,
              help="Events of each kind that are read; of more, an even sample.")  # fmt: skip
@click.pass_obj
def suggest(obj: tuple[HomePaths, Config], output: Path | None, force: bool, max_events: int) -> None:
    """Look at the fields of the journal, and write a first config of declared features with reasons.

    Tables [[features.declared]] go to stdout, for your config file; each field's numbers and the reasons stand above as
    comments, and what is left out at the end. A table of all fields goes to stderr. Left out are ids, constants, fields
    that nearly all lack, and values that were probably written after the click.

    The tables of a home without declared features can be added at once:
    `feedrank features suggest >> var/feedrank.toml`, then `feedrank train`.

    Exit codes: 0 written, 1 the journal has no events or the file exists.
    """
    from feedrank.api.compose.feature_suggestion import suggest_features
    from feedrank.api.declared_toml import suggestion_text
    from feedrank.models.atomic_files import atomic_write

    home, config = obj
    with command_errors():
        if output is not None and output.exists() and not force:
            raise ValueError(f"{output} exists; choose another file, or replace it with --force")
        with progress_bars() as show:
            report = suggest_features(home, config, max_events, show)
        text = suggestion_text(report)
        if output is not None:
            with atomic_write(output) as temporary:
                temporary.write_text(text, encoding="utf-8")
    _print_fields(report)
    if output is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"{report.feature_count} features written to {output}")


def _print_fields(report: SuggestionReport) -> None:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=True, markup=False, emoji=False, highlight=False, width=PIPE_WIDTH)
    table = Table("field", "type", title=f"{report.feature_count} features of {len(report.fields)} fields")
    for heading in ("have it", "missing", "distinct", "changes", "known when shown"):
        table.add_column(heading, justify="right")
    table.add_column("suggested, or why not", overflow="fold", ratio=1)
    for one in report.fields:
        summary, known = one.summary, one.summary.known_share
        named = ", ".join(feature.name for feature in one.features)
        if not summary.entities:
            table.add_row(summary.name, "", "", "", "", "", "", named or one.left_out)
            continue
        said = "; ".join(
            filter(None, (named or f"left out: {one.left_out}", one.warning and f"warning: {one.warning}"))
        )
        table.add_row(
            summary.name, summary.type, f"{summary.entities:,}", f"{summary.missing_share:.1%}",
            f"{'>' * summary.has_more}{summary.distinct:,}", f"{summary.changes:.2g}",
            "" if known is None else f"{known:.0%}", said,
        )  # fmt: skip
    console.print(table)
    if report.sampled:
        read = ", ".join(f"{report.read[kind]:,} of {report.total[kind]:,} {kind}" for kind in report.sampled)
        console.print(f"from a sample: {read} events were read; more with --max-events")
