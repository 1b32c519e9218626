"""Renders an experiment report for the terminal and as an HTML page."""

from __future__ import annotations

from html import escape

from rich.console import Group
from rich.table import Table
from rich.text import Text

from feedrank.api.compose.experiments import ExperimentReport
from feedrank.models.experiments import readout_table
from feedrank.models.experiments.lift_plot import confidence_sequence_plot
from feedrank.models.experiments.preference import Preference, summary_sentence
from feedrank.models.experiments.readout import readout_json
from feedrank.models.experiments.readout_page import readout_page as readout_page
from feedrank.models.experiments.readout_page import render_page
from feedrank.models.jsonable import to_jsonable


def render_terminal(report: ExperimentReport) -> Group:
    """Render a report for the terminal."""
    parts: list[Text | Table | Group] = []
    if report.readout is not None:
        parts.append(readout_table.readout_summary(report.readout))
    parts += [Text(summary_sentence(preference)) for preference in report.preferences]
    if report.preferences:
        parts.append(_preference_table(report.preferences))
    parts += [Text(shadow.summary_sentence) for shadow in report.shadows]
    parts += [Text(line) for line in notes(report)]
    if not parts:
        parts.append(Text("the experiment has one arm, so there is no comparison; use its log with `feedrank ope`"))
    return Group(*parts)


def render_html(report: ExperimentReport) -> str:
    """Render a report as a self-contained HTML page."""
    name = report.state.experiment.name
    title = f"Experiment {name}"
    paragraphs = [f"<p class=quiet>{escape(line)}</p>" for line in notes(report)]
    if report.readout is not None:
        return readout_page(readout_json(report.readout), title, "".join(paragraphs))
    parts = [f"<h1>{escape(title)}</h1>"]
    for preference in report.preferences:
        columns, arm, control = to_jsonable(preference), preference.arm, preference.control
        parts.append(f'<p class="verdict {_verdict_class(preference)}">{escape(summary_sentence(preference))}.</p>')
        caption = f"(clicks on {arm}'s items - clicks on {control}'s items) / all clicks, cumulative"
        parts.append(
            confidence_sequence_plot(
                f"{arm} against {control}", columns["day"], columns["preference"], columns["low"], columns["high"],
                None, caption,
            )
        )  # fmt: skip
    parts += [f"<p>{escape(shadow.summary_sentence)}.</p>" for shadow in report.shadows]
    return render_page(title, "".join([*parts, *paragraphs]))


def notes(report: ExperimentReport) -> list[str]:
    """Return further remarks on a report: stops, reassigned units and the holdout."""
    spec, remarks = report.state.experiment, []
    if report.state.status == "stopped":
        reason = f": {report.state.stop_reason}" if report.state.stop_reason else ""
        remarks.append(f"the experiment was stopped{reason}")
    remarks += [f"the arm {arm} was stopped: {reason}" for arm, reason in report.state.stopped_arms.items()]
    if report.reassigned_units:
        remarks.append(f"{report.reassigned_units:,} units were in more than one arm; they count for their first arm")
    remarks += report.notes
    for lift in report.holdout:
        interval = f"{lift.relative.value:+.1%} [{lift.relative.low:+.1%}, {lift.relative.high:+.1%}]"
        remarks.append(f"lift of {spec.plan.primary} in the experiment over the holdout: {interval}")
    return remarks


def _preference_table(preferences: tuple[Preference, ...]) -> Table:
    rows = Table("day", "arm", "wins", "losses", "ties", "preference", "always-valid CI", "p")
    for preference in preferences:
        for day in range(len(preference.day)):
            low, high = preference.low[day], preference.high[day]
            interval = "–" if low != low else f"[{low:+.3f}, {high:+.3f}]"
            counts = (preference.wins[day], preference.losses[day], preference.ties[day])
            rows.add_row(
                str(int(preference.day[day]) + 1), preference.arm, *(f"{count:,}" for count in counts),
                f"{preference.preference[day]:+.3f}", interval, readout_table.format_p_value(float(preference.p[day])),
            )  # fmt: skip
    return rows


def _verdict_class(preference: Preference) -> str:
    if not len(preference.day) or preference.low[-1] != preference.low[-1]:
        return "continue"
    return "ship" if preference.low[-1] > 0 else "stop" if preference.high[-1] < 0 else "keep-control"
