"""Pictures of an experiment as SVG: lifts by day with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDE, _TALL, _LEFT, _TOP = 380, 180, 58, 12
_BLUE, _ORANGE, _GREY, _INK = "#0072b2", "#d55e00", "#9aa5b1", "#52606d"
_LEAST = 0.002
"""Half of the height at least, so that equal arms are not drawn as a mountain."""
Column = Sequence[float | None]


def sequence_plot(
    title: str, day: Sequence[int], value: Column, low: Column, high: Column, fixed: tuple[Column, Column] | None,
    said: str = "relative lift by day, all rows until then",
) -> str:  # fmt: skip
    """The always-valid interval as a band, the estimate as a line, and the t-test's interval of each look dashed.

    fixed: None: without it. said: what is shown.
    """
    frame = _Frame(day, [low, high, value])
    parts = [frame.area(low, high), frame.zero()]
    parts += [frame.line(one, _ORANGE, "4 3", 1.2) for one in fixed or ()]
    parts += [frame.line(value, _BLUE, "", 2.2), frame.axes("day")]
    keys = [("estimate", _BLUE, ""), ("holds at every look", "#b3d4e8", "")]
    keys += [("at one look only", _ORANGE, "4 3")] if fixed else []
    return _figure(title, said, frame, parts, keys)


def day_plot(title: str, day: Sequence[int], value: Column, low: Column, high: Column) -> str:
    """Each day's lift as a dot with its interval."""
    frame = _Frame(day, [low, high, value])
    parts = [frame.zero(), *frame.whiskers(value, low, high), frame.axes("day")]
    return _figure(title, "relative lift of each day alone", frame, parts, ())


class _Frame:
    """Where days and lifts stand in the picture."""

    __slots__ = ("_day", "_high", "_low", "_step")

    def __init__(self, day: Sequence[int], columns: Sequence[Column]) -> None:
        known = [one for column in columns for one in column if one is not None]
        # One wide first interval must not flatten all that follows: the middle nine tenths of the numbers decide.
        known.sort()
        cut = len(known) // 20
        low, high = min([0.0, *known[cut:]]), max([0.0, *known[: len(known) - cut]])
        self._step = _nice(max(high - low, 2 * _LEAST) / 4)
        self._low = math.floor(low / self._step) * self._step
        self._high = max(math.ceil(high / self._step), round(self._low / self._step) + 1) * self._step
        self._day = list(day)

    def x(self, place: int) -> float:
        return _LEFT + (place + 0.5) / max(len(self._day), 1) * _WIDE

    def y(self, value: float) -> float:
        return _TOP + (self._high - min(max(value, self._low), self._high)) / (self._high - self._low) * _TALL

    def points(self, column: Column) -> list[tuple[float, float]]:
        return [(self.x(n), self.y(one)) for n, one in enumerate(column) if one is not None]

    def line(self, column: Column, colour: str, dash: str, width: float) -> str:
        made = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points(column))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}"{dashed} points="{made}"/>'

    def area(self, low: Column, high: Column) -> str:
        both = self.points(low) + self.points(high)[::-1]
        made = " ".join(f"{x:.1f},{y:.1f}" for x, y in both)
        return f'<polygon fill="{_BLUE}" fill-opacity="0.22" points="{made}"/>'

    def zero(self) -> str:
        y = self.y(0.0)
        return f'<line x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_INK}"/>'

    def whiskers(self, value: Column, low: Column, high: Column) -> list[str]:
        made = []
        for n, (middle, bottom, top) in enumerate(zip(value, low, high, strict=True)):
            if middle is None:
                continue
            x = self.x(n)
            if bottom is not None and top is not None:
                made.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(top):.1f}" y2="{self.y(bottom):.1f}" '
                    f'stroke="{_BLUE}" stroke-width="2" stroke-opacity="0.45"/>'
                )
            made.append(f'<circle cx="{x:.1f}" cy="{self.y(middle):.1f}" r="3.5" fill="{_BLUE}"/>')
        return made

    def axes(self, across: str) -> str:
        made = []
        for n in range(round((self._high - self._low) / self._step) + 1):
            value = self._low + n * self._step
            y = self.y(value)
            ends = f'x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y:.1f}" y2="{y:.1f}"'
            made.append(f'<line {ends} stroke="{_GREY}" stroke-opacity="0.3"/>')
            label = f"{value:+.{0 if self._step >= 0.0099 else 1}%}" if abs(value) > 1e-9 else "0"
            made.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{label}</text>')
        every = max(1, math.ceil(len(self._day) / 14))
        for n, day in enumerate(self._day):
            if n % every == 0:
                x, y = self.x(n), _TOP + _TALL + 17
                made.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="{_INK}">{day + 1}</text>')
        made.append(
            f'<text x="{_LEFT + _WIDE}" y="{_TOP + _TALL + 33}" text-anchor="end" fill="{_INK}">{escape(across)}</text>'
        )
        return "".join(made)


def _figure(title: str, said: str, frame: _Frame, parts: Sequence[str], keys: Sequence[tuple[str, str, str]]) -> str:
    size = f'viewBox="0 0 {_LEFT + _WIDE + 8} {_TOP + _TALL + 40}" width="{_LEFT + _WIDE + 8}" font-size="12"'
    legend = "".join(
        f'<svg width="26" height="10" aria-hidden="true"><line x1="2" x2="22" y1="6" y2="6" stroke="{colour}" '
        f'stroke-width="{8 if colour == "#b3d4e8" else 2}" stroke-dasharray="{dash}"/></svg>{escape(name)} &nbsp; '
        for name, colour, dash in keys
    )
    label = escape(f"{title}: {said}", quote=True)
    picture = f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'
    caption = f'<figcaption class="quiet">{escape(said)}<br>{legend}</figcaption>'
    return f"<figure><h3>{escape(title)}</h3>{picture}{caption}</figure>"


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= step * (1 - 1e-9))
