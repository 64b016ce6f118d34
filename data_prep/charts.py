"""Counts in, drawings out: an SVG histogram and horizontal bars, coloured by the page's style sheet, without scripts."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 210, 46, 24, 8
"""Of a histogram, in SVG units: about the pixels of a phone, so that its letters stay readable there."""

MAX_BARS, MAX_LABELS = 64, 12


def histogram(counts: np.ndarray, unit: str, things: str, first: int = 0) -> str:
    """An SVG of the share of things by value, from `first` on; long ranges are binned so that the last bar ends at the last value.

    counts: integers, indexed by value. unit: of the values; things: what was counted; both for the tooltips.
    """
    last, total = len(counts) - 1, max(1, int(counts.sum()))
    bin_size = math.ceil((last + 1 - first) / MAX_BARS)
    ends = range(last, first - 1, -bin_size)
    bins = [(max(first, end - bin_size + 1), end) for end in reversed(ends)]
    sums = [int(counts[low : high + 1].sum()) for low, high in bins]
    ticks = nice_ticks(max(sums) / total * 100)
    x_scale, y_scale = (WIDTH - LEFT) / (last + 1 - first), (HEIGHT - TOP - BOTTOM) / max(ticks[-1], 1e-9)
    base = HEIGHT - BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"histogram of {things} by {unit}")}">']
    for tick in ticks:
        y = base - tick * y_scale
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    for (low, high), number in zip(bins, sums, strict=True):
        x, width, height = LEFT + (low - first) * x_scale, (high - low + 1) * x_scale, number / total * 100 * y_scale
        values = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        title = f"<title>{escape(f'{values} {unit}: {number:,} {things} ({number / total:.2%})')}</title>"
        gap = min(2, width / 4)
        shape = f'x="{x + gap / 2:.2f}" width="{width - gap:.2f}"'
        if number:
            parts.append(f'<rect class="bar" {shape} y="{base - height:.2f}" height="{height:.2f}"/>')
        parts.append(f'<rect class="hover" {shape} y="{TOP}" height="{base - TOP}">{title}</rect>')
    for value in range(first, last + 1) if last - first < MAX_LABELS else map(int, nice_ticks(last)):
        if first <= value <= last:
            x = min(LEFT + (value - first + 0.5) * x_scale, WIDTH - 12)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{value:,}</text>')
    return "".join([*parts, "</svg>"])


def nice_ticks(top: float) -> list[float]:
    """0 and up to five multiples of 1, 2 or 5 times a power of ten, the last of them at or above `top`."""
    if top <= 0:
        return [0, 1]
    power = 10 ** math.floor(math.log10(top / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= top)
    return [round(step * number, 10) for number in range(math.ceil(top / step - 1e-9) + 1)]


def bars(rows: Sequence[tuple[str, int]], total: int, longest: int = 0) -> str:
    """Horizontal bars with label, number and share, as HTML. total: 100 %. longest: the number of a full bar; default: the most."""
    longest = longest or max([1, *(number for _, number in rows)])
    lines = []
    for label, number in rows:
        bar = f'<i style="width:{100 * number / longest:.1f}%"></i>' if number else ""
        lines.append(f"<dt>{escape(label)}</dt><dd>{bar}</dd><dd>{number:,} <small>{number / max(1, total):.1%}</small></dd>")
    return f'<dl class="bars">{"".join(lines)}</dl>'
