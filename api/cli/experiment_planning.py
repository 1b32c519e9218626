"""Implement `feedrank experiment power` and `simulate`: compute sample sizes, and simulate an A/B test."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from feedrank.api import experiment_config
from feedrank.api.cli.experiments import experiment as experiment
from feedrank.api.cli.experiments import experiment_service
from feedrank.api.cli.progress import command_errors, console, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths


@experiment.command()
@click.argument("name", required=False)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Without NAME: click rate per impression; impressions are independent units.",
)
@click.option("--lift", default=0.02, show_default=True, help="Minimum detectable effect, as a relative lift.")
@click.option(
    "--power",
    "target_power",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0.1, 0.999),
    help="Probability of detecting the lift.",
)
@click.option("--alpha", default=0.05, show_default=True, type=click.FloatRange(0.0001, 0.4),
              help="Accepted probability of a false positive.")  # fmt: skip
@click.option("--arms", default=2, show_default=True, type=click.IntRange(2, 50), help="Number of arms, without NAME.")
@click.option(
    "--per-day",
    type=click.FloatRange(min=0, min_open=True),
    help="New units per day; by default the experiment's own rate.",
)
@click.pass_obj
def power(
    obj: tuple[HomePaths, Config], name: str | None, rate: float | None, lift: float, target_power: float, alpha: float,
    arms: int, per_day: float | None,
) -> None:  # fmt: skip
    """Compute the units, impressions and days needed to detect a lift, from --rate or the data of NAME's first arm."""
    from feedrank.models.experiments.plan_metrics import find_plan_metric
    from feedrank.models.experiments.power import (
        SampleSizeReport,
        required_sample_size,
        required_sample_size_from_outcomes,
    )

    units_per_day = math.nan if per_day is None else per_day
    required: SampleSizeReport | None
    with command_errors():
        if (name is None) == (rate is None):
            raise ValueError("found " + ("neither" if name is None else "both") + " NAME and --rate; give one")
        if rate is not None:
            required = required_sample_size(
                rate, rate * (1 - rate), mde=lift, alpha=alpha, power=target_power, weights=(1.0,) * arms,
                impressions_per_unit=1.0, units_per_day=units_per_day,
            )  # fmt: skip
        else:
            assert name is not None
            service = experiment_service(obj)
            outcomes, weights = service.outcomes(name)
            declared = service.experiment_registry.get(name).experiment.plan
            required = required_sample_size_from_outcomes(
                outcomes, find_plan_metric(declared, declared.primary), mde=lift, alpha=alpha, power=target_power,
                weights=weights, units_per_day=units_per_day,
            )  # fmt: skip
        if required is None:
            raise ValueError(
                f"the first arm of {name!r} has too few units yet, or their values do not vary; "
                "collect more data or give --rate"
            )
    table = Table("", "units per arm", "impressions", "days", title=f"to detect {lift:+.1%} of {required.baseline:.4g}")
    for design, size in (("one look at the end", required.fixed_horizon), ("a look at any time", required.sequential)):
        units = ", ".join(f"{count:,}" for count in size.units)
        table.add_row(design, units, _format_count(size.impressions), _format_count(size.days))
    console.print(table)


@experiment.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--lift",
    "lifts",
    multiple=True,
    type=float,
    help="True relative lift of the click rate, once per arm after the first; by default 0.",
)
@click.option("--users", default=5_000, show_default=True, type=click.IntRange(100, 1_000_000),
              help="Number of simulated users.")  # fmt: skip
@click.option("--days", default=28, show_default=True, type=click.IntRange(1, 365), help="Length of a test, in days.")
@click.option(
    "--rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Mean click rate per impression.",
)
@click.option("--visits", default=0.5, show_default=True, help="Rankings per user and day.")
@click.option("--runs", default=100, show_default=True, type=click.IntRange(1, 100_000),
              help="Number of simulated tests.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Random seed; the same seed gives the same outcomes.")
@click.pass_obj
def simulate(
    obj: tuple[HomePaths, Config], path: Path, lifts: tuple[float, ...], users: int, days: int, rate: float,
    visits: float, runs: int, seed: int,
) -> None:  # fmt: skip
    """Simulate the A/B test in PATH many times with returning users and a daily look, and count its outcomes.

    Nothing is written to the journal.
    """
    from feedrank.models.experiments.confidence_sequence import confidence_sequences
    from feedrank.models.experiments.plan_metrics import find_plan_metric
    from feedrank.models.experiments.sample_ratio import sample_ratio_test
    from feedrank.models.experiments.simulator import SimulatedExperiment
    from feedrank.models.experiments.simulator import simulate_experiment as simulated
    from feedrank.models.experiments.verdict import decide

    with command_errors():
        spec = experiment_config.load_experiment(path)
        if spec.kind != "ab" or len(spec.arms) < 2:
            raise ValueError(
                f"found a {spec.kind} experiment of {len(spec.arms)} arms, expected an ab test of 2 or more"
            )
        true_lifts = lifts or (0.0,) * (len(spec.arms) - 1)
        weights = tuple(arm.weight for arm in spec.arms.values())
        world = SimulatedExperiment(
            users=users,
            days=days,
            lifts=true_lifts,
            weights=weights,
            click_rate=rate,
            rankings_per_day=visits,
            arrival_days=days,
        )
        plan, shares = spec.plan, tuple((np.array(weights) / sum(weights)).tolist())
        metric, alpha = find_plan_metric(plan, plan.primary), plan.alpha / (len(spec.arms) - 1)
        ends: dict[str, list[int]] = {}
        with progress_bars() as show:
            for run in range(runs):
                show("experiments simulated", run, runs)
                outcomes = simulated(replace(world, seed=seed + run))
                looks = confidence_sequences(
                    outcomes, metric, planned_units=plan.planned_units, alpha=alpha,
                    min_units=plan.min_units_for_ci, min_converting_units=plan.min_converting_units,
                )  # fmt: skip
                word, day = "no verdict", days
                for look, last in enumerate(looks[0].day.tolist()):
                    observed = outcomes.until_day(last)
                    units = np.bincount(outcomes.arm_of[np.unique(observed.unit)], minlength=len(spec.arms))
                    verdict = decide(
                        plan, sample_ratio_test(units, shares, outcomes.arms),
                        [sequence.up_to_look(look) for sequence in looks], (), days=last + 1, units=int(units.sum()),
                    )  # fmt: skip
                    if verdict.decision != "continue":
                        word, day = verdict.decision + (f" {verdict.arm}" if verdict.arm else ""), last + 1
                        break
                ends.setdefault(word, []).append(day)
    table = Table(
        "verdict", "share of runs", "median day", title=f"{runs:,} runs, true lifts {', '.join(map(str, true_lifts))}"
    )
    for word, end_days in sorted(ends.items(), key=lambda item: -len(item[1])):
        table.add_row(word, f"{len(end_days) / runs:.1%}", f"{float(np.median(end_days)):.0f}")
    console.print(table)


def _format_count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"
