"""Where the marks of a drawing go, in units of its own box. The templates draw them; nothing here is text for readers.

Coordinates are rounded to a tenth, so that the same run gives the same bytes everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.document.tables import Bin, Confusion

WIDTH, HEIGHT = 360.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 34.0
MOST_CLASSES_IN_MAP = 120
CELL, LABEL_CHARACTERS = 10.0, 44


@dataclass(frozen=True)
class Tick:
    """A place on an axis and the value there."""

    at: float
    value: float


@dataclass(frozen=True)
class Mark:
    """A drawn point: its place, its radius, and which of the data it stands for."""

    x: float
    y: float
    radius: float
    index: int


@dataclass(frozen=True)
class Plot:
    """A drawing with two axes: a line through all points, and marks on some of them."""

    line: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    diagonal: str = ""
    bars: tuple[tuple[float, float, float, float], ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class MapCell:
    """A cell of the confusion map: its place, its strength between 0 and 1, and the rows behind it."""

    x: float
    y: float
    strength: float
    right: bool
    confusion: Confusion


@dataclass(frozen=True)
class ConfusionMap:
    """A grid of classes: rows are true, columns predicted; `room` is left for the names beside and above it."""

    labels: tuple[str, ...]
    cells: tuple[MapCell, ...]
    size: float
    room: float
    cell: float = CELL


@dataclass(frozen=True)
class Span:
    """A value with its interval on a common axis, in percent of the width; `low` and `high` are None without one."""

    at: float
    low: float | None
    high: float | None


def line_plot(points: Sequence[tuple[float, float]], marked: Sequence[int] = (), zero: bool = False) -> Plot:
    """A curve over steps; `marked` are indices of points to emphasise, `zero` makes the y axis begin at 0."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_range = (0.0, max(xs))
    y_range = _padded(0.0 if zero else min(ys), max(ys), zero)
    places = [(_x(x, x_range), _y(y, y_range)) for x, y in points]
    return Plot(
        line=" ".join(f"{x},{y}" for x, y in places),
        marks=tuple(Mark(places[i][0], places[i][1], 4.5, i) for i in marked),
        x_ticks=tuple(Tick(_x(v, x_range), v) for v in ticks(*x_range, 5)),
        y_ticks=tuple(Tick(_y(v, y_range), v) for v in ticks(*y_range, 5)),
    )


def rate_plot(points: Sequence[tuple[float, float]]) -> Plot:
    """A curve over rates that grow by a constant factor: the x axis is a logarithm, with ticks at powers of ten."""
    x_range = (math.log10(points[0][0]), math.log10(points[-1][0]))
    y_range = _padded(min(y for _, y in points), max(y for _, y in points), False)
    places = [(_x(math.log10(x), x_range), _y(y, y_range)) for x, y in points]
    powers = range(math.ceil(x_range[0] - 1e-9), math.floor(x_range[1] + 1e-9) + 1)
    return Plot(
        line=" ".join(f"{x},{y}" for x, y in places),
        marks=(),
        x_ticks=tuple(Tick(_x(k, x_range), 10.0**k) for k in powers),
        y_ticks=tuple(Tick(_y(v, y_range), v) for v in ticks(*y_range, 5)),
    )


def calibration_plot(bins: Sequence[Bin]) -> Plot:
    """Mean confidence against how often it was right; the area of a mark follows its number of rows."""
    unit = (0.0, 1.0)
    most = max(b.n for b in bins)
    marks = tuple(Mark(_x(b.confidence, unit), _y(b.right, unit), _r(2.5 + 7.5 * math.sqrt(b.n / most)), i) for i, b in enumerate(bins))
    return Plot(
        line=" ".join(f"{m.x},{m.y}" for m in marks),
        marks=marks,
        x_ticks=tuple(Tick(_x(v, unit), v) for v in ticks(*unit, 5)),
        y_ticks=tuple(Tick(_y(v, unit), v) for v in ticks(*unit, 5)),
        diagonal=f"{_x(0, unit)},{_y(0, unit)} {_x(1, unit)},{_y(1, unit)}",
    )


def scatter_plot(points: Sequence[tuple[float, float]]) -> Plot:
    """Predicted against true numbers on equal axes, with the line on which they are the same."""
    values = [value for point in points for value in point]
    unit = _padded(min(values), max(values), False)
    at = tuple(Tick(_x(v, unit), v) for v in ticks(*unit, 5))
    return Plot(
        line="",
        marks=tuple(Mark(_x(x, unit), _y(y, unit), 2.0, i) for i, (x, y) in enumerate(points)),
        x_ticks=at,
        y_ticks=tuple(Tick(_y(v, unit), v) for v in ticks(*unit, 5)),
        diagonal=f"{_x(unit[0], unit)},{_y(unit[0], unit)} {_x(unit[1], unit)},{_y(unit[1], unit)}",
    )


def silhouette(counts: Sequence[int]) -> Plot:
    """Rows of every class as bars, the largest class first."""
    ordered = sorted(counts, reverse=True)
    height = (0.0, float(ordered[0]) or 1.0)
    step = (WIDTH - LEFT - RIGHT) / len(ordered)
    gap = min(2.0, step * 0.2)
    floor = HEIGHT - BOTTOM
    bars = tuple((_r(LEFT + i * step), _y(n, height), _r(step - gap), _r(floor - _y(n, height))) for i, n in enumerate(ordered))
    y_ticks = tuple(Tick(_y(v, height), v) for v in ticks(*height, 5))
    return Plot(line="", marks=(), x_ticks=(), y_ticks=y_ticks, bars=bars)


def confusion_map(confusions: Sequence[Confusion], labels: Sequence[str]) -> ConfusionMap:
    """All classes, or those of the most frequent confusions when there are too many to draw."""
    shown = list(labels)
    if len(shown) > MOST_CLASSES_IN_MAP:
        wrong = [c for c in confusions if c.true != c.predicted]
        pairs = (name for c in wrong for name in (c.true, c.predicted))
        shown = sorted(list(dict.fromkeys(pairs))[:40])
    place = {label: number for number, label in enumerate(shown)}
    cells = tuple(
        MapCell(
            _r(place[c.predicted] * CELL), _r(place[c.true] * CELL), round(0.25 + 0.75 * math.sqrt(c.share), 3), c.true == c.predicted, c
        )
        for c in confusions
        if c.true in place and c.predicted in place
    )
    longest = max((len(label) for label in shown), default=0)
    return ConfusionMap(tuple(shown), cells, _r(len(shown) * CELL), _r(12 + 4.4 * min(longest, LABEL_CHARACTERS)))


def spans(values: Sequence[tuple[float, tuple[float, float] | None]]) -> tuple[list[Span], tuple[float, float]]:
    """Values with intervals on one axis from 0 (or below) to 1 (or above), and the ends of that axis."""
    everything = [v for value, interval in values for v in (value, *(interval or ()))]
    low, high = min(0.0, *everything), max(everything)
    high = 1.0 if high <= 1 else float(ticks(0.0, high * 1.25, 4)[-1])
    low = 0.0 if low >= 0 else -1.0 if low >= -1 else low

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return [Span(place(v), *((place(i[0]), place(i[1])) if i else (None, None))) for v, i in values], (low, high)


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most `count` + 1 round values between two bounds."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(low: float, high: float, zero: bool) -> tuple[float, float]:
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.5
    return (0.0 if zero and low >= 0 else low - room), high + room


def _x(value: float, bounds: tuple[float, float]) -> float:
    return _r(LEFT + (WIDTH - LEFT - RIGHT) * (value - bounds[0]) / ((bounds[1] - bounds[0]) or 1))


def _y(value: float, bounds: tuple[float, float]) -> float:
    return _r(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bounds[0]) / ((bounds[1] - bounds[0]) or 1))


def _r(value: float) -> float:
    return round(float(value), 1)
