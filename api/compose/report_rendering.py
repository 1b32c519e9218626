"""Renders an experiment report for the terminal and as an HTML page."""

from __future__ import annotations

from html import escape

from rich.console import Group
from rich.table import Table
from rich.text import Text

from feedrank.api.compose.experiments import Found
from feedrank.models.experiments import readout_table
from feedrank.models.experiments.lift_plot import sequence_plot
from feedrank.models.experiments.preference import Preference, said
from feedrank.models.experiments.readout import body
from feedrank.models.experiments.readout_page import framed
from feedrank.models.experiments.readout_page import page as readout_page
from feedrank.models.jsonable import plain


def shown(found: Found) -> Group:
    """Render a report for the terminal."""
    parts: list[Text | Table | Group] = []
    if found.readout is not None:
        parts.append(readout_table.summary(found.readout))
    parts += [Text(said(preference)) for preference in found.preferences]
    if found.preferences:
        parts.append(_preferences(found.preferences))
    parts += [Text(shadow.said) for shadow in found.shadows]
    parts += [Text(line) for line in notes(found)]
    if not parts:
        parts.append(Text("the experiment has one arm, so there is no comparison; use its log with `feedrank ope`"))
    return Group(*parts)


def page(found: Found) -> str:
    """Render a report as a self-contained HTML page."""
    name = found.standing.experiment.name
    title = f"Experiment {name}"
    paragraphs = [f"<p class=quiet>{escape(line)}</p>" for line in notes(found)]
    if found.readout is not None:
        return readout_page(body(found.readout), title, "".join(paragraphs))
    parts = [f"<h1>{escape(title)}</h1>"]
    for preference in found.preferences:
        columns, arm, control = plain(preference), preference.arm, preference.first
        parts.append(f'<p class="verdict {_look(preference)}">{escape(said(preference))}.</p>')
        caption = f"(clicks on {arm}'s items - clicks on {control}'s items) / all clicks, cumulative"
        parts.append(
            sequence_plot(
                f"{arm} against {control}", columns["day"], columns["preference"], columns["low"], columns["high"],
                None, caption,
            )
        )  # fmt: skip
    parts += [f"<p>{escape(shadow.said)}.</p>" for shadow in found.shadows]
    return framed(title, "".join([*parts, *paragraphs]))


def notes(found: Found) -> list[str]:
    """Return further remarks on a report: stops, reassigned units and the holdout."""
    spec, remarks = found.standing.experiment, []
    if found.standing.status == "stopped":
        reason = f": {found.standing.reason}" if found.standing.reason else ""
        remarks.append(f"the experiment was stopped{reason}")
    remarks += [f"the arm {arm} was stopped: {reason}" for arm, reason in found.standing.stopped_arms.items()]
    if found.moved:
        remarks.append(f"{found.moved:,} units were in more than one arm; they count for their first arm")
    for lift in found.holdout:
        interval = f"{lift.relative.value:+.1%} [{lift.relative.low:+.1%}, {lift.relative.high:+.1%}]"
        remarks.append(f"lift of {spec.primary} in the experiment over the holdout: {interval}")
    return remarks


def _preferences(found: tuple[Preference, ...]) -> Table:
    rows = Table("day", "arm", "wins", "losses", "ties", "preference", "always-valid CI", "p")
    for preference in found:
        for day in range(len(preference.day)):
            low, high = preference.low[day], preference.high[day]
            interval = "–" if low != low else f"[{low:+.3f}, {high:+.3f}]"
            counts = (preference.wins[day], preference.losses[day], preference.ties[day])
            rows.add_row(
                str(int(preference.day[day]) + 1), preference.arm, *(f"{count:,}" for count in counts),
                f"{preference.preference[day]:+.3f}", interval, readout_table.surprise(float(preference.p[day])),
            )  # fmt: skip
    return rows


def _look(one: Preference) -> str:
    if not len(one.day) or one.low[-1] != one.low[-1]:
        return "go-on"
    return "ship" if one.low[-1] > 0 else "stop" if one.high[-1] < 0 else "keep"
