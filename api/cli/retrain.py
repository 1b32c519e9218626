"""Implement `feedrank retrain`: train a candidate on a new window and apply the promotion gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from feedrank.api.cli.exit_codes import EXIT_REFUSED, EXIT_TOO_LITTLE
from feedrank.api.cli.progress import command_errors, print_notes, print_shuffled, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.api.compose import RetrainRun


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
    """Train a candidate, compare it with the current bundle on newer data, and promote it if it passes.

    The window is split by time: the oldest part is for training, the next for early stopping, the newest for the test.
    The test leaves out what the current bundle has learnt. If less than retrain.min_test_groups is left, nothing is
    trained. Both bundles rank the same test groups; the gate uses the paired 95 % bootstrap interval of the difference.
    It also refuses a candidate whose features see their own labels: clicks that were shuffled within their rankings can
    be predicted, or one feature alone ranks too well.

    If no current ranker can be compared (there is none, or it is of another version), the candidate must beat recall
    order. Reports (HTML and JSON) are written to HOME/reports/NAME. A refused candidate is kept as a bundle but not
    promoted.

    Exit codes: 0 promoted, 3 refused by the gate, 4 too little new data, 5 another training is running, 1 failed.
    """
    from feedrank.api import compose

    home: HomePaths
    config: Config
    home, config = context.obj
    overrides = {"rule": rule, "margin": margin, "metric": metric, "segments": segments or None}
    with command_errors(), progress_bars() as show:
        gate = replace(config.retrain.gate, **{key: value for key, value in overrides.items() if value is not None})
        run_config = replace(config, retrain=replace(config.retrain, gate=gate))
        options = compose.RetrainOptions(name, days, warm_start, tuned, refit)
        run = compose.retrain_bundle(home, run_config, options, show)
    _print_decision(run)
    decision = run.result.decision
    if decision.promote:
        click.echo(f"promoted; current bundle: {home.current_bundle.resolve()}")
    elif decision.too_little:
        click.echo("too little new data; nothing was trained, and the current bundle stays")
        context.exit(EXIT_TOO_LITTLE)
    else:
        stays = "the current bundle stays" if run.recall_bundle is None else f"{run.recall_bundle} serves recall order"
        click.echo(f"refused; {stays}. `feedrank bundles promote {run.name}` overrides the gate")
        context.exit(EXIT_REFUSED)


def _print_decision(run: RetrainRun) -> None:
    result = run.result
    for line in result.decision.reasons:
        click.echo(line)
    print_notes(result.notes, result.warnings)
    if result.trained is not None:
        print_shuffled(result.shuffled)
    click.echo(f"report: {run.report_page}")
