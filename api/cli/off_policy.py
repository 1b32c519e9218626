"""Implement `feedrank ope`: estimate a candidate's reward from a log with known propensities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, steps
from feedrank.api.config import Config
from feedrank.api.home import Home
from feedrank.engine.events.events import parse_timestamp
from feedrank.models.atomic_files import written_aside

if TYPE_CHECKING:
    from feedrank.api.compose.off_policy import Answer


@click.command()
@click.option("--bundle", "bundle_name", help="Evaluate this bundle: it ranks every logged request again.")
@click.option("--policy", help="Evaluate the policy behind this variant's rankings; single items only.")
@click.option("--variant", help="Use only rankings of this variant as the log.")
@click.option("--surface", help="Use only rankings of this surface.")
@click.option("--since", help="Use only rankings from this time on: epoch milliseconds, or ISO-8601 with a zone. By "
              "default the end of a bundle's training data; for a policy, all rankings.")  # fmt: skip
@click.option("--reward", default="click", show_default=True, help="Interaction type that counts as reward.")
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0),
              help="The bundle samples by exp(score / temperature); 0: it shows the top items.")  # fmt: skip
@click.option("--depth", default=50, show_default=True, type=click.IntRange(min=1),
              help="With a temperature: sample among this many top items.")  # fmt: skip
@click.option("--clip", "clipped", help="Clip large weights: mse or slope choose the threshold from the log, a "
              "number sets it. The output reports the effect. By default weights are not clipped.")  # fmt: skip
@click.option("--method", "methods", multiple=True, help="Estimator; repeatable. By default a standard set.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the estimates to this JSON file.",
)
@click.pass_obj
def ope(
    obj: tuple[Home, Config], bundle_name: str | None, policy: str | None, variant: str | None, surface: str | None,
    since: str | None, reward: str, temperature: float, depth: int, clipped: str | None,
    methods: tuple[str, ...], json_path: Path | None,
) -> None:  # fmt: skip
    """Estimate a candidate's reward from a log with propensities (off-policy evaluation).

    If the log does not support an estimate, the output gives the reason instead of a number.
    """
    from feedrank.api.compose import off_policy
    from feedrank.models.bundles import bundle
    from feedrank.models.off_policy.estimate import EstimateSettings
    from feedrank.models.off_policy.logged_rankings import Chosen

    home, config = obj
    with command_errors():
        if (bundle_name is None) == (policy is None):
            raise ValueError("found " + ("neither" if policy is None else "both") + " --bundle and --policy; give one")
        settings = EstimateSettings(clip=_rule(clipped))
        since_s = -float("inf") if since is None else parse_timestamp(since, "--since") / 1000
        journal = home.known_journal(config.journal.url)
        if policy is not None:
            answer = off_policy.of_variant(
                journal, Chosen(variant, surface, since_s, reward), policy, methods, settings, seed=7
            )
        else:
            assert bundle_name is not None
            if since is None:
                window = bundle.read_manifest(home.bundles / bundle_name).get("window", {})
                since_s = float(window.get("last") or since_s)
            selection = Chosen(variant, surface, since_s, reward)
            with steps() as show:
                answer = off_policy.of_bundle(
                    home, config, journal, selection, bundle_name, (temperature, depth), methods, settings, 7, show
                )  # fmt: skip
        _show(answer)
        if json_path:
            with written_aside(json_path) as temporary:
                temporary.write_text(json.dumps(_body(answer), indent=1) + "\n", encoding="utf-8")


def _show(answer: Answer) -> None:
    click.echo(f"{len(answer.logged):,} rankings with a mean reward of {answer.shown:.5f}")
    if answer.on_policy is not None:
        click.echo(f"the mean reward in the candidate's own log is {answer.on_policy:.5f}")
    table = Table("method", "estimate", "95 % interval", "effective rows", "largest weight")
    notes: list[str] = []
    for name, estimate in answer.estimates.items():
        share = f"{estimate.weights.largest[0]:.1%}"
        if estimate.refused:
            notes.append(f"{name} is refused: {estimate.refused}")
            table.add_row(name, "–", "–", f"{estimate.ess:,.0f}", share)
            continue
        if (record := estimate.clipping) is not None:
            notes.append(f"{name}: {record.clipped:,} weights clipped at {record.threshold:.3g}: {record.reason}")
        interval = f"[{estimate.low:.5f}, {estimate.high:.5f}]"
        table.add_row(name, f"{estimate.value:.5f}", interval, f"{estimate.ess:,.0f}", share)
    console.print(table)
    for line in dict.fromkeys([*notes, *(estimate.weights.overlap for estimate in answer.estimates.values())]):
        click.echo(line)


def _rule(clipped: str | None) -> Any:
    if clipped is None or clipped in ("mse", "slope"):
        return clipped
    try:
        return float(clipped)
    except ValueError:
        raise ValueError(f"found --clip {clipped!r}, expected mse, slope or a number") from None


def _body(answer: Answer) -> dict[str, Any]:
    from feedrank.models.jsonable import plain

    summary = {"rankings": len(answer.logged), "earned": answer.shown, "on_policy": answer.on_policy}
    return {**plain(summary), "estimates": plain(answer.estimates)}
