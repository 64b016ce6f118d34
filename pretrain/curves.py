"""Figures by step in, an SVG of their curves out: as large as a phone is wide, coloured by the page's style sheet, without scripts.

However long the run, a curve has at most MAX_BUCKETS points; the band behind it spans from the least to the largest of what they
stand for.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple

import numpy as np

from pretrain.axes import BOTTOM, HEIGHT, TOP, WIDTH, Axes, choose_axes, grid
from tokenizer.printable import printable

SMOOTHED_SHARE = 40
"""A smoothed point is the mean over this part of the records on either side."""
FEW = 8
"""Records that are not smoothed."""
MOST_NAMED, MOST_FULL = 5, 30
"""Marks whose words a tooltip has room for; marks of a kind that are lines from top to bottom."""

STYLE = """
:root{--c1:#2a6fc9;--c2:#b4540a;--c3:#1c7a36;--restart:#6a45c4;--rollback:#c22f20;--skipped:#b07800;--warning:#77766f}
@media (prefers-color-scheme:dark){:root{--c1:#6aa7f2;--c2:#f5a35a;--c3:#74cf8c;--restart:#b39af2;--rollback:#f08a7e;
--skipped:#e0b040;--warning:#a5a49c}}
svg text{font-size:13px}svg polyline{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.c1{--ink:var(--c1)}.c2{--ink:var(--c2)}.c3{--ink:var(--c3)}.level{--ink:var(--soft)}
svg polyline{stroke:var(--ink)}svg circle{fill:var(--ink)}svg polygon{fill:var(--ink);fill-opacity:.2}
svg polyline.raw{stroke-width:1;stroke-opacity:.4}svg polyline.level{stroke-dasharray:6 4;stroke-width:1.4}
svg line.axis{stroke:var(--soft)}
svg line.restart{stroke:var(--restart);stroke-dasharray:4 3}svg line.rollback{stroke:var(--rollback)}
svg line.skipped{stroke:var(--skipped);stroke-dasharray:1.5 3}svg line.warning{stroke:var(--warning);stroke-dasharray:8 3 1.5 3}
.key{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.82rem;color:var(--soft);margin:0 0 .3rem}
.key i{display:inline-block;width:1.1em;margin-right:.35em;vertical-align:.25em;border-top:2.5px solid var(--ink)}
.key i.level{border-top-style:dashed}
.key i.restart{border-top:2px dashed var(--restart)}.key i.rollback{border-top:2px solid var(--rollback)}
.key i.skipped{border-top:2px dotted var(--skipped)}.key i.warning{border-top:2px dashed var(--warning)}
"""


class Line(NamedTuple):
    label: str
    kind: Literal["smoothed", "plain", "points", "level"]
    """smoothed: over the faint values themselves; points: marked one by one where they are few; level: dashed."""
    steps: np.ndarray
    """int64, rising."""
    values: np.ndarray
    """float64; what is no finite number is not drawn."""


class Buckets(NamedTuple):
    """What falls into each interval of steps that holds anything."""

    index: np.ndarray
    steps: np.ndarray
    """Mean."""
    first: np.ndarray
    last: np.ndarray
    """Steps."""
    mean: np.ndarray
    least: np.ndarray
    most: np.ndarray


def draw_curves(
    name: str,
    unit: str,
    lines: Sequence[Line],
    marks: Sequence[tuple[int, str, str]],
    edges: np.ndarray,
    *,
    log: bool = False,
    from_zero: bool = False,
) -> str:
    """A key and an SVG; empty where no line has a finite value. The first line is c1 of the style sheet, and so on.

    marks: (step, kind, words), drawn as vertical lines; of those that would touch, the first gives the line its look.
    edges: from `pretrain.axes.step_edges`. log: values that are not above 0 are left out.
    """
    lines = [usable(line, log=log) for line in lines]
    styles = [("level" if line.kind == "level" else f"c{number}", line) for number, line in enumerate(lines, 1) if len(line.steps)]
    if all(line.kind == "level" for _, line in styles):
        return ""
    axes = choose_axes([line.values for _, line in styles], edges, log=log, from_zero=from_zero)
    drawn = [(style, line, bucketed(line.steps, line.values, edges)) for style, line in styles]
    places = gather_marks(marks, axes)
    identity = "-".join(name.lower().split())
    description = "; ".join(describe(line) for _, line in styles)
    shapes = [part for style, line, buckets in reversed(drawn) for part in draw_line(style, line, buckets, edges, axes)]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-name {identity}-words">',
        f'<title id="{identity}-name">{escape(f"{name} by step")}</title>',
        f'<desc id="{identity}-words">{escape(f"{unit}. {description}." if unit else f"{description}.")}</desc>',
        *grid(axes, unit),
        *mark_lines(places, axes),
        *shapes,
        *hover_columns([(line, buckets) for _, line, buckets in drawn if line.kind != "level"], edges, axes),
        *mark_columns(places, axes),
        "</svg>",
    ]
    key = "".join(f'<span><i class="{style}"></i>{escape(line.label)}</span>' for style, line in styles)
    return f'<p class="key">{key}</p>' + "".join(parts)


def usable(line: Line, *, log: bool) -> Line:
    """Without the values that cannot be drawn."""
    good = np.isfinite(line.values) & (line.values > 0 if log else True)
    return line._replace(steps=line.steps[good], values=line.values[good])


def bucketed(steps: np.ndarray, values: np.ndarray, edges: np.ndarray) -> Buckets:
    """edges: float64 [buckets + 1]; the last one belongs to the last bucket."""
    places = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, len(edges) - 2)
    index, starts, counts = np.unique(places, return_index=True, return_counts=True)
    mean_step, mean = (np.add.reduceat(each.astype(np.float64), starts) / counts for each in (steps, values))
    first, last = steps[starts], steps[starts + counts - 1]
    return Buckets(index, mean_step, first, last, mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over a window around each value, float64; at both ends over what there is of it."""
    half = len(values) // SMOOTHED_SHARE + (len(values) > FEW)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    begin, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[end] - sums[begin]) / (end - begin)


def draw_line(style: str, line: Line, buckets: Buckets, edges: np.ndarray, axes: Axes) -> Iterable[str]:
    if line.kind == "level":
        ends = np.array([axes.first, axes.last])
        yield polyline(style, axes.x(ends), axes.y(np.full(2, line.values[-1])))
        return
    x = axes.x(buckets.steps)
    means = buckets.mean
    if line.kind == "smoothed":
        if len(line.steps) > len(buckets.index):
            band = [*zip(x, axes.y(buckets.most), strict=True), *reversed([*zip(x, axes.y(buckets.least), strict=True)])]
            yield f'<polygon class="{style}" points="{points(band)}"/>'
        else:
            yield polyline(f"{style} raw", x, axes.y(means))
        means = bucketed(line.steps, smoothed(line.values), edges).mean
    y = axes.y(means)
    yield polyline(style, x, y)
    if len(x) == 1 or (line.kind == "points" and len(line.steps) <= 40):
        yield "".join(f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in zip(x, y, strict=True))


def polyline(style: str, x: np.ndarray, y: np.ndarray) -> str:
    return f'<polyline class="{style}" points="{points(zip(x, y, strict=True))}"/>'


def points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def hover_columns(drawn: Sequence[tuple[Line, Buckets]], edges: np.ndarray, axes: Axes) -> Iterable[str]:
    """Over each interval with figures, a transparent column whose tooltip tells them."""
    words: dict[int, list[str]] = {}
    spans: dict[int, list[int]] = {}
    for line, buckets in drawn:
        rows = zip(*(each.tolist() for each in buckets), strict=True)
        for index, _, first, last, mean, least, most in rows:
            spread = f" ({least:.4g} to {most:.4g})" if most > least else ""
            words.setdefault(index, []).append(f"{line.label} {mean:.4g}{spread}")
            spans.setdefault(index, []).extend((first, last))
    for index, lines in sorted(words.items()):
        left, right = axes.x(edges[index]), axes.x(edges[index + 1])
        first, last = min(spans[index]), max(spans[index])
        steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        shape = f'x="{left:.1f}" width="{right - left:.1f}" y="{TOP}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="hover" {shape}><title>{escape(steps + ": " + ", ".join(lines))}</title></rect>'


def gather_marks(marks: Sequence[tuple[int, str, str]], axes: Axes) -> list[list[tuple[int, str, str]]]:
    """Those that would touch together."""
    places: dict[int, list[tuple[int, str, str]]] = {}
    for mark in marks:
        if axes.first <= mark[0] <= axes.last:
            places.setdefault(round(axes.x(mark[0]) / 3), []).append(mark)
    return list(places.values())


def mark_lines(places: Sequence[list[tuple[int, str, str]]], axes: Axes) -> Iterable[str]:
    """A line for each place; short ones of a kind that would hide the curves."""
    counts = Counter(found[0][1] for found in places)
    for (step, kind, _), *_ in places:
        x, end = axes.x(step), HEIGHT - BOTTOM if counts[kind] <= MOST_FULL else TOP + 12
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{end}"/>'


def mark_columns(places: Sequence[list[tuple[int, str, str]]], axes: Axes) -> Iterable[str]:
    """A transparent column for each place, whose tooltip has the words of its marks."""
    for found in places:
        lines = [f"step {step:,}, {kind}: {printable(words)}" for step, kind, words in found[:MOST_NAMED]]
        lines += [f"and {len(found) - MOST_NAMED:,} more"] if len(found) > MOST_NAMED else []
        shape = f'x="{axes.x(found[0][0]) - 3:.1f}" width="6" y="{TOP}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="hover" {shape}><title>{escape(chr(10).join(lines))}</title></rect>'


def describe(line: Line) -> str:
    """For whoever hears the page."""
    if line.kind == "level":
        return f"{line.label} {line.values[-1]:.4g}"
    first, last = (f"{line.values[place]:.4g} at step {line.steps[place]:,}" for place in (0, -1))
    return f"{line.label} from {first} to {last}, between {line.values.min():.4g} and {line.values.max():.4g}"
