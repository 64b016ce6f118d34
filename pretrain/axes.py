"""Steps and values in, places in a drawing out; round ticks with short labels, linear or logarithmic."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from data_prep.charts import nice_ticks

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 420, 230, 50, 18, 34, 8
"""Of a drawing and its margins, in SVG units."""
MAX_BUCKETS = 200
"""Intervals of steps that a drawing has room for."""


class Axes(NamedTuple):
    """Steps and values to SVG units."""

    first: float
    last: float
    low: float
    high: float
    log: bool

    def x(self, steps: np.ndarray | float) -> np.ndarray | float:
        return LEFT + (steps - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, values: np.ndarray | float) -> np.ndarray | float:
        low, high, value = (np.log10(v) if self.log else v for v in (self.low, self.high, values))
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def step_edges(steps: np.ndarray) -> np.ndarray:
    """float64 [intervals + 1], for all drawings of a run: an interval for each of these steps if they are few and evenly spaced."""
    first, last = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 0.0)
    if first == last:
        return np.array([first - 1, first + 1])
    return np.linspace(first, last, min(MAX_BUCKETS, len(np.unique(steps))) + 1)


def choose_axes(values: Sequence[np.ndarray], edges: np.ndarray, *, log: bool, from_zero: bool) -> Axes:
    first, last = float(edges[0]), float(edges[-1])
    low, high = min(float(each.min()) for each in values), max(float(each.max()) for each in values)
    if log:
        margin = max((high / low) ** 0.05, 1.1)
        return Axes(first, last, low / margin, high * margin, log)
    margin = max(0.05 * (high - low), 0.01 * abs(high)) or 1.0
    return Axes(first, last, min(0.0, low) if from_zero else low - margin, high + margin, log)


def grid(axes: Axes, unit: str) -> Iterable[str]:
    """Lines and labels at round values and steps."""
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for tick in log_ticks(axes.low, axes.high) if axes.log else ticks_between(axes.low, axes.high):
        y = axes.y(tick)
        yield f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>'
    for tick in ticks_between(axes.first, axes.last):
        if tick == round(tick):
            x = axes.x(tick)
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
            yield f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{short(tick)}</text>'
    yield f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">step</text>'
    if unit:
        yield f'<text x="4" y="{HEIGHT - 4}">{escape(unit)}</text>'


def ticks_between(low: float, high: float) -> list[float]:
    """Round values from low to high, up to six."""
    step = nice_ticks(high - low)[1]
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from low to high, fewer where they are many; where they are few, 2 and 5 times them too, or as without logs."""
    begin, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if end - begin <= 2 else (1,)
    ticks = [factor * 10.0**power for power in range(begin, end + 1, max(1, (end - begin) // 5)) for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else [tick for tick in ticks_between(low, high) if tick > 0]


def short(value: float) -> str:
    """A tick's label."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    if value and abs(value) < 1e-3:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
