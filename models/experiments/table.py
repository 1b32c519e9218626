"""An experiment in the terminal: its verdict, its arms by metrics, its guardrails and its segments."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from models.experiments.lift import Span
from models.experiments.readout import Readout

_STYLES = {"ship": "bold green", "keep": "bold", "go on": "bold", "stop": "bold red", "broken": "bold red"}


def summary(readout: Readout) -> Group:
    """All that a terminal has room for."""
    parts: list[Table | Text | Group] = [verdict(readout), metrics(readout)]
    parts += [guardrails(readout)] if readout.guardrails else []
    parts += [segments(readout)] if readout.segments else []
    return Group(*parts)


def verdict(readout: Readout) -> Text:
    """The sentence, with its word in colour."""
    said = readout.verdict.sentence
    word, _, reason = said.partition(":")
    return Text.assemble((word, _STYLES[readout.verdict.word]), ":", reason, ".")


def metrics(readout: Readout) -> Group:
    """A line a metric and arm; intervals for one look at a fixed time; under it what is to be said of them."""
    drawn = _table(f"metrics, {1 - readout.plan.alpha:.0%} intervals for one look")
    several = len(readout.arms) > 2
    for head in ("metric", "arm") if several else ("metric",):
        drawn.add_column(head, no_wrap=True)
    for head in (readout.arms[0], "arm's" if several else readout.arms[1], "relative lift", "p"):
        drawn.add_column(Text(head), justify="right", no_wrap=True)
    for lift in readout.lifts:
        drawn.add_row(
            Text(lift.metric), *([Text(lift.arm)] if several else []), _number(lift.control), _number(lift.value),
            _span(lift.relative), surprise(lift.p),
        )  # fmt: skip
    said = [f"{lift.metric}{f' of {lift.arm}' if several else ''}: {lift.said}" for lift in readout.lifts if lift.said]
    return Group(drawn, *(Text(line, style="dim") for line in said))


def guardrails(readout: Readout) -> Table:
    """What is borne, and the change that is right at every look."""
    drawn = _table("guardrails, intervals that hold at every look")
    drawn.add_column("metric", no_wrap=True)
    drawn.add_column("arm", no_wrap=True)
    for head in ("borne", "change for the better", ""):
        drawn.add_column(head, justify="right", no_wrap=True)
    for one in readout.guardrails:
        word = Text("broken", style="bold red") if one.breached else Text("holds", style="green")
        drawn.add_row(Text(one.metric), Text(one.arm), f"{-one.worst:.1%}", _span(one.gain), word)
    return drawn


def segments(readout: Readout) -> Table:
    """The primary metric by segment."""
    drawn = _table(f"{readout.plan.primary} by segment, p corrected ({readout.plan.correction})")
    for head in ("segment", "value", "arm"):
        drawn.add_column(head, no_wrap=True)
    for head in ("units", "relative lift", "p"):
        drawn.add_column(head, justify="right", no_wrap=True)
    for one in readout.segments:
        drawn.add_row(
            Text(one.segment), Text(one.value), Text(one.lift.arm), f"{sum(one.lift.units):,}",
            _span(one.lift.relative), surprise(one.corrected_p),
        )  # fmt: skip
    return drawn


def _table(title: str) -> Table:
    return Table(
        title=Text(title),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        title_style="bold",
    )


def _span(span: Span) -> Text:
    if math.isnan(span.value):
        return Text("–", style="dim")
    if math.isnan(span.low):
        return Text(f"{span.value:+.1%}")
    sure = "bold" if span.low > 0 or span.high < 0 else ""
    return Text.assemble((f"{span.value:+.1%}", sure), (f" [{span.low:+.1%}, {span.high:+.1%}]", "dim"))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def surprise(value: float) -> str:
    """A p-value as it is shown."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
