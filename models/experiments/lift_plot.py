"""Draws lifts by day with their intervals as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDE, _TALL, _LEFT, _TOP = 380, 180, 58, 12
_BLUE, _ORANGE, _GREY, _INK = "#0072b2", "#d55e00", "#9aa5b1", "#52606d"
_LEAST = 0.002
"""The y axis covers at least twice this lift, so that small noise between equal arms looks small."""
Column = Sequence[float | None]


def sequence_plot(
    title: str, day: Sequence[int], value: Column, low: Column, high: Column, fixed: tuple[Column, Column] | None,
    said: str = "relative lift by day, cumulative",
) -> str:  # fmt: skip
    """Draw a confidence sequence as a band, the estimate as a line, and the t-test's interval of each look dashed.

    fixed_horizon: low and high of the t-test; None: leave it out.
    """
    frame = _Frame(day, [low, high, value])
    parts = [frame.area(low, high), frame.zero()]
    parts += [frame.line(bound, _ORANGE, "4 3", 1.2) for bound in fixed or ()]
    parts += [frame.line(value, _BLUE, "", 2.2), frame.axes("day")]
    legend = [("estimate", _BLUE, ""), ("always-valid interval", "#b3d4e8", "")]
    legend += [("fixed-horizon interval", _ORANGE, "4 3")] if fixed else []
    return _figure(title, said, frame, parts, legend)


def day_plot(title: str, day: Sequence[int], value: Column, low: Column, high: Column) -> str:
    """Draw each day's lift as a dot with its interval."""
    frame = _Frame(day, [low, high, value])
    parts = [frame.zero(), *frame.whiskers(value, low, high), frame.axes("day")]
    return _figure(title, "relative lift of each day alone", frame, parts, ())


class _Frame:
    """Maps days and lifts to pixel coordinates, and draws the parts of a plot."""

    __slots__ = ("_day", "_high", "_low", "_step")

    def __init__(self, day: Sequence[int], columns: Sequence[Column]) -> None:
        values = [value for column in columns for value in column if value is not None]
        # A wide first interval must not flatten the rest, so the middle nine tenths of the values set the range.
        values.sort()
        cut = len(values) // 20
        low, high = min([0.0, *values[cut:]]), max([0.0, *values[: len(values) - cut]])
        self._step = _nice(max(high - low, 2 * _LEAST) / 4)
        self._low = math.floor(low / self._step) * self._step
        self._high = max(math.ceil(high / self._step), round(self._low / self._step) + 1) * self._step
        self._day = list(day)

    def x(self, place: int) -> float:
        return _LEFT + (place + 0.5) / max(len(self._day), 1) * _WIDE

    def y(self, value: float) -> float:
        return _TOP + (self._high - min(max(value, self._low), self._high)) / (self._high - self._low) * _TALL

    def points(self, column: Column) -> list[tuple[float, float]]:
        return [(self.x(n), self.y(value)) for n, value in enumerate(column) if value is not None]

    def line(self, column: Column, colour: str, dash: str, width: float) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points(column))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}"{dashed} points="{points}"/>'

    def area(self, low: Column, high: Column) -> str:
        both = self.points(low) + self.points(high)[::-1]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in both)
        return f'<polygon fill="{_BLUE}" fill-opacity="0.22" points="{points}"/>'

    def zero(self) -> str:
        y = self.y(0.0)
        return f'<line x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_INK}"/>'

    def whiskers(self, value: Column, low: Column, high: Column) -> list[str]:
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

    def axes(self, across: str) -> str:
        parts = []
        for n in range(round((self._high - self._low) / self._step) + 1):
            value = self._low + n * self._step
            y = self.y(value)
            ends = f'x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {ends} stroke="{_GREY}" stroke-opacity="0.3"/>')
            label = f"{value:+.{0 if self._step >= 0.0099 else 1}%}" if abs(value) > 1e-9 else "0"
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{label}</text>')
        every = max(1, math.ceil(len(self._day) / 14))
        for n, day in enumerate(self._day):
            if n % every == 0:
                x, y = self.x(n), _TOP + _TALL + 17
                parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="{_INK}">{day + 1}</text>')
        parts.append(
            f'<text x="{_LEFT + _WIDE}" y="{_TOP + _TALL + 33}" text-anchor="end" fill="{_INK}">{escape(across)}</text>'
        )
        return "".join(parts)


def _figure(title: str, said: str, frame: _Frame, parts: Sequence[str], keys: Sequence[tuple[str, str, str]]) -> str:
    size = f'viewBox="0 0 {_LEFT + _WIDE + 8} {_TOP + _TALL + 40}" width="{_LEFT + _WIDE + 8}" font-size="12"'
    legend = "".join(
        f'<svg width="26" height="10" aria-hidden="true"><line x1="2" x2="22" y1="6" y2="6" stroke="{colour}" '
        f'stroke-width="{8 if colour == "#b3d4e8" else 2}" stroke-dasharray="{dash}"/></svg>{escape(name)} &nbsp; '
        for name, colour, dash in keys
    )
    label = escape(f"{title}: {said}", quote=True)
    picture = f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'
    figcaption = f'<figcaption class="quiet">{escape(said)}<br>{legend}</figcaption>'
    return f"<figure><h3>{escape(title)}</h3>{picture}{figcaption}</figure>"


def _nice(step: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))
