"""Renders a readout for the terminal: verdict, metrics by arm, guardrails and segments."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from feedrank.models.experiments.lift import Interval
from feedrank.models.experiments.readout import Readout

_STYLES = {
    "ship": "bold green",
    "keep control": "bold",
    "continue": "bold",
    "stop": "bold red",
    "invalid": "bold red",
}


def readout_summary(readout: Readout) -> Group:
    """Render the readout: verdict and tables."""
    parts: list[Table | Text | Group] = [verdict_text(readout), metrics_table(readout)]
    parts += [guardrails_table(readout)] if readout.guardrails else []
    parts += [segments_table(readout)] if readout.segments else []
    return Group(*parts)


def verdict_text(readout: Readout) -> Text:
    """Render the verdict's sentence, with the decision in colour."""
    decision, _, reason = readout.verdict.sentence.partition(":")
    return Text.assemble((decision, _STYLES[readout.verdict.decision]), ":", reason, ".")


def metrics_table(readout: Readout) -> Group:
    """Render one row per metric and arm, with fixed-horizon intervals, and the notes below."""
    grid = _new_table(f"metrics, {1 - readout.plan.alpha:.0%} intervals for one look")
    several = len(readout.arms) > 2
    for head in ("metric", "arm") if several else ("metric",):
        grid.add_column(head, no_wrap=True)
    for head in (readout.arms[0], "treatment" if several else readout.arms[1], "relative lift", "p"):
        grid.add_column(Text(head), justify="right", no_wrap=True)
    for lift in readout.lifts:
        grid.add_row(
            Text(lift.metric),
            *([Text(lift.arm)] if several else []),
            _format_number(lift.control),
            _format_number(lift.value),
            _format_interval(lift.relative),
            format_p_value(lift.p),
        )
    notes = [f"{lift.metric}{f' of {lift.arm}' if several else ''}: {lift.note}" for lift in readout.lifts if lift.note]
    return Group(grid, *(Text(line, style="dim") for line in notes))


def guardrails_table(readout: Readout) -> Table:
    """Render the allowed loss and the always-valid gain of each guardrail and arm."""
    grid = _new_table("guardrails, always-valid intervals")
    grid.add_column("metric", no_wrap=True)
    grid.add_column("arm", no_wrap=True)
    for head in ("allowed", "gain", ""):
        grid.add_column(head, justify="right", no_wrap=True)
    for result in readout.guardrails:
        status = Text("violated", style="bold red") if result.breached else Text("ok", style="green")
        grid.add_row(
            Text(result.metric),
            Text(result.arm),
            f"{-result.max_relative_loss:.1%}",
            _format_interval(result.gain),
            status,
        )
    return grid


def segments_table(readout: Readout) -> Table:
    """Render the lift of the primary metric by segment."""
    grid = _new_table(f"{readout.plan.primary} by segment, adjusted p ({readout.plan.correction})")
    for head in ("segment", "value", "arm"):
        grid.add_column(head, no_wrap=True)
    for head in ("units", "relative lift", "p"):
        grid.add_column(head, justify="right", no_wrap=True)
    for row in readout.segments:
        grid.add_row(
            Text(row.segment), Text(row.value), Text(row.lift.arm), f"{sum(row.lift.units):,}",
            _format_interval(row.lift.relative), format_p_value(row.adjusted_p),
        )  # fmt: skip
    return grid


def _new_table(title: str) -> Table:
    return Table(
        title=Text(title),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        title_style="bold",
    )


def _format_interval(interval: Interval) -> Text:
    if math.isnan(interval.value):
        return Text("–", style="dim")
    if math.isnan(interval.low):
        return Text(f"{interval.value:+.1%}")
    style = "bold" if interval.low > 0 or interval.high < 0 else ""
    return Text.assemble((f"{interval.value:+.1%}", style), (f" [{interval.low:+.1%}, {interval.high:+.1%}]", "dim"))


def _format_number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def format_p_value(value: float) -> str:
    """Format a p-value; – for NaN."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
