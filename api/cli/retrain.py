"""`feedrank retrain`: a candidate on a new window, through the gate."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from api.cli.screen import command_errors, console, stamp, steps, texts

REFUSED = 3
"""The exit code of a candidate that the gate turned away; 0 is promoted, 1 failed."""
DAY_S = 86_400


@click.command()
@click.option("--name", default=None, help="Name of the candidate's bundle; by default made of the time.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Train on the last days of the journal only.")
@click.option("--gate", "rule", type=click.Choice(["not-worse", "better"]), default=None,
              help="What the candidate must be; by default that of the config, not-worse.")  # fmt: skip
@click.option(
    "--margin", type=click.FloatRange(min=0), default=None, help="How much worse is not worse, or better enough."
)
@click.option("--metric", default=None, help="What is compared, such as ndcg@10 or mrr.")
@click.option("--segment", "segments", multiple=True, type=click.Choice(["new", "usual", "heavy"]),
              help="People who must not lose, by touches: under 5, under 50, more. May be repeated.")  # fmt: skip
@click.option("--warm-start", is_flag=True, help="Keep the incumbent's trees and add to them.")
@click.option("--tuned", is_flag=True, help="Use the parameters that `feedrank tune` found.")
@click.option("--refit", is_flag=True, help="Promote a ranker trained anew on the whole window, not the one measured.")
@click.pass_context
def retrain(
    context: click.Context, name: str | None, days: float | None, rule: Any, margin: float | None, metric: str | None,
    segments: tuple[str, ...], warm_start: bool, tuned: bool, refit: bool,
) -> None:  # fmt: skip
    """Train a candidate, compare it with the current bundle on the newest data, and promote it if it passes.

    The window is cut by time: the oldest part trains, the next stops training early, and the newest is the test. Both
    bundles answer the same test groups; the gate looks at the paired 95 % bootstrap interval of the difference. Reports
    (HTML and JSON) go to HOME/reports/NAME. A candidate that is refused is kept as a bundle, and not promoted.

    Exit codes: 0 promoted, 3 refused by the gate, 1 failed.
    """
    from api import compose
    from models import retrain_report

    home, config = context.obj
    started = time.perf_counter()
    name = name or stamp("retrained")
    given = {"rule": rule, "margin": margin, "metric": metric, "segments": segments or None}
    with command_errors(), steps() as show:
        compose.check_name(home, name)
        config = compose.with_tuned(home, config) if tuned else config
        gate = replace(config.retrain.gate, **{key: value for key, value in given.items() if value is not None})
        chosen = replace(config, retrain=replace(config.retrain, gate=gate))
        made = compose.material(home, chosen, texts(show), None if days is None else time.time() - days * DAY_S)
        incumbent, outcome = compose.retrain(home, made, chosen, show, warm_start)
        trained = outcome.trained
        if refit and outcome.verdict.promote:
            trained = compose.train(made, chosen, show)
        names = {"candidate": name} | ({"incumbent": incumbent.name} if incumbent else {})
        seconds = round(time.perf_counter() - started, 1)
        about = {"window": dict(made.window), "refit": refit, "warm_start": warm_start, "seconds": seconds}
        report = retrain_report.body(outcome, names, about)
        metrics = {row.metric: row.value for row in outcome.rows if (row.dataset, row.method) == ("all", "candidate")}
        show("writing the bundle", 0, 0)
        compose.save_trained(home, chosen, name, made, trained, {"metrics": metrics}, seconds, outcome.verdict.promote)
        paths = retrain_report.write(home.reports / name, report)
    _say(outcome.verdict, outcome.cautions, paths)
    if not outcome.verdict.promote:
        click.echo(f"refused; the current bundle stays. `feedrank bundles promote {name}` would overrule the gate")
        context.exit(REFUSED)
    click.echo(f"promoted; current bundle: {home.current.resolve()}")


def _say(verdict: Any, cautions: tuple[str, ...], paths: tuple[Path, Path]) -> None:
    for line in verdict.reasons:
        console.print(line)
    for line in cautions:
        console.print(f"caution: {line}")
    console.print(f"report: {paths[1]}")
