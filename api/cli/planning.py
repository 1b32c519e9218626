"""`feedrank experiment power` and `simulate`: how large a test must be, and what would come of one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from api import declarations
from api.cli.experiments import desk_of
from api.cli.experiments import experiment as experiment
from api.cli.screen import command_errors, console, steps
from api.config import Config
from api.home import Home


@experiment.command()
@click.argument("name", required=False)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Without NAME: the click rate of an impression, each of which counts for itself.",
)
@click.option("--lift", default=0.02, show_default=True, help="The relative lift that is worth finding.")
@click.option(
    "--power",
    "chance",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0.1, 0.999),
    help="How likely it is to be found.",
)
@click.option("--alpha", default=0.05, show_default=True, type=click.FloatRange(0.0001, 0.4))
@click.option("--arms", default=2, show_default=True, type=click.IntRange(2, 50), help="Without NAME.")
@click.option(
    "--per-day",
    type=click.FloatRange(min=0, min_open=True),
    help="Units a day, new ones; of an experiment by default as many as there were.",
)
@click.pass_obj
def power(
    obj: tuple[Home, Config], name: str | None, rate: float | None, lift: float, chance: float, alpha: float,
    arms: int, per_day: float | None,
) -> None:  # fmt: skip
    """How many units, impressions and days it takes to find a lift: of NAME by what its first arm did so far."""
    from models.experiments.power import Need, need, need_of

    each_day = math.nan if per_day is None else per_day
    found: Need | None
    with command_errors():
        if (name is None) == (rate is None):
            raise ValueError("found " + ("neither" if name is None else "both") + " NAME and --rate; give one")
        if rate is not None:
            found = need(
                rate, rate * (1 - rate), lift=lift, alpha=alpha, power=chance, weights=(1.0,) * arms,
                impressions_per_unit=1.0, units_per_day=each_day,
            )  # fmt: skip
        else:
            assert name is not None
            outcomes, plan = desk_of(obj).outcomes(name)
            found = need_of(
                outcomes, plan.metric(plan.primary), lift=lift, alpha=alpha, power=chance, weights=plan.weights,
                units_per_day=each_day,
            )  # fmt: skip
        if found is None:
            raise ValueError(f"the first arm of {name!r} has too few units yet, or all are the same")
    table = Table("", "units an arm", "impressions", "days", title=f"to find {lift:+.1%} of {found.value:.4g}")
    for told, size in (("one look, at the end", found.fixed), ("looks whenever you like", found.sequential)):
        units = ", ".join(f"{one:,}" for one in size.units)
        table.add_row(told, units, _count(size.impressions), _count(size.days))
    console.print(table)


@experiment.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--lift",
    "lifts",
    multiple=True,
    type=float,
    help="True relative lift of the click rate, one an arm after the first; by default 0.",
)
@click.option("--users", default=5_000, show_default=True, type=click.IntRange(100, 1_000_000))
@click.option("--days", default=28, show_default=True, type=click.IntRange(1, 365))
@click.option(
    "--rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Click rate of an impression, on average.",
)
@click.option("--visits", default=0.5, show_default=True, help="Rankings a day and user.")
@click.option("--runs", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=0, show_default=True)
@click.pass_obj
def simulate(
    obj: tuple[Home, Config], path: Path, lifts: tuple[float, ...], users: int, days: int, rate: float, visits: float,
    runs: int, seed: int,
) -> None:  # fmt: skip
    """How the A/B test declared in PATH would end, on simulated people who come back: read every day, many times over.

    Nothing is written to the journal.
    """
    from api.compose.experiments import plan_of
    from models.experiments.sample_ratio import sample_ratio
    from models.experiments.sequential import sequences
    from models.experiments.simulator import SimulatedExperiment
    from models.experiments.simulator import simulate as simulated
    from models.experiments.verdict import judge

    with command_errors():
        own = declarations.load(path)
        if own.kind != "ab" or len(own.arms) < 2:
            raise ValueError(f"found a {own.kind} experiment of {len(own.arms)} arms, expected an ab test of 2 or more")
        true = lifts or (0.0,) * (len(own.arms) - 1)
        weights = tuple(arm.weight for arm in own.arms.values())
        world = SimulatedExperiment(
            users=users, days=days, lifts=true, weights=weights, rate=rate, visits=visits, arriving=days
        )
        plan = replace(plan_of(own, tuple((np.array(weights) / sum(weights)).tolist())), guardrails=())
        metric, share = plan.metric(plan.primary), plan.alpha / (len(own.arms) - 1)
        ends: dict[str, list[int]] = {}
        with steps() as show:
            for run in range(runs):
                show("experiments simulated", run, runs)
                outcomes = simulated(replace(world, seed=seed + run))
                looks = sequences(outcomes, metric, planned_units=plan.planned_units, alpha=share)
                word, day = "no verdict", days
                for place, last in enumerate(looks[0].day.tolist()):
                    seen = outcomes.until(last)
                    units = np.bincount(outcomes.arm_of[np.unique(seen.unit)], minlength=len(own.arms))
                    verdict = judge(
                        plan, sample_ratio(units, plan.weights, outcomes.arms), [one.at(place) for one in looks], (),
                        days=last + 1, units=int(units.sum()),
                    )  # fmt: skip
                    if verdict.word != "go on":
                        word, day = verdict.word + (f" {verdict.arm}" if verdict.arm else ""), last + 1
                        break
                ends.setdefault(word, []).append(day)
    table = Table(
        "verdict", "share of runs", "median day", title=f"{runs:,} runs, true lifts {', '.join(map(str, true))}"
    )
    for word, at in sorted(ends.items(), key=lambda pair: -len(pair[1])):
        table.add_row(word, f"{len(at) / runs:.1%}", f"{float(np.median(at)):.0f}")
    console.print(table)


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"
