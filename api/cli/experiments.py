"""Implement `feedrank experiment`: create, start, read and stop experiments."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from feedrank.api import experiment_config
from feedrank.api.cli.progress import command_errors, console
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.experiments.registry import ExperimentState
from feedrank.models.atomic_files import atomic_write

if TYPE_CHECKING:
    from feedrank.api.compose.experiments import ExperimentService


@click.group()
def experiment() -> None:
    """Test rankers online: A/B tests, interleaving and shadow experiments."""


@experiment.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def create(obj: tuple[HomePaths, Config], path: Path) -> None:
    """Create an experiment from the TOML file PATH. No unit is assigned before it is started."""
    with command_errors():
        spec = experiment_config.load_experiment(path)
        experiment_service(obj).create(spec, time.time())
    arms = ", ".join(spec.arms)
    click.echo(f"{spec.name}: {spec.kind} of {arms}; start it with `feedrank experiment start {spec.name}`")


@experiment.command()
@click.argument("name")
@click.pass_obj
def start(obj: tuple[HomePaths, Config], name: str) -> None:
    """Start the experiment NAME. Arms without a bundle use the current one."""
    with command_errors():
        state = experiment_service(obj).start(name, time.time())
    arms = (f"{name} {_bundle_suffix(arm)}".strip() for name, arm in state.experiment.arms.items())
    click.echo(f"{name} is running: {', '.join(arms)}; servers apply it within a second")


@experiment.command()
@click.argument("name")
@click.option("--reason", default="", help="Reason, stored in the journal.")
@click.option("--arm", default="", help="Stop only this arm; the experiment continues.")
@click.pass_obj
def stop(obj: tuple[HomePaths, Config], name: str, reason: str, arm: str) -> None:
    """Stop the experiment NAME; all users get the current bundle."""
    payload = {"reason": reason} | ({"arm": arm} if arm else {})
    with command_errors():
        experiment_service(obj).change(name, "stop-arm" if arm else "stop", payload, time.time())
    click.echo(f"{name}: arm {arm} is stopped" if arm else f"{name} is stopped")


@experiment.command()
@click.argument("name")
@click.argument("weights", nargs=-1, required=True, metavar="ARM=WEIGHT...")
@click.pass_obj
def set_weights(obj: tuple[HomePaths, Config], name: str, weights: tuple[str, ...]) -> None:
    """Change the arm weights of the experiment NAME, and reassign as few units as possible.

    Give ARM=WEIGHT for each arm, such as candidate=0.5. A moved unit counts for its first arm.
    """
    with command_errors():
        experiment_service(obj).change(name, "weights", {"weights": _parse_weights(weights)}, time.time())
    click.echo(f"{name}: {', '.join(weights)}")


@experiment.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(obj: tuple[HomePaths, Config], as_json: bool) -> None:
    """List all experiments, in the order of creation."""
    from feedrank.api.compose.experiments import state_json

    with command_errors():
        states = experiment_service(obj).experiment_registry.states
    if as_json:
        click.echo(json.dumps([state_json(state) for state in states.values()], indent=1))
        return
    if not states:
        click.echo("there are no experiments; create one with `feedrank experiment create`")
        return
    table = Table("experiment", "kind", "status", "started", "layer", "arms", box=SIMPLE_HEAD, pad_edge=False)
    for name, state in states.items():
        spec = state.experiment
        arms = ", ".join(f"{arm} (stopped)" if arm in state.stopped_arms else arm for arm in spec.arms)
        table.add_row(name, spec.kind, state.status, _start_time(state), f"{spec.layer} {spec.share:.0%}", arms)
    console.print(table)


@experiment.command()
@click.argument("name")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this JSON file."
)
@click.option(
    "--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this HTML file."
)
@click.option(
    "--cuped/--no-cuped", default=None, help="Adjust for pre-experiment behaviour (CUPED); by default if there is any."
)
@click.option(
    "--enforce-guardrails", is_flag=True, help="Stop arms that violate a guardrail, if the experiment allows it."
)
@click.option("--promote", is_flag=True, help="Promote the winner's bundle and stop the experiment.")
@click.pass_obj
def readout(
    obj: tuple[HomePaths, Config],
    name: str,
    json_path: Path | None,
    html_path: Path | None,
    cuped: bool | None,
    enforce_guardrails: bool,
    promote: bool,
) -> None:
    """Print the report of NAME. Its confidence sequences are valid at every look, so read it as often as you like."""
    from feedrank.api.compose.experiments import report_json
    from feedrank.api.compose.report_rendering import render_html, render_terminal

    with command_errors():
        service = experiment_service(obj)
        report = service.report(name, cuped)
        console.print(render_terminal(report))
        if json_path:
            with atomic_write(json_path) as temporary:
                temporary.write_text(json.dumps(report_json(report), indent=1) + "\n", encoding="utf-8")
        if html_path:
            with atomic_write(html_path) as temporary:
                temporary.write_text(render_html(report), encoding="utf-8")
        if enforce_guardrails:
            stopped = service.stop_breaching_arms(report, time.time())
            click.echo(f"stopped: {', '.join(stopped) or 'nothing'}")
        if promote:
            click.echo(f"current bundle: {service.promote_winner(report, time.time())}")


@experiment.command()
@click.option("--every", default=300.0, show_default=True, type=click.FloatRange(min=1), help="Seconds between checks.")
@click.option("--once", is_flag=True, help="Check once and exit.")
@click.pass_obj
def watch(obj: tuple[HomePaths, Config], every: float, once: bool) -> None:
    """Stop arms that violate a guardrail, in all running experiments that allow it, until interrupted."""
    with command_errors():
        service = experiment_service(obj)
        while True:
            for state in service.experiment_registry.running:
                spec = state.experiment
                if spec.stop_on_breach and spec.plan.guardrails:
                    stopped = service.stop_breaching_arms(service.report(spec.name), time.time())
                    for arm in stopped:
                        click.echo(f"{spec.name}: stopped the arm {arm}")
            if once:
                return
            time.sleep(every)


def experiment_service(obj: tuple[HomePaths, Config]) -> ExperimentService:
    """Return the experiment service of a command's home."""
    from feedrank.api.compose.experiments import ExperimentService

    home, config = obj
    return ExperimentService(home, home.existing_journal(config.journal.url))


def _parse_weights(pairs: tuple[str, ...]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        arm, _, weight = pair.partition("=")
        try:
            weights[arm] = float(weight)
        except ValueError:
            raise ValueError(f"found {pair!r}, expected ARM=WEIGHT, such as candidate=0.5") from None
    return weights


def _bundle_suffix(arm: Any) -> str:
    return f"by {arm.bundle}" if arm.bundle else ""


def _start_time(state: ExperimentState) -> str:
    return "" if state.started_ms is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(state.started_ms / 1000))
