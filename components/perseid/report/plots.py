"""The few plots of a report, as SVG that takes its colours from the page.

Drawn here and not by a library, because none does what the page needs at a fitting size: plotly and Vega bring 1 to
4 MB of script into every file, and draw nothing without it; matplotlib's SVG has fixed colours, which one of the page's
two themes would not show, and its dependencies would come into the operator's image; the small ones (pygal, leather)
draw no intervals. All sizes are in units of the drawing, which the page scales down but never up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perseid.evaluation.reliability import Bin
from perseid.report.files import spread

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 38
LABELS_SHOWN, BARS_SHOWN, LINES_SHOWN = 10, 240, 8


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval; `strong` marks what was promoted."""

    label: str
    value: float
    low: float
    high: float
    strong: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A named curve."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From a value to a place in the drawing."""

    first: float
    last: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.last - self.first or 1.0
        return round(self.start + (value - self.first) / span * (self.stop - self.start), 1)


def intervals_plot(marks: Sequence[Mark], *, title: str, across: str) -> Markup:
    """Shares with their intervals, in the order given, for example a score for each generation."""
    low, high = min(one.low for one in marks), max(one.high for one in marks)
    y = _vertical(max(0.0, low - 0.05), min(1.0, high + 0.05))
    x = _Scale(-0.5, len(marks) - 0.5, LEFT, WIDTH - RIGHT)
    parts = [_horizontal_grid(y, _percent)]
    every = math.ceil(len(marks) / LABELS_SHOWN)
    for place, one in enumerate(marks):
        told = f"{one.label}: {_percent(one.value)} [{_percent(one.low)}, {_percent(one.high)}]"
        parts.append(_whisker(x(place), y(one.low), y(one.high), y(one.value), told, strong=one.strong))
        if place % every == 0:
            parts.append(_label(x(place), HEIGHT - 21, one.label))
    return _drawing(title, [*parts, _label((LEFT + WIDTH) / 2, HEIGHT - 4, across, "axis")])


def reliability_plot(bins: Sequence[Bin], *, title: str, across: str) -> Markup:
    """Score against the share of right answers, a dot for each bin, its area by the number of answers."""
    x = _Scale(*_padded(bins[0].mean, bins[-1].mean), LEFT, WIDTH - RIGHT)
    y = _vertical(0.0, 1.0)
    parts = [_horizontal_grid(y, _percent)]
    parts += [_label(x(tick), HEIGHT - 21, f"{tick:g}") for tick in _ticks(x.first, x.last)]
    most = max(one.answers for one in bins)
    for one in bins:
        told = f"scores {one.lowest:.2f} to {one.highest:.2f}: {_percent(one.right_share)} of {one.answers} right"
        low, high = one.interval.low, one.interval.high
        size = 2.5 + 3 * math.sqrt(one.answers / most)
        parts.append(_whisker(x(one.mean), y(low), y(high), y(one.right_share), told, size=size))
    return _drawing(title, [*parts, _label((LEFT + WIDTH) / 2, HEIGHT - 4, across, "axis")])


def lines_plot(lines: Sequence[Line], *, title: str, across: str) -> Markup:
    """Curves over one axis, for example the loss of trainings; at most LINES_SHOWN of them."""
    points = [point for line in lines for point in line.points]
    x = _Scale(*_apart(min(x for x, _ in points), max(x for x, _ in points)), LEFT, WIDTH - RIGHT)
    y = _vertical(*_padded(min(0.0, *(y for _, y in points)), max(y for _, y in points)))
    parts = [_horizontal_grid(y, lambda value: f"{value:g}")]
    parts += [_label(x(tick), HEIGHT - 21, f"{tick:g}") for tick in _ticks(x.first, x.last)]
    for number, line in enumerate(lines[:LINES_SHOWN]):
        path = " ".join(f"{x(across)},{y(up)}" for across, up in line.points)
        parts.append(
            Markup('<g class="line line-{}"><title>{}</title><polyline points="{}"/>{}</g>').format(
                number,
                line.name,
                path,
                Markup("").join(
                    Markup('<circle cx="{}" cy="{}" r="2"/>').format(x(across), y(up))
                    for across, up in (line.points if len(line.points) < 30 else ())
                ),
            )
        )
    return _drawing(title, [*parts, _label((LEFT + WIDTH) / 2, HEIGHT - 4, across, "axis")])


def gains_plot(gains: Sequence[tuple[str, float]], *, title: str) -> Markup:
    """A bar for each problem, up where it gained, down where it lost; at most BARS_SHOWN of them, evenly spaced."""
    shown = spread(gains, BARS_SHOWN)
    y = _vertical(-1.0, 1.0)
    x = _Scale(0, len(shown), LEFT, WIDTH - RIGHT)
    wide = max(0.8, (x.stop - x.start) / len(shown) - (1 if len(shown) < 100 else 0))
    parts = [_horizontal_grid(y, lambda value: f"{100 * value:+.0f}" if value else "0")]
    for place, (name, gain) in enumerate(shown):
        top, bottom = sorted((y(gain), y(0.0)))
        parts.append(
            Markup(
                '<rect class="{}" x="{}" y="{}" width="{:.1f}" height="{:.1f}"><title>{}: {:+.0f} points</title></rect>'
            ).format(
                "up" if gain > 0 else "down" if gain < 0 else "same",
                x(place),
                top,
                wide,
                max(bottom - top, 1.0),
                name,
                100 * gain,
            )
        )
    return _drawing(title, [*parts, _label((LEFT + WIDTH) / 2, HEIGHT - 8, "problems, by gain", "axis")])


def _drawing(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _whisker(
    x: float, low: float, high: float, value: float, told: str, *, strong: bool = True, size: float = 5
) -> Markup:
    """`strong` is drawn filled, and else hollow."""
    return Markup(
        '<g class="mark{}"><title>{}</title><line x1="{x}" x2="{x}" y1="{}" y2="{}"/>'
        '<circle cx="{x}" cy="{}" r="{:.1f}"/></g>'
    ).format("" if strong else " hollow", told, low, high, value, size, x=x)


def _horizontal_grid(y: _Scale, words: Callable[[float], str]) -> Markup:
    lines = (
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/><text class="tick" x="{}" y="{}">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, LEFT - 6, y(tick) + 4, words(tick), y=y(tick))
        for tick in _ticks(y.first, y.last)
    )
    return Markup("").join(lines)


def _label(x: float, y: float, text: str, kind: str = "label") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{}">{}</text>').format(kind, x, y, text)


def _vertical(first: float, last: float) -> _Scale:
    first, last = _apart(first, last)
    return _Scale(first, last, HEIGHT - BOTTOM, TOP)


def _apart(first: float, last: float) -> tuple[float, float]:
    return (first, last) if last > first else (first - 0.5, last + 0.5)


def _padded(first: float, last: float) -> tuple[float, float]:
    first, last = _apart(first, last)
    room = 0.06 * (last - first)
    return first - (room if first else 0.0), last + room


def _ticks(first: float, last: float) -> Iterator[float]:
    """Three to six round numbers from `first` to `last`."""
    rough = (last - first) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    for number in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1):
        yield round(number * step, 10) + 0.0  # no minus zero


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
