"""Implement `feedrank ope`: estimate a candidate's reward from a log with known propensities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.codec import parse_timestamp
from feedrank.models.atomic_files import atomic_write

if TYPE_CHECKING:
    from feedrank.api.compose.off_policy import OffPolicyResult


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
@click.option("--clip", help="Clip large weights: mse or slope choose the threshold from the log, a "
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
    obj: tuple[HomePaths, Config], bundle_name: str | None, policy: str | None, variant: str | None,
    surface: str | None, since: str | None, reward: str, temperature: float, depth: int, clip: str | None,
    methods: tuple[str, ...], json_path: Path | None,
) -> None:  # fmt: skip
    """Estimate a candidate's reward from a log with propensities (off-policy evaluation).

    If the log does not support an estimate, the output gives the reason instead of a number.
    """
    from feedrank.api.compose import off_policy
    from feedrank.models.bundles import bundle
    from feedrank.models.off_policy.estimate import EstimateSettings
    from feedrank.models.off_policy.logged_rankings import RankingFilter

    home, config = obj
    with command_errors():
        if (bundle_name is None) == (policy is None):
            raise ValueError("found " + ("neither" if policy is None else "both") + " --bundle and --policy; give one")
        estimation = off_policy.Estimation(methods, EstimateSettings(clip=_parse_clip(clip)))
        since_s = -float("inf") if since is None else parse_timestamp(since, "--since") / 1000
        journal = home.existing_journal(config.journal.url)
        if policy is not None:
            selection = RankingFilter(variant, surface, since_s, reward)
            answer = off_policy.evaluate_variant(journal, selection, policy, estimation)
        else:
            assert bundle_name is not None
            if since is None:
                window = bundle.read_manifest(bundle.path_of(home.bundles, bundle_name)).get("window", {})
                since_s = float(window.get("last") or since_s)
            selection = RankingFilter(variant, surface, since_s, reward)
            with progress_bars() as show:
                sampling = off_policy.Sampling(temperature, depth)
                answer = off_policy.evaluate_bundle(
                    home, config, journal, selection, bundle_name, sampling, estimation, show
                )
        _print_answer(answer)
        if json_path:
            with atomic_write(json_path) as temporary:
                temporary.write_text(json.dumps(_answer_json(answer), indent=1) + "\n", encoding="utf-8")


def _print_answer(answer: OffPolicyResult) -> None:
    click.echo(f"{len(answer.logged):,} rankings with a mean reward of {answer.logged_value:.5f}")
    if answer.on_policy_value is not None:
        click.echo(f"the mean reward in the candidate's own log is {answer.on_policy_value:.5f}")
    for note in answer.logged.notes:
        click.echo(f"warning: {note}", err=True)
    table = Table("method", "estimate", "95 % interval", "effective rows", "largest weight")
    notes: list[str] = []
    for name, estimate in answer.estimates.items():
        share = f"{estimate.support.largest_shares[0]:.1%}"
        if estimate.refusal:
            notes.append(f"{name} is refused: {estimate.refusal}")
            table.add_row(name, "–", "–", f"{estimate.ess:,.0f}", share)
            continue
        if (record := estimate.clipping) is not None:
            notes.append(f"{name}: {record.clipped:,} weights clipped at {record.threshold:.3g}: {record.reason}")
        interval = f"[{estimate.low:.5f}, {estimate.high:.5f}]"
        table.add_row(name, f"{estimate.value:.5f}", interval, f"{estimate.ess:,.0f}", share)
    console.print(table)
    for line in dict.fromkeys([*notes, *(estimate.support.overlap_summary for estimate in answer.estimates.values())]):
        click.echo(line)


def _parse_clip(clip: str | None) -> Any:
    if clip is None or clip in ("mse", "slope"):
        return clip
    try:
        return float(clip)
    except ValueError:
        raise ValueError(f"found --clip {clip!r}, expected mse, slope or a number") from None


def _answer_json(answer: OffPolicyResult) -> dict[str, Any]:
    from feedrank.models.jsonable import to_jsonable

    summary = {
        "rankings": len(answer.logged),
        "moved_interactions": answer.logged.moved,
        "notes": list(answer.logged.notes),
        "mean_reward": answer.logged_value,
        "on_policy_reward": answer.on_policy_value,
    }
    return {**to_jsonable(summary), "estimates": to_jsonable(answer.estimates)}
