"""Implement `feedrank retrain`: train a candidate on a new window and apply the promotion gate."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feedrank.api.cli.progress import (
    command_errors,
    console,
    embedding_progress,
    print_warnings,
    progress_bars,
    timestamped_name,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.models.retraining.retraining import RetrainResult

EXIT_REFUSED = 3
"""Exit code if the gate refuses the candidate; 0: promoted, 1: failed."""
DAY_S = 86_400


@click.command()
@click.option("--name", default=None, help="Name of the candidate's bundle; by default a timestamp.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Train only on the last DAYS of the journal.")
@click.option("--gate", "rule", type=click.Choice(["non-inferior", "superior"]), default=None,
              help="What the gate requires of the candidate; by default as in the config, non-inferior.")  # fmt: skip
@click.option(
    "--margin",
    type=click.FloatRange(min=0),
    default=None,
    help="Non-inferiority (or superiority) margin on the metric.",
)
@click.option("--metric", default=None, help="Metric of the gate, such as ndcg@10 or mrr.")
@click.option("--segment", "segments", multiple=True, type=click.Choice(["new", "regular", "heavy"]),
              help="User segment that must not get worse, by interactions: under 5, under 50, more."
              " Repeatable.")  # fmt: skip
@click.option("--warm-start", is_flag=True, help="Continue from the incumbent's trees.")
@click.option("--tuned", is_flag=True, help="Use the parameters that `feedrank tune` found.")
@click.option(
    "--refit", is_flag=True, help="Promote a ranker retrained on the whole window instead of the measured one."
)
@click.pass_context
def retrain(
    context: click.Context, name: str | None, days: float | None, rule: Any, margin: float | None, metric: str | None,
    segments: tuple[str, ...], warm_start: bool, tuned: bool, refit: bool,
) -> None:  # fmt: skip
    """Train a candidate, compare it with the current bundle on the newest data, and promote it if it passes.

    The window is split by time: the oldest part is for training, the next for early stopping, the newest for the test.
    Both bundles rank the same test groups; the gate uses the paired 95 % bootstrap interval of the difference. It also
    refuses a candidate whose features see their own labels: clicks that were shuffled within their rankings can be
    predicted, or one feature alone ranks too well. Reports (HTML and JSON) are written to HOME/reports/NAME. A refused
    candidate is kept as a bundle but not promoted.

    Exit codes: 0 promoted, 3 refused by the gate, 1 failed.
    """
    from feedrank.api import compose
    from feedrank.models.retraining import report as retrain_report

    home: HomePaths
    config: Config
    home, config = context.obj
    started = time.perf_counter()
    name = name or timestamped_name("retrained")
    overrides = {"rule": rule, "margin": margin, "metric": metric, "segments": segments or None}
    with command_errors(), progress_bars() as show:
        compose.check_bundle_name(home, name)
        config = compose.with_tuned_parameters(home, config) if tuned else config
        gate = replace(config.retrain.gate, **{key: value for key, value in overrides.items() if value is not None})
        run_config = replace(config, retrain=replace(config.retrain, gate=gate))
        inputs = compose.load_training_inputs(
            home, run_config, embedding_progress(show), None if days is None else time.time() - days * DAY_S
        )
        incumbent, result = compose.retrain(home, inputs, run_config, show, warm_start)
        trained = result.trained
        if refit and result.decision.promote:
            trained = compose.train(inputs, run_config, show)
        names = {"candidate": name} | ({"incumbent": incumbent.name} if incumbent else {})
        seconds = round(time.perf_counter() - started, 1)
        run_info = {"window": dict(inputs.window), "refit": refit, "warm_start": warm_start, "seconds": seconds}
        report = retrain_report.build_report(result, names, run_info)
        metrics = {row.metric: row.value for row in result.rows if (row.dataset, row.method) == ("all", "candidate")}
        show("writing the bundle", 0, 0)
        compose.save_trained_bundle(
            home, run_config, name, inputs, trained, {"metrics": metrics}, seconds, result.decision.promote
        )
        paths = retrain_report.write_report(home.reports / name, report)
    _print_decision(result, paths)
    if not result.decision.promote:
        click.echo(f"refused; the current bundle stays. `feedrank bundles promote {name}` overrides the gate")
        context.exit(EXIT_REFUSED)
    click.echo(f"promoted; current bundle: {home.current_bundle.resolve()}")


def _print_decision(result: RetrainResult, paths: tuple[Path, Path]) -> None:
    for line in result.decision.reasons:
        console.print(line)
    for note in result.notes:
        click.echo(f"note: {note}")
    print_warnings(result.warnings, result.shuffled)
    console.print(f"report: {paths[1]}")
