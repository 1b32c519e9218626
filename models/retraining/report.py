"""Write the report of a retraining as JSON and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from feedrank.models.atomic_files import atomic_write
from feedrank.models.html import Html, html_page, html_table
from feedrank.models.jsonable import to_jsonable
from feedrank.models.retraining.drift import PSI_LARGE, PSI_MODERATE
from feedrank.models.retraining.retraining import RetrainResult
from feedrank.models.training.training import TrainedRanker

MAX_FEATURES = 20


def build_report(
    name: str, result: RetrainResult, bundle_names: Mapping[str, str], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the JSON-ready report.

    name: of the run. bundle_names: `candidate` and `incumbent` -> name of the bundle, if there is one. extra: more
    entries, JSON-ready.
    """
    trained, decision = result.trained, result.decision
    suspects = () if trained is None else trained.suspects
    return _report(
        name,
        decision.outcome,
        decision.reasons,
        bundle_names,
        {
            "baseline": decision.baseline if decision.gain else None,
            "notes": list(result.notes),
            "warnings": list(result.warnings),
            "shuffled_labels": None if result.shuffled is None else asdict(result.shuffled),
            "suspect_features": {suspect.name: suspect.auc for suspect in suspects},
            "gain": None if decision.gain is None else asdict(decision.gain),
            "segments": {name: asdict(gain) for name, gain in decision.segments.items()},
            "rows": [asdict(row) for row in result.rows],
            "test_start": result.test.begins_at,
            "test_groups": len(result.test),
            **({} if trained is None else _ranker_entries(trained)),
            "drift": dict(result.drift),
            **extra,
        },
    )


def failure_report(name: str, message: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Build the report of a retraining that failed. message: of the error. extra: as in `build_report`."""
    return _report(name, "failed", (message,), {}, extra)


def _report(
    name: str, outcome: str, reasons: Sequence[str], bundle_names: Mapping[str, str], entries: Mapping[str, Any]
) -> dict[str, Any]:
    """Build a report with all its keys; those without an entry are empty."""
    empty: dict[str, Any] = {
        "baseline": None, "notes": [], "warnings": [], "shuffled_labels": None, "suspect_features": {}, "gain": None,
        "segments": {}, "rows": [], "test_start": None, "test_groups": 0, "groups": {}, "trees": 0, "importance": {},
        "learning_curve": [], "position_bias": None, "drift": {},
    }  # fmt: skip
    head = {
        "name": name, "outcome": outcome, "promote": outcome == "promoted", "reasons": list(reasons),
        "bundles": dict(bundle_names),
    }  # fmt: skip
    report: dict[str, Any] = to_jsonable(head | empty | dict(entries))
    return report


def _ranker_entries(trained: TrainedRanker) -> dict[str, Any]:
    ranker, bias = trained.ranker, trained.ranker.position_bias
    curve = None
    if bias is not None:
        curve = dict(zip(map(str, bias.positions.tolist()), bias.biases.tolist(), strict=True))
    return {
        "groups": trained.counts, "trees": ranker.trees, "importance": ranker.importance(),
        "learning_curve": list(ranker.learning_curve), "position_bias": curve,
    }  # fmt: skip


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write a report from `build_report` to report.json and report.html in the folder; return both paths."""
    paths = folder / "report.json", folder / "report.html"
    for path, text in zip(paths, (json.dumps(report, indent=1) + "\n", render_page(report)), strict=True):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def render_page(report: Mapping[str, Any]) -> str:
    """Render the report as a self-contained HTML page."""
    name, outcome = escape(report["name"]), report["outcome"].replace("-", " ")
    colour = "promoted" if report["promote"] else "refused"
    incumbent = escape(report["bundles"].get("incumbent") or "nothing")
    parts = [
        f'<h1>{name}: <span class="{colour}">{escape(outcome)}</span></h1>',
        f'<p class="quiet">against {incumbent}; {_group_counts(report["groups"])}</p>',
        _sentences(report["reasons"]),
        _sentences(f"Note: {note}" for note in report["notes"]),
        _sentences(f"Warning: {warning}" for warning in report["warnings"]),
    ]
    if report["trees"]:
        parts += _trained_parts(report)
    return html_page(f"Retraining: {report['name']}", "".join(parts))


def _trained_parts(report: Mapping[str, Any]) -> list[str]:
    return [
        _metrics(report["rows"]),
        _segments(report["segments"], report["baseline"]),
        '<div class="columns">',
        _curve("Learning curve", "round", "validation", list(enumerate(report["learning_curve"], 1))),
        _curve("Position bias", "position", "added to the score", _bias(report["position_bias"])),
        "</div>",
        _importance(report["importance"]),
        _drift(report["drift"]),
    ]


def _metrics(rows: Sequence[Mapping[str, Any]]) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["dataset"], row["method"], row["metric"]): row for row in rows}
    lines = []
    for segment, method in dict.fromkeys((row["dataset"], row["method"]) for row in rows):
        metric_rows = [cells[segment, method, metric] for metric in metrics]
        lines.append([f"{segment}, {method}", f"{metric_rows[0]['groups']:,}", *map(_value_text, metric_rows)])
    return html_table("Metrics, with 95 % intervals", ["segment, bundle", "groups", *metrics], lines)


def _segments(segments: Mapping[str, Mapping[str, Any]], baseline: str) -> str:
    title = f"Gain over {'recall order' if baseline == 'recall' else 'the incumbent'}"
    lines = [[name, f"{gain['groups']:,}", _gain_text(gain)] for name, gain in segments.items()]
    return html_table(title, ["segment", "groups", "gain"], lines) if lines else ""


def _importance(importance: Mapping[str, float]) -> str:
    best = sorted((pair for pair in importance.items() if pair[1] > 0), key=lambda pair: -pair[1])[:MAX_FEATURES]
    widest = max((share for _, share in best), default=0) or 1
    lines = [
        [name, f"{share:.1%}", Html(f'<span class="bar" style="width:{160 * share / widest:.0f}px"></span>')]
        for name, share in best
    ]
    return html_table("Features, by share of gain", ["feature", "share", ""], lines)


def _drift(drift: Mapping[str, float | None]) -> str:
    if not drift:
        return '<h2>Drift</h2><p class="quiet">The incumbent has no feature histogram to compare with.</p>'
    finite = {name: value for name, value in drift.items() if value is not None}
    worst = sorted(finite.items(), key=lambda pair: -pair[1])[:MAX_FEATURES]
    strong = sum(value >= PSI_LARGE for value in finite.values())
    moderate = sum(PSI_MODERATE <= value < PSI_LARGE for value in finite.values())
    summary = (
        f"{strong} features have drifted strongly (PSI >= {PSI_LARGE}), {moderate} moderately (PSI >= {PSI_MODERATE})."
    )
    lines = [[name, f"{value:.3f}"] for name, value in worst]
    return html_table("Drift against the incumbent's training rows", ["feature", "PSI"], lines, summary)


def _bias(bias: Mapping[str, float] | None) -> list[tuple[int, float]]:
    return [(int(position), value) for position, value in (bias or {}).items()]


def _curve(title: str, x_label: str, y_label: str, points: Sequence[tuple[int, float]]) -> str:
    """Draw a line plot as SVG; empty for fewer than two points."""
    points = [(x, y) for x, y in points if y is not None]
    if len(points) < 2:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    width, height, left = 320, 150, 50
    xs_px = [left + (x - xs[0]) / (xs[-1] - xs[0]) * width for x in xs]
    ys_px = [10 + (high - y) / ((high - low) or 1) * height for y in ys]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs_px, ys_px, strict=True))
    labels = (
        f'<text x="{left - 6}" y="15" text-anchor="end">{high:.3g}</text>'
        f'<text x="{left - 6}" y="{height + 10}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{left}" y="{height + 28}">{x_label} {xs[0]}</text>'
        f'<text x="{left + width}" y="{height + 28}" text-anchor="end">{xs[-1]}</text>'
    )
    aria_label = f"{escape(title)}: {escape(y_label)} by {escape(x_label)}"
    polyline = f'<polyline fill="none" stroke="#0072b2" stroke-width="2" points="{line}"/>{labels}'
    size = f'width="{left + width + 10}" height="{height + 36}" font-size="12"'
    picture = f'<svg {size} role="img" aria-label="{aria_label}">{polyline}</svg>'
    caption = f'<figcaption class="quiet">{escape(y_label)}</figcaption>'
    return f"<figure><h2>{escape(title)}</h2>{picture}{caption}</figure>"


def _sentences(lines: Any) -> str:
    return "".join(f"<p>{escape(line)}{'' if line.endswith(('.', '?')) else '.'}</p>" for line in lines)


def _group_counts(groups: Mapping[str, int]) -> str:
    return escape(", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in groups.items()))


def _value_text(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    return Html(f'{row["value"]:.4f} <span class="quiet">[{row["low"]:.4f}, {row["high"]:.4f}]</span>')


def _gain_text(gain: Mapping[str, Any]) -> str:
    return "–" if gain["mean"] is None else f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
