"""Renders a readout as one HTML page: verdict, tables and plots in one file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from feedrank.models.experiments.lift_plot import confidence_sequence_plot, daily_lift_plot
from feedrank.models.html import Html, html_page, html_table

_CSS = """
figcaption { font-size: .85rem }
h3 { font-size: 1rem; margin: 1rem 0 .3rem } .verdict { padding: .6rem 1rem; border-left: .4rem solid; margin: 1rem 0 }
.ship { border-color: #00664b; background: #e8f5f0 }
.keep-control, .continue { border-color: #52606d; background: #f3f5f7 }
.stop, .invalid { border-color: #a33a00; background: #fbeee6 }
.up { color: #00664b } .down { color: #a33a00 }
""".strip()
_VERDICT_TITLES = {
    "ship": "Ship {arm}",
    "keep control": "Keep {control}",
    "continue": "Continue",
    "stop": "Stop",
    "invalid": "Invalid",
}
ReadoutJson = Mapping[str, Any]


def readout_page(body: ReadoutJson, title: str = "Experiment", extra_html: str = "") -> str:
    """Render the page of a readout from `readout.readout_json`; it loads no external files.

    extra_html: is put at the end.
    """
    verdict = body["verdict"]
    decision = _VERDICT_TITLES[verdict["decision"]].format(arm=verdict["arm"], control=body["arms"][0])
    css_class = verdict["decision"].replace(" ", "-")
    counts = ", ".join(f"{name} {n:,}" for name, n in zip(body["arms"], body["units"], strict=True))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict {css_class}"><b>{escape(decision)}</b>: {escape(verdict["reason"])}.</p>',
        f'<p class="quiet">Units: {escape(counts)}. Days: {body["days"]}.</p>',
        _metrics(body),
        _confidence_sequences(body),
        _guardrails(body),
        _novelty(body),
        _segments(body),
        _sample_size(body),
        _sample_ratio(body["sample_ratio"]),
        extra_html,
    ]
    return render_page(title, "".join(parts))


def render_page(title: str, body_html: str) -> str:
    """Render a whole page around HTML, with the style of readouts."""
    return html_page(title, body_html, _CSS)


def _metrics(body: ReadoutJson) -> str:
    several = len(body["arms"]) > 2
    better = {metric["name"]: metric["higher_is_better"] for metric in body["metrics"]}
    rows = []
    for lift in body["lifts"]:
        names = [lift["metric"], lift["arm"]] if several else [lift["metric"]]
        saved = [_format_percent(lift["variance_reduction"])] if body["plan"]["cuped"] else []
        rows.append(
            [
                *names,
                _format_number(lift["control"]),
                _format_number(lift["value"]),
                _format_interval(lift["relative"], better[lift["metric"]]),
                _format_p_value(lift["p"]),
                *saved,
                lift["note"],
            ]
        )
    header = ["metric", *(["arm"] if several else []), body["arms"][0], "treatment" if several else body["arms"][1]]
    header += ["relative lift", "p", *(["variance reduction"] if body["plan"]["cuped"] else []), ""]
    level = f"{1 - body['plan']['alpha']:.0%}"
    caption = f"{level} confidence intervals at a fixed horizon: valid for one look at a time that was set beforehand."
    if several:
        holm = ", ".join(f"{arm} {_format_p_value(p)}" for arm, p in zip(body["arms"][1:], body["holm_p"], strict=True))
        caption += f" p of {body['plan']['primary']}, corrected over arms (Holm): {holm}."
    return html_table("Metrics", header, rows, caption)


def _confidence_sequences(body: ReadoutJson) -> str:
    figures = [
        confidence_sequence_plot(
            f"{sequence['arm']}: {sequence['metric']}", sequence["day"], sequence["relative"],
            sequence["relative_low"], sequence["relative_high"], _fixed_horizon_bounds(sequence),
        )
        for sequence in body["confidence_sequences"]
        if sequence["metric"] == body["plan"]["primary"] and any(low is not None for low in sequence["relative_low"])
    ]  # fmt: skip
    if not figures:
        return '<h2>Primary metric by day</h2><p class="quiet">There are too few units for an interval yet.</p>'
    return f'<h2>Primary metric by day</h2><div class="columns">{"".join(figures)}</div>'


def _fixed_horizon_bounds(sequence: ReadoutJson) -> tuple[list[float | None], list[float | None]]:
    """The t-test's bounds over the control's value of the day; None before the first interval."""
    bounds: tuple[list[float | None], list[float | None]] = ([], [])
    rows = zip(
        sequence["relative"],
        sequence["estimate"],
        sequence["fixed_low"],
        sequence["fixed_high"],
        sequence["relative_low"],
        strict=True,
    )
    for relative, estimate, low, high, relative_low in rows:
        is_known = relative_low is not None and relative and estimate and low is not None
        control = estimate / relative if is_known else 1.0
        for column, bound in zip(bounds, (low, high), strict=True):
            column.append(bound / control if is_known else None)
    return bounds


def _guardrails(body: ReadoutJson) -> str:
    rows = [
        [
            guardrail["metric"],
            guardrail["arm"],
            f"{-guardrail['max_relative_loss']:.1%}",
            _format_interval(guardrail["gain"]),
            "violated" if guardrail["breached"] else "ok",
        ]
        for guardrail in body["guardrails"]
    ]
    caption = "Relative gains with always-valid intervals; violated: the whole interval is below the allowed loss."
    return html_table("Guardrails", ["metric", "arm", "allowed", "gain", ""], rows, caption) if rows else ""


def _novelty(body: ReadoutJson) -> str:
    figures, rows = [], []
    for effect in body["novelty_effects"]:
        rows.append([effect["arm"], _format_interval(effect["slope"]), _format_p_value(effect["p"]), effect["trend"]])
        if sum(value is not None for value in effect["relative"]) > 1:
            title = f"{effect['arm']}: {effect['metric']}"
            figures.append(daily_lift_plot(title, effect["day"], effect["relative"], effect["low"], effect["high"]))
    slopes = html_table("Novelty effect", ["arm", "slope per day", "p", ""], rows)
    return f'{slopes}<div class="columns">{"".join(figures)}</div>'


def _segments(body: ReadoutJson) -> str:
    rows = [
        [row["segment"], row["value"], row["lift"]["arm"], f"{sum(row['lift']['units']):,}",
         _format_interval(row["lift"]["relative"]), _format_p_value(row["lift"]["p"]),
         _format_p_value(row["adjusted_p"]), row["lift"]["note"]]
        for row in body["segments"]
    ]  # fmt: skip
    caption = f"Adjusted p: corrected for {len(rows)} comparisons ({body['plan']['correction']})."
    header = ["segment", "value", "arm", "units", f"relative lift of {body['plan']['primary']}", "p", "adjusted p", ""]
    return html_table("Segments", header, rows, caption) if rows else ""


def _sample_size(body: ReadoutJson) -> str:
    report = body["sample_size"]
    if report is None:
        return ""
    rows = [
        [name, f"{sum(size['units']):,}", _format_count(size["impressions"]), _format_count(size["days"])]
        for name, size in (("fixed horizon: one look at the end", report["fixed_horizon"]),
                           ("sequential: a look at any time", report["sequential"]))
    ]  # fmt: skip
    caption = f"To detect a relative lift of {report['mde']:.1%} with a power of {report['power']:.0%}."
    return html_table("Required sample size", ["", "units", "impressions", "days"], rows, caption)


def _sample_ratio(test: ReadoutJson) -> str:
    rows = [
        [name, f"{n:,}", f"{expected:,.0f}"]
        for name, n, expected in zip(test["arms"], test["units"], test["expected"], strict=True)
    ]
    result = "sample ratio mismatch" if test["mismatch"] else "no mismatch"
    caption = f"Chi-square p = {_format_p_value(test['p'])}: {result}."
    caption = caption if test["p"] is not None else "There are too few units to test."
    return html_table("Sample ratio", ["arm", "units", "expected"], rows, caption)


def _format_interval(interval: ReadoutJson, higher_is_better: bool = True) -> str:
    if interval["value"] is None:
        return "–"
    value, low, high = interval["value"], interval["low"], interval["high"]
    if low is None or high is None:
        return f"{value:+.1%}"
    css_class = "" if low <= 0 <= high else "up" if (low > 0) == higher_is_better else "down"
    digits = 1 if high - low >= 0.004 else 2
    text = f'<span class="{css_class}">{value:+.{digits}%}</span>' if css_class else f"{value:+.{digits}%}"
    return Html(f'{text} <span class="quiet">[{low:+.{digits}%}, {high:+.{digits}%}]</span>')


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _format_count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _format_percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _format_p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
