"""`feedrank ope`: what a candidate would have earned, by a log of lists that were drawn by known probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps
from api.config import Config
from api.home import Home
from engine.events import parse_timestamp
from models.files import written_aside

if TYPE_CHECKING:
    from api.compose.off_policy import Answer


@click.command()
@click.option("--bundle", "bundle_name", help="The candidate: a bundle, which makes its list for every logged request.")
@click.option("--policy", help="The candidate: whatever made the rankings of this variant, of single items.")
@click.option("--variant", help="Only rankings of this variant are the log.")
@click.option("--surface", help="Only rankings of this surface.")
@click.option("--since", help="Only rankings from then on: epoch milliseconds, or ISO-8601 with a zone. Of a bundle by "
              "default from where its training data ends; of a policy all.")  # fmt: skip
@click.option("--reward", default="click", show_default=True, help="The type of interactions that count.")
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0),
              help="Of a bundle, which draws by exp(score / temperature); 0: it shows the best.")  # fmt: skip
@click.option("--depth", default=50, show_default=True, type=click.IntRange(min=1),
              help="Of a bundle that draws: among so many of its best.")  # fmt: skip
@click.option("--clip", "clipped", help="Cut large weights: mse or slope choose where by the log, a number is where; "
              "it is said with what it costs. By default they are left.")  # fmt: skip
@click.option("--method", "methods", multiple=True, help="May be given more than once; by default the usual ones.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here.")
@click.pass_obj
def ope(
    obj: tuple[Home, Config], bundle_name: str | None, policy: str | None, variant: str | None, surface: str | None,
    since: str | None, reward: str, temperature: float, depth: int, clipped: str | None,
    methods: tuple[str, ...], json_path: Path | None,
) -> None:  # fmt: skip
    """What a candidate would have earned, by a log with propensities (off-policy evaluation).

    Where the log can't tell, the reason stands in place of a number.
    """
    from api.compose import off_policy
    from models import bundle
    from models.off_policy.estimate import EstimateSettings
    from models.off_policy.logged import Chosen

    home, config = obj
    with command_errors():
        if (bundle_name is None) == (policy is None):
            raise ValueError("found " + ("neither" if policy is None else "both") + " --bundle and --policy; give one")
        settings = EstimateSettings(clip=_rule(clipped))
        moment = -float("inf") if since is None else parse_timestamp(since, "--since") / 1000
        journal = home.known_journal(config.journal.url)
        if policy is not None:
            answer = off_policy.of_variant(
                journal, Chosen(variant, surface, moment, reward), policy, methods, settings, seed=7
            )
        else:
            assert bundle_name is not None
            if since is None:
                window = bundle.read_manifest(home.bundles / bundle_name).get("window", {})
                moment = float(window.get("last") or moment)
            chosen = Chosen(variant, surface, moment, reward)
            with steps() as show:
                answer = off_policy.of_bundle(
                    home, config, journal, chosen, bundle_name, (temperature, depth), methods, settings, 7, show
                )  # fmt: skip
        _show(answer)
        if json_path:
            with written_aside(json_path) as aside:
                aside.write_text(json.dumps(_body(answer), indent=1) + "\n", encoding="utf-8")


def _show(answer: Answer) -> None:
    click.echo(f"{len(answer.logged):,} rankings, which earned {answer.shown:.5f} each")
    if answer.on_policy is not None:
        click.echo(f"the candidate's own log earned {answer.on_policy:.5f} each")
    table = Table("method", "estimate", "95 % interval", "effective rows", "largest weight")
    said: list[str] = []
    for name, one in answer.estimates.items():
        share = f"{one.weights.largest[0]:.1%}"
        if one.refused:
            said.append(f"{name} is refused: {one.refused}")
            table.add_row(name, "–", "–", f"{one.ess:,.0f}", share)
            continue
        if (record := one.clipping) is not None:
            said.append(f"{name}: {record.clipped:,} weights cut at {record.threshold:.3g}: {record.reason}")
        table.add_row(name, f"{one.value:.5f}", f"[{one.low:.5f}, {one.high:.5f}]", f"{one.ess:,.0f}", share)
    console.print(table)
    for line in dict.fromkeys([*said, *(one.weights.overlap for one in answer.estimates.values())]):
        click.echo(line)


def _rule(clipped: str | None) -> Any:
    if clipped is None or clipped in ("mse", "slope"):
        return clipped
    try:
        return float(clipped)
    except ValueError:
        raise ValueError(f"found --clip {clipped!r}, expected mse, slope or a number") from None


def _body(answer: Answer) -> dict[str, Any]:
    from models.plain import plain

    told = {"rankings": len(answer.logged), "earned": answer.shown, "on_policy": answer.on_policy}
    return {**plain(told), "estimates": plain(answer.estimates)}
