"""What an experiment says, for people: in the terminal, and on one page."""

from __future__ import annotations

from html import escape

from rich.console import Group
from rich.table import Table
from rich.text import Text

from api.compose.experiments import Found
from models.experiments import table
from models.experiments.page import framed
from models.experiments.page import page as readout_page
from models.experiments.plot import sequence_plot
from models.experiments.preference import Preference, said
from models.experiments.readout import body
from models.plain import plain


def shown(found: Found) -> Group:
    """In the terminal."""
    parts: list[Text | Table | Group] = []
    if found.readout is not None:
        parts.append(table.summary(found.readout))
    parts += [Text(said(one)) for one in found.preferences]
    if found.preferences:
        parts.append(_preferences(found.preferences))
    parts += [Text(one.said) for one in found.shadows]
    parts += [Text(line) for line in notes(found)]
    if not parts:
        parts.append(Text("there is one arm, so nothing to compare; its log can be used by `feedrank ope`"))
    return Group(*parts)


def page(found: Found) -> str:
    """As one page; nothing is loaded from elsewhere."""
    name = found.standing.experiment.name
    title = f"Experiment {name}"
    told = [f"<p class=quiet>{escape(line)}</p>" for line in notes(found)]
    if found.readout is not None:
        return readout_page(body(found.readout), title, "".join(told))
    parts = [f"<h1>{escape(title)}</h1>"]
    for one in found.preferences:
        columns = plain(one)
        parts.append(f'<p class="verdict {_look(one)}">{escape(said(one))}.</p>')
        about = f"clicks on {one.arm}'s items less those on {one.first}'s, over both, all lists until then"
        parts.append(
            sequence_plot(
                f"{one.arm} against {one.first}", columns["day"], columns["preference"], columns["low"],
                columns["high"], None, about,
            )
        )  # fmt: skip
    parts += [f"<p>{escape(one.said)}.</p>" for one in found.shadows]
    return framed(title, "".join([*parts, *told]))


def notes(found: Found) -> list[str]:
    """What else is to be known."""
    own, made = found.standing.experiment, []
    if found.standing.status == "stopped":
        reason = f": {found.standing.reason}" if found.standing.reason else ""
        made.append(f"the experiment was stopped{reason}")
    made += [f"the arm {arm} was stopped: {why}" for arm, why in found.standing.stopped_arms.items()]
    if found.moved:
        made.append(f"{found.moved:,} units were in more than one arm, and count for the first alone")
    for one in found.holdout:
        span = f"{one.relative.value:+.1%} [{one.relative.low:+.1%}, {one.relative.high:+.1%}]"
        made.append(f"{own.primary} of all in the experiment over those kept away: {span}")
    return made


def _preferences(found: tuple[Preference, ...]) -> Table:
    drawn = Table("day", "arm", "won", "lost", "even", "preference", "holds at every look", "p")
    for one in found:
        for place in range(len(one.day)):
            low, high = one.low[place], one.high[place]
            span = "–" if low != low else f"[{low:+.3f}, {high:+.3f}]"
            drawn.add_row(
                str(int(one.day[place]) + 1), one.arm, f"{one.wins[place]:,}", f"{one.losses[place]:,}",
                f"{one.ties[place]:,}", f"{one.preference[place]:+.3f}", span, table.surprise(float(one.p[place])),
            )  # fmt: skip
    return drawn


def _look(one: Preference) -> str:
    if not len(one.day) or one.low[-1] != one.low[-1]:
        return "go-on"
    return "ship" if one.low[-1] > 0 else "stop" if one.high[-1] < 0 else "keep"
