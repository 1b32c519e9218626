"""Draws lifts by day with their intervals as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN_LEFT, _MARGIN_TOP = 380, 180, 58, 12
_BLUE, _ORANGE, _GREY, _INK = "#0072b2", "#d55e00", "#9aa5b1", "#52606d"
_MIN_HALF_RANGE = 0.002
"""The y axis covers at least twice this lift, so that small noise between equal arms looks small."""
OptionalFloats = Sequence[float | None]


def confidence_sequence_plot(
    title: str,
    day: Sequence[int],
    value: OptionalFloats,
    low: OptionalFloats,
    high: OptionalFloats,
    fixed_horizon: tuple[OptionalFloats, OptionalFloats] | None,
    caption: str = "relative lift by day, cumulative",
) -> str:
    """Draw a confidence sequence as a band, the estimate as a line, and the t-test's interval of each look dashed.

    fixed_horizon: low and high of the t-test; None: leave it out.
    """
    frame = _PlotArea(day, [low, high, value])
    parts = [frame.area(low, high), frame.zero_line()]
    parts += [frame.line(bound, _ORANGE, "4 3", 1.2) for bound in fixed_horizon or ()]
    parts += [frame.line(value, _BLUE, "", 2.2), frame.axes("day")]
    legend = [("estimate", _BLUE, ""), ("always-valid interval", "#b3d4e8", "")]
    legend += [("fixed-horizon interval", _ORANGE, "4 3")] if fixed_horizon else []
    return _figure(title, caption, frame, parts, legend)


def daily_lift_plot(
    title: str, day: Sequence[int], value: OptionalFloats, low: OptionalFloats, high: OptionalFloats
) -> str:
    """Draw each day's lift as a dot with its interval."""
    frame = _PlotArea(day, [low, high, value])
    parts = [frame.zero_line(), *frame.whiskers(value, low, high), frame.axes("day")]
    return _figure(title, "relative lift of each day alone", frame, parts, ())


class _PlotArea:
    """Maps days and lifts to pixel coordinates, and draws the parts of a plot."""

    __slots__ = ("_day", "_high", "_low", "_step")

    def __init__(self, day: Sequence[int], columns: Sequence[OptionalFloats]) -> None:
        values = [value for column in columns for value in column if value is not None]
        # A wide first interval must not flatten the rest, so the middle nine tenths of the values set the range.
        values.sort()
        cut = len(values) // 20
        low, high = min([0.0, *values[cut:]]), max([0.0, *values[: len(values) - cut]])
        self._step = _round_step(max(high - low, 2 * _MIN_HALF_RANGE) / 4)
        self._low = math.floor(low / self._step) * self._step
        self._high = max(math.ceil(high / self._step), round(self._low / self._step) + 1) * self._step
        self._day = list(day)

    def x(self, index: int) -> float:
        return _MARGIN_LEFT + (index + 0.5) / max(len(self._day), 1) * _PLOT_WIDTH

    def y(self, value: float) -> float:
        return (
            _MARGIN_TOP
            + (self._high - min(max(value, self._low), self._high)) / (self._high - self._low) * _PLOT_HEIGHT
        )

    def points(self, column: OptionalFloats) -> list[tuple[float, float]]:
        return [(self.x(n), self.y(value)) for n, value in enumerate(column) if value is not None]

    def line(self, column: OptionalFloats, colour: str, dash: str, width: float) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points(column))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}"{dashed} points="{points}"/>'

    def area(self, low: OptionalFloats, high: OptionalFloats) -> str:
        both = self.points(low) + self.points(high)[::-1]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in both)
        return f'<polygon fill="{_BLUE}" fill-opacity="0.22" points="{points}"/>'

    def zero_line(self) -> str:
        y = self.y(0.0)
        return (
            f'<line x1="{_MARGIN_LEFT}" x2="{_MARGIN_LEFT + _PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_INK}"/>'
        )

    def whiskers(self, value: OptionalFloats, low: OptionalFloats, high: OptionalFloats) -> list[str]:
        parts = []
        for n, (middle, bottom, top) in enumerate(zip(value, low, high, strict=True)):
            if middle is None:
                continue
            x = self.x(n)
            if bottom is not None and top is not None:
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(top):.1f}" y2="{self.y(bottom):.1f}" '
                    f'stroke="{_BLUE}" stroke-width="2" stroke-opacity="0.45"/>'
                )
            parts.append(f'<circle cx="{x:.1f}" cy="{self.y(middle):.1f}" r="3.5" fill="{_BLUE}"/>')
        return parts

    def axes(self, x_label: str) -> str:
        parts = []
        for n in range(round((self._high - self._low) / self._step) + 1):
            value = self._low + n * self._step
            y = self.y(value)
            ends = f'x1="{_MARGIN_LEFT}" x2="{_MARGIN_LEFT + _PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {ends} stroke="{_GREY}" stroke-opacity="0.3"/>')
            label = f"{value:+.{0 if self._step >= 0.0099 else 1}%}" if abs(value) > 1e-9 else "0"
            parts.append(f'<text x="{_MARGIN_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{label}</text>')
        every = max(1, math.ceil(len(self._day) / 14))
        for n, day in enumerate(self._day):
            if n % every == 0:
                x, y = self.x(n), _MARGIN_TOP + _PLOT_HEIGHT + 17
                parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="{_INK}">{day + 1}</text>')
        parts.append(
            f'<text x="{_MARGIN_LEFT + _PLOT_WIDTH}" y="{_MARGIN_TOP + _PLOT_HEIGHT + 33}" text-anchor="end" '
            f'fill="{_INK}">{escape(x_label)}</text>'
        )
        return "".join(parts)


def _figure(
    title: str, caption: str, frame: _PlotArea, parts: Sequence[str], legend_entries: Sequence[tuple[str, str, str]]
) -> str:
    width, height = _MARGIN_LEFT + _PLOT_WIDTH + 8, _MARGIN_TOP + _PLOT_HEIGHT + 40
    size = f'viewBox="0 0 {width} {height}" width="{width}" font-size="12"'
    legend = "".join(
        f'<svg width="26" height="10" aria-hidden="true"><line x1="2" x2="22" y1="6" y2="6" stroke="{colour}" '
        f'stroke-width="{8 if colour == "#b3d4e8" else 2}" stroke-dasharray="{dash}"/></svg>{escape(name)} &nbsp; '
        for name, colour, dash in legend_entries
    )
    label = escape(f"{title}: {caption}", quote=True)
    picture = f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'
    figcaption = f'<figcaption class="quiet">{escape(caption)}<br>{legend}</figcaption>'
    return f"<figure><h3>{escape(title)}</h3>{picture}{figcaption}</figure>"


def _round_step(step: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))
