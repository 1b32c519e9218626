"""The page of an experiment: its verdict, its numbers and its pictures in one file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from models.experiments.plot import day_plot, sequence_plot
from models.pages import Html, table, whole

_WORDS = """
figcaption { font-size: .85rem }
h3 { font-size: 1rem; margin: 1rem 0 .3rem } .verdict { padding: .6rem 1rem; border-left: .4rem solid; margin: 1rem 0 }
.ship { border-color: #00664b; background: #e8f5f0 } .keep, .go-on { border-color: #52606d; background: #f3f5f7 }
.stop, .broken { border-color: #a33a00; background: #fbeee6 }
.up { color: #00664b } .down { color: #a33a00 }
""".strip()
_SAID = {"ship": "Ship {arm}", "keep": "Keep {first}", "go on": "Go on", "stop": "Stop", "broken": "Broken"}
Body = Mapping[str, Any]


def page(body: Body, title: str = "Experiment", more: str = "") -> str:
    """From what `readout.body` gave; nothing is loaded from elsewhere. more: HTML that comes at the end."""
    verdict = body["verdict"]
    word = _SAID[verdict["word"]].format(arm=verdict["arm"], first=body["arms"][0])
    look = verdict["word"].replace(" ", "-")
    counts = ", ".join(f"{name} {n:,}" for name, n in zip(body["arms"], body["units"], strict=True))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict {look}"><b>{escape(word)}</b>: {escape(verdict["reason"])}.</p>',
        f'<p class="quiet">Units: {escape(counts)}. Days: {body["days"]}.</p>',
        _metrics(body),
        _sequences(body),
        _guardrails(body),
        _novelty(body),
        _segments(body),
        _size(body),
        _ratio(body["sample_ratio"]),
        more,
    ]
    return framed(title, "".join(parts))


def framed(title: str, inside: str) -> str:
    """A whole page around HTML, with the style of readouts."""
    return whole(title, inside, _WORDS)


def _metrics(body: Body) -> str:
    several = len(body["arms"]) > 2
    better = {one["name"]: one["higher_is_better"] for one in body["metrics"]}
    lines = []
    for lift in body["lifts"]:
        first = [lift["metric"], lift["arm"]] if several else [lift["metric"]]
        saved = [_share(lift["variance_saved"])] if body["plan"]["cuped"] else []
        lines.append(
            [*first, _number(lift["control"]), _number(lift["value"]), _span(lift["relative"], better[lift["metric"]]),
             _p(lift["p"]), *saved, lift["said"]]
        )  # fmt: skip
    heads = ["metric", *(["arm"] if several else []), body["arms"][0], "arm's" if several else body["arms"][1]]
    heads += ["relative lift", "p", *(["variance saved"] if body["plan"]["cuped"] else []), ""]
    level = f"{1 - body['plan']['alpha']:.0%}"
    said = f"Intervals at {level} for one look at a time that was fixed beforehand."
    if several:
        holm = ", ".join(f"{arm} {_p(p)}" for arm, p in zip(body["arms"][1:], body["holm_p"], strict=True))
        said += f" {body['plan']['primary']} over arms (Holm): {holm}."
    return table("Metrics", heads, lines, said)


def _sequences(body: Body) -> str:
    figures = [
        sequence_plot(
            f"{one['arm']}: {one['metric']}", one["day"], one["relative"], one["relative_low"], one["relative_high"],
            _fixed(one),
        )
        for one in body["sequences"]
        if one["metric"] == body["plan"]["primary"] and any(low is not None for low in one["relative_low"])
    ]  # fmt: skip
    if not figures:
        return (
            '<h2>The primary metric, day by day</h2><p class="quiet">There are too few units for an interval yet.</p>'
        )
    return f'<h2>The primary metric, day by day</h2><div class="columns">{"".join(figures)}</div>'


def _fixed(one: Body) -> tuple[list[float | None], list[float | None]]:
    """The t-test's bounds over the first arm's value of the day; nothing before the first interval."""
    made: tuple[list[float | None], list[float | None]] = ([], [])
    rows = zip(one["relative"], one["estimate"], one["fixed_low"], one["fixed_high"], one["relative_low"], strict=True)
    for relative, estimate, low, high, shown in rows:
        known = shown is not None and relative and estimate and low is not None
        base = estimate / relative if known else 1.0
        for column, bound in zip(made, (low, high), strict=True):
            column.append(bound / base if known else None)
    return made


def _guardrails(body: Body) -> str:
    lines = [
        [
            one["metric"],
            one["arm"],
            f"{-one['worst']:.1%}",
            _span(one["gain"]),
            "broken" if one["breached"] else "holds",
        ]
        for one in body["guardrails"]
    ]
    said = "Changes for the better, with intervals that hold at every look; broken: all of one is below what is borne."
    return table("Guardrails", ["metric", "arm", "borne", "change", ""], lines, said) if lines else ""


def _novelty(body: Body) -> str:
    figures, lines = [], []
    for one in body["novelty"]:
        lines.append([one["arm"], _span(one["slope"]), _p(one["p"]), one["trend"]])
        if sum(value is not None for value in one["relative"]) > 1:
            figures.append(
                day_plot(f"{one['arm']}: {one['metric']}", one["day"], one["relative"], one["low"], one["high"])
            )
    made = table("Does the effect last?", ["arm", "slope a day", "p", ""], lines)
    return f'{made}<div class="columns">{"".join(figures)}</div>'


def _segments(body: Body) -> str:
    lines = [
        [one["segment"], one["value"], one["lift"]["arm"], f"{sum(one['lift']['units']):,}",
         _span(one["lift"]["relative"]), _p(one["lift"]["p"]), _p(one["corrected_p"]), one["lift"]["said"]]
        for one in body["segments"]
    ]  # fmt: skip
    said = f"The last p is corrected for the {len(lines)} places that were looked at ({body['plan']['correction']})."
    heads = ["segment", "value", "arm", "units", f"relative lift of {body['plan']['primary']}", "p", "corrected", ""]
    return table("Segments", heads, lines, said) if lines else ""


def _size(body: Body) -> str:
    need = body["need"]
    if need is None:
        return ""
    lines = [
        [name, f"{sum(size['units']):,}", _whole(size["impressions"]), _whole(size["days"])]
        for name, size in (("one look at the end", need["fixed"]), ("a look whenever one likes", need["sequential"]))
    ]
    said = f"To find a relative lift of {need['lift']:.1%} with a chance of {need['power']:.0%}."
    return table("How large a test", ["", "units", "impressions", "days"], lines, said)


def _ratio(ratio: Body) -> str:
    lines = [
        [name, f"{n:,}", f"{due:,.0f}"]
        for name, n, due in zip(ratio["arms"], ratio["units"], ratio["expected"], strict=True)
    ]
    said = f"Chi-square p = {_p(ratio['p'])}: {'not as it should be' if ratio['alarm'] else 'as it should be'}."
    return table(
        "Split of units", ["arm", "units", "due"], lines, said if ratio["p"] is not None else "Too few to say."
    )


def _span(span: Body, higher_is_better: bool = True) -> str:
    if span["value"] is None:
        return "–"
    value, low, high = span["value"], span["low"], span["high"]
    if low is None or high is None:
        return f"{value:+.1%}"
    sure = "" if low <= 0 <= high else "up" if (low > 0) == higher_is_better else "down"
    digits = 1 if high - low >= 0.004 else 2
    shown = f'<span class="{sure}">{value:+.{digits}%}</span>' if sure else f"{value:+.{digits}%}"
    return Html(f'{shown} <span class="quiet">[{low:+.{digits}%}, {high:+.{digits}%}]</span>')


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
