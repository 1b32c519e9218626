"""`feedrank experiment`: declare, start, read and stop tests of rankers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from api import declarations
from api.cli.screen import command_errors, console
from api.config import Config
from api.home import Home
from engine.experiments.roster import Standing
from models.files import written_aside

if TYPE_CHECKING:
    from api.compose.experiments import Desk


@click.group()
def experiment() -> None:
    """Prove a ranker before it takes over: A/B tests, interleaving, shadows."""


@experiment.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def create(obj: tuple[Home, Config], path: Path) -> None:
    """Write the declaration in the TOML file PATH to the journal. Nobody is in it before it is started."""
    with command_errors():
        declared = declarations.load(path)
        desk_of(obj).create(declared, time.time())
    arms = ", ".join(declared.arms)
    click.echo(f"{declared.name}: {declared.kind} of {arms}; begin with `feedrank experiment start {declared.name}`")


@experiment.command()
@click.argument("name")
@click.pass_obj
def start(obj: tuple[Home, Config], name: str) -> None:
    """Let NAME have its units from now on. Arms that name no bundle are made by the current one."""
    with command_errors():
        standing = desk_of(obj).start(name, time.time())
    arms = (f"{arm} {_made_by(one)}".strip() for arm, one in standing.experiment.arms.items())
    click.echo(f"{name} runs: {', '.join(arms)}; servers take it up within a second")


@experiment.command()
@click.argument("name")
@click.option("--reason", default="", help="Kept in the journal.")
@click.option("--arm", default="", help="Only this arm: nobody gets it any more, and the experiment goes on.")
@click.pass_obj
def stop(obj: tuple[Home, Config], name: str, reason: str, arm: str) -> None:
    """End NAME: everybody gets what serves."""
    told = {"reason": reason} | ({"arm": arm} if arm else {})
    with command_errors():
        desk_of(obj).change(name, "stop-arm" if arm else "stop", told, time.time())
    click.echo(f"{name}: the arm {arm} is stopped" if arm else f"{name} is stopped")


@experiment.command()
@click.argument("name")
@click.argument("weights", nargs=-1, required=True, metavar="ARM=WEIGHT...")
@click.pass_obj
def weigh(obj: tuple[Home, Config], name: str, weights: tuple[str, ...]) -> None:
    """Change the weights of NAME's arms, by moving as few units as can be. Who moves counts for the first arm seen."""
    with command_errors():
        desk_of(obj).change(name, "weights", {"weights": _weights(weights)}, time.time())
    click.echo(f"{name}: {', '.join(weights)}")


@experiment.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(obj: tuple[Home, Config], as_json: bool) -> None:
    """All experiments, in the order of creation."""
    from api.compose.experiments import told

    with command_errors():
        standings = desk_of(obj).roster.standings
    if as_json:
        click.echo(json.dumps([told(one) for one in standings.values()], indent=1))
        return
    if not standings:
        click.echo("there are no experiments; declare one with `feedrank experiment create`")
        return
    table = Table("experiment", "kind", "status", "started", "layer", "arms", box=SIMPLE_HEAD, pad_edge=False)
    for name, one in standings.items():
        own = one.experiment
        arms = ", ".join(f"{arm} (stopped)" if arm in one.stopped_arms else arm for arm in own.arms)
        table.add_row(name, own.kind, one.status, _moment(one), f"{own.layer} {own.share:.0%}", arms)
    console.print(table)


@experiment.command()
@click.argument("name")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here.")
@click.option("--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write one page here.")
@click.option("--cuped/--no-cuped", default=None, help="Take off what units did before; by default where they did.")
@click.option("--act", is_flag=True, help="Stop arms that break a guardrail, where the experiment allows it.")
@click.option("--promote", is_flag=True, help="Make the winner's bundle the one that serves, and stop the experiment.")
@click.pass_obj
def readout(
    obj: tuple[Home, Config], name: str, json_path: Path | None, html_path: Path | None, cuped: bool | None, act: bool,
    promote: bool,
) -> None:  # fmt: skip
    """What NAME says so far. It may be read as often as you like: its intervals hold at every look."""
    from api.compose.experiments import body
    from api.compose.readout_pages import page, shown

    with command_errors():
        desk = desk_of(obj)
        found = desk.found(name, cuped)
        console.print(shown(found))
        if json_path:
            with written_aside(json_path) as aside:
                aside.write_text(json.dumps(body(found), indent=1) + "\n", encoding="utf-8")
        if html_path:
            with written_aside(html_path) as aside:
                aside.write_text(page(found), encoding="utf-8")
        if act:
            stopped = desk.stop_what_breaks(found, time.time())
            click.echo(f"stopped: {', '.join(stopped) or 'nothing'}")
        if promote:
            click.echo(f"current bundle: {desk.promote_winner(found, time.time())}")


@experiment.command()
@click.option("--every", default=300.0, show_default=True, type=click.FloatRange(min=1), help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once and end.")
@click.pass_obj
def watch(obj: tuple[Home, Config], every: float, once: bool) -> None:
    """Stop arms that break a guardrail, in all running experiments that allow it, until told to end."""
    with command_errors():
        desk = desk_of(obj)
        while True:
            for one in desk.roster.running:
                own = one.experiment
                if own.stop_on_breach and own.guardrails:
                    stopped = desk.stop_what_breaks(desk.found(own.name), time.time())
                    for arm in stopped:
                        click.echo(f"{own.name}: stopped the arm {arm}")
            if once:
                return
            time.sleep(every)


def desk_of(obj: tuple[Home, Config]) -> Desk:
    """Where the experiments of a command's home are."""
    from api.compose.experiments import Desk

    home, config = obj
    return Desk(home, home.known_journal(config.journal.url))


def _weights(pairs: tuple[str, ...]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        arm, _, weight = pair.partition("=")
        try:
            weights[arm] = float(weight)
        except ValueError:
            raise ValueError(f"found {pair!r}, expected ARM=WEIGHT, such as candidate=0.5") from None
    return weights


def _made_by(arm: Any) -> str:
    return f"by {arm.bundle}" if arm.bundle else ""


def _moment(one: Standing) -> str:
    return "" if one.started is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.started / 1000))
