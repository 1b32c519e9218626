"""Report metrics of several methods as a terminal table, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from feedrank.models.atomic_files import atomic_write
from feedrank.models.evaluation.bootstrap import Interval
from feedrank.models.jsonable import to_jsonable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {"ndcg": "nDCG", "hr": "HR", "recall": "Recall", "mrr": "MRR", "map": "MAP", "auc": "AUC"}
_FONTS = ("Inter", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
_HIGHLIGHT, _OTHER, _INK, _QUIET = "#0072B2", "#C5CBD3", "#1F2933", "#6B7683"
"""Blue of Okabe & Ito 2008 and greys: they differ in lightness, so also in print and for colour-blind readers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one method on one data set, with the 95 % interval of its mean."""

    dataset: str
    method: str
    metric: str
    """Name of the `Measure`, such as `ndcg@10`."""
    value: float
    """Mean over groups; NaN if no group has a value."""
    low: float
    high: float
    groups: int
    """Number of groups in the mean."""

    @classmethod
    def from_interval(cls, dataset: str, method: str, metric: str, interval: Interval) -> Row:
        """Build a row from a bootstrap interval."""
        return cls(dataset, method, metric, interval.mean, interval.low, interval.high, interval.groups)


def table(rows: Sequence[Row], highlight: str | None = None) -> Table:
    """Build a terminal table: methods down, metrics across, cells like "0.123 [0.110, 0.135]", best value bold.

    The order is that of the rows. highlight: the method to emphasise. Raises ValueError for duplicate rows.
    """
    cells = _rows_by_key(rows)
    datasets, metrics = _unique(row.dataset for row in rows), _unique(row.metric for row in rows)
    many_datasets = len(datasets) > 1
    output = Table(
        min_width=None if rows else len("nothing was measured"),
        title=None if many_datasets or not rows else Text(f"{datasets[0]}, {_group_count_text(rows)}"),
        caption=Text("mean [95 % interval]; bold: best" if rows else "nothing was measured"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
    )
    if many_datasets:
        output.add_column("dataset", no_wrap=True)
    output.add_column("method", no_wrap=True)
    for metric in metrics:
        output.add_column(Text(metric), justify="right")
    for dataset in datasets:
        subset = [row for row in rows if row.dataset == dataset]
        best = {
            metric: max((_sort_value(row) for row in subset if row.metric == metric), default=None)
            for metric in metrics
        }
        methods = _unique(row.method for row in subset)
        groups = _group_count_text(subset)
        first_cells = [f"{dataset}, {groups}"] if len(methods) == 1 else [dataset, groups] + [""] * (len(methods) - 2)
        for method, first_cell in zip(methods, first_cells, strict=True):
            name = Text(method, style="bold cyan" if method == highlight else "")
            metric_rows = [cells.get((dataset, method, metric)) for metric in metrics]
            texts = [_cell(row, row is not None and _sort_value(row) == best[row.metric]) for row in metric_rows]
            leading = [Text(first_cell, style="dim" if first_cell == groups else "")] if many_datasets else []
            output.add_row(*leading, name, *texts, end_section=method == methods[-1])
    return output


def to_json(rows: Sequence[Row], costs: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return {"rows": [...], "costs": {...}} of JSON types; NaN becomes None."""
    _rows_by_key(rows)
    return {"rows": [to_jsonable(row) for row in rows], "costs": to_jsonable(dict(costs or {}))}


def write_json(path: str | Path, rows: Sequence[Row], costs: Mapping[str, object] | None = None) -> None:
    """Write the report as JSON, atomically."""
    text = json.dumps(to_json(rows, costs), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(Path(path)) as draft:
        draft.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> tuple[list[Row], dict[str, Any]]:
    """Read the rows and costs that `write_json` wrote; ValueError if the file is no such report."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [Row(**{name: _nan_if_none(value) for name, value in row.items()}) for row in content["rows"]]
        return rows, dict(content["costs"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f'{path} is no report ({problem!r}); expected {{"rows": [...], "costs": {{...}}}} as feedrank writes it: '
            "measure again to replace it"
        ) from problem


def plot(path: str | Path, rows: Sequence[Row], highlight: str | None = None) -> None:
    """Plot a PNG with one panel per metric and one bar per method, best on top, whiskers for the 95 % interval.

    highlight: the method to emphasise, by default that of the first row. Raises ValueError if the rows are not of
    exactly one data set or lack the method, ImportError that names the extra if matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.font_manager import get_font_names
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as problem:
        raise ImportError("plotting a report needs matplotlib: pip install 'feedrank[plot]'") from problem

    _rows_by_key(rows)
    datasets, metrics = _unique(row.dataset for row in rows), _unique(row.metric for row in rows)
    if len(datasets) != 1:
        raise ValueError(f"found rows of {len(datasets)} data sets {datasets}; a plot shows one: plot each separately")
    methods = _unique(row.method for row in rows)
    highlight = rows[0].method if highlight is None else highlight
    if highlight not in methods:
        raise ValueError(f"found no method {highlight!r} to highlight; there are {', '.join(methods)}")

    n_columns = len(metrics) if len(metrics) <= 3 else 2 if len(metrics) == 4 else 3
    n_lines = math.ceil(len(metrics) / n_columns)
    width, head, foot = 4.2 * n_columns + 0.3, 0.82, 0.1
    height = head + foot + n_lines * (0.62 + 0.31 * len(methods))
    installed = set(get_font_names())
    font = next((name for name in _FONTS if name in installed), "sans-serif")
    # A Figure without pyplot does not touch the caller's figures, back end or settings.
    with matplotlib.rc_context({"font.family": font, "text.color": _INK, "axes.titlecolor": _INK}):
        body = (0, foot / height, 1, 1 - (head + foot) / height)
        layout = ConstrainedLayoutEngine(rect=body, w_pad=0.16, h_pad=0.12)
        figure = Figure((width, height), dpi=200, layout=layout, facecolor="white")
        figure.text(0.16 / width, 1 - 0.20 / height, datasets[0], size=15, weight="bold", va="top")
        note = f"{_group_count_text(rows)}  ·  mean, with its 95 % interval  ·  higher is better"
        figure.text(0.16 / width, 1 - 0.56 / height, note, size=9, color=_QUIET, va="top")
        panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        for axes, metric in zip(panels, metrics, strict=False):
            _panel(axes, metric, [row for row in rows if row.metric == metric], highlight, len(methods))
        with atomic_write(Path(path)) as draft:
            # Without the matplotlib version in the metadata, equal rows give equal bytes.
            figure.savefig(draft, format="png", metadata={"Software": None})


def _panel(axes: Axes, metric: str, rows: Sequence[Row], highlight: str, slots: int) -> None:
    """Draw one metric's bars, sorted by value, best on top."""
    rows = sorted(rows, key=_sort_value, reverse=True)  # stable: ties keep the row order
    finite = [row for row in rows if not math.isnan(row.value)]
    x_max = max((max(row.value, row.high) for row in finite), default=0.0) or 1.0
    name, _, k = metric.partition("@")
    axes.set_title(_NAMES.get(name, name) + (f"@{k}" if k else ""), loc="left", size=11, weight="bold", pad=6)
    for index, row in enumerate(rows):
        is_highlighted = row.method == highlight
        weight = "bold" if is_highlighted else "normal"
        if math.isnan(row.value):
            axes.text(0.025 * x_max, index, "n/a", size=9, color=_QUIET, va="center_baseline")
            continue
        axes.barh(index, row.value, height=0.62, color=_HIGHLIGHT if is_highlighted else _OTHER, linewidth=0)
        # A white line under the dark one keeps the whisker legible over the bar.
        axes.plot([row.low, row.high], [index, index], color="white", linewidth=3.0, solid_capstyle="butt", zorder=3)
        axes.plot([row.low, row.high], [index, index], color=_INK, linewidth=1.2, solid_capstyle="butt", zorder=4)
        axes.text(
            max(row.value, row.high) + 0.025 * x_max,
            index,
            f"{row.value:.3f}",
            size=9,
            weight=weight,
            va="center_baseline",
        )
    axes.set_yticks(range(len(rows)), [row.method for row in rows], size=9.5)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set(color=_INK, weight="bold" if row.method == highlight else "normal")
    axes.set(xlim=(0, 1.2 * x_max), ylim=(slots - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0, pad=5)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set(color=_QUIET, linewidth=0.8, bounds=(-0.5, len(rows) - 0.5))


@dataclass(frozen=True, slots=True)
class _Cell:
    """A value with its interval; in a narrow terminal the interval wraps below or is dropped, never truncated."""

    value: Text
    interval: Text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.interval.cell_len, self.value.cell_len + 1 + self.interval.cell_len)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        measurement = self.__rich_measure__(console, options)
        if options.max_width < measurement.minimum:
            yield self.value
        else:
            yield Text(" " if options.max_width >= measurement.maximum else "\n").join((self.value, self.interval))


def _cell(row: Row | None, best: bool) -> Text | _Cell:
    if row is None:
        return Text("–", style="dim")
    if math.isnan(row.value):
        return Text("n/a", style="dim")
    value = Text(f"{row.value:.3f}", style="bold" if best else "")
    return _Cell(value, Text(f"[{row.low:.3f}, {row.high:.3f}]", style="dim"))


def _sort_value(row: Row) -> float:
    return -math.inf if math.isnan(row.value) else row.value


def _group_count_text(rows: Sequence[Row]) -> str:
    counts = sorted({row.groups for row in rows})
    if len(counts) > 1:
        return f"{counts[0]:,}–{counts[-1]:,} groups"
    return f"{counts[0]:,} group{'' if counts[0] == 1 else 's'}"


def _nan_if_none(value: Any) -> Any:
    return math.nan if value is None else value


def _rows_by_key(rows: Sequence[Row]) -> dict[tuple[str, str, str], Row]:
    cells: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.dataset, row.method, row.metric
        if key in cells:
            raise ValueError(f"{row.metric} of {row.method} on {row.dataset} comes twice; list each value once")
        cells[key] = row
    return cells


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
