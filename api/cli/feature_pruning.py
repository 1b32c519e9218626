"""Implement `feedrank features prune`: drop declared features that add nothing on validation groups."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from feedrank.api.cli.exit_codes import EXIT_REFUSED, EXIT_TOO_LITTLE
from feedrank.api.cli.progress import command_errors, print_notes, print_table, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.api.compose.feature_pruning import PruneRun


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the config without the dropped features to this file.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file of --output if it exists, which may be the config.")
@click.option("--margin", type=click.FloatRange(0, min_open=True),
              help="Largest loss of nDCG@10 to accept: the whole 95 % interval must be above minus this; by default"
              " retrain.gate.margin of the config.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 20), default=2, show_default=True,
              help="Rankers of different seeds whose metrics are averaged; more see smaller losses.")  # fmt: skip
@click.option("--max-trainings", type=click.IntRange(min=4), default=60, show_default=True,
              help="Rankers that are trained at most.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def prune(
    context: click.Context, output: Path | None, force: bool, margin: float | None, repeats: int, max_trainings: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Find the declared features that add nothing on validation groups, and write the config without them.

    Features are tried in the order of their permutation importance, the least first. They are dropped together only if
    the ranker without them is not worse than with them (non-inferiority), and not worse either with seeds that chose
    nothing. A feature that others can replace stays unless this is shown. Nothing else is changed, and no bundle.

    Without --output the names are printed. Comments right above a dropped table go with it.

    Exit codes: 0 some features can be dropped, 3 none can, 4 too few validation groups to tell, 1 failed.
    """
    from feedrank.api.compose.feature_pruning import prune_features
    from feedrank.api.declared_toml import without_features
    from feedrank.models.atomic_files import atomic_write
    from feedrank.models.evaluation.pruning import PruneOptions

    home: HomePaths
    config: Config
    home, config = context.obj
    with command_errors():
        if output is not None and output.exists() and not force:
            raise ValueError(f"{output} exists; choose another file, or replace it with --force")
        options = PruneOptions(config.retrain.gate.margin if margin is None else margin, repeats, max_trainings)
        with progress_bars() as show:
            run = prune_features(home, config, options, show)
    dropped = run.pruning.dropped
    _print(run, options.margin, as_json)
    if dropped and output is not None and home.config is not None:
        with command_errors():
            text = without_features(home.config.read_text(encoding="utf-8"), dropped)
            if text is None:
                raise ValueError(
                    f"{home.config} does not have these as tables [[features.declared]]; remove them by hand: "
                    + ", ".join(dropped)
                )
            with atomic_write(output) as temporary:
                temporary.write_text(text, encoding="utf-8")
        click.echo(f"the config without them is written to {output}", err=as_json)
    if run.pruning.outcome != "dropped":
        context.exit(EXIT_REFUSED if run.pruning.outcome == "needed" else EXIT_TOO_LITTLE)


def _print(run: PruneRun, margin: float, as_json: bool) -> None:
    found = run.pruning
    if as_json:
        body = asdict(found) | {"dropped": list(found.dropped), "ms": dict(run.costs_ms), "seconds": run.seconds}
        click.echo(json.dumps(body, indent=1))
        return
    print_notes(run.notes)
    table = Table("declared feature", "loss if permuted", "95 % interval", "share of gain", "ms per request", "",
                  title=f"nDCG@10 with all features {found.value:.4f}; {found.noise.groups:,} groups")  # fmt: skip
    for feature in found.features:
        loss, cost = feature.loss, run.costs_ms.get(feature.name)
        table.add_row(
            feature.name, f"{loss.mean:+.4f}", f"[{loss.low:+.4f}, {loss.high:+.4f}]", f"{feature.gain_share:.1%}",
            "" if cost is None else f"{cost:.3f}", "drop" if feature.is_dropped else "",
        )  # fmt: skip
    print_table(table)
    noise = found.noise
    click.echo(f"the same features with other seeds: {noise.mean:+.4f} [{noise.low:+.4f}, {noise.high:+.4f}]")
    click.echo(f"{found.trainings} trainings in {run.seconds:.0f} s")
    if found.change is not None:
        change = found.change
        click.echo(
            f"without the dropped features: {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}], accepted above"
            f" {-margin:+.4f}\ndrop: {', '.join(found.dropped)}"
        )
    elif found.outcome == "needed":
        click.echo("nothing is dropped: without any of them, the ranker may be worse")
    else:
        click.echo(
            f"nothing is dropped: {noise.groups:,} validation groups are too few to see a loss of {margin}; use more"
            " --repeats, a greater --margin, or a longer log"
        )
