"""What `albert inspect` found in an exported model in, one self-contained HTML page out: fillings of masks, maps of attention.

A map has a row for each piece that attends and a column for each that is attended to. The root of a weight is its shade, in LEVELS
steps, so that even weights over many pieces show, too. A step of a map is one path; the labelled map uses those of the small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.page import card, page, safe
from tokenizer.printable import printable

if TYPE_CHECKING:
    from downstream.inspect_export import Guess, ReadText

LEVELS = 16
LONGEST = 64
"""Pieces of a text whose attention is drawn."""
NUM_NAMED = 3
"""Pieces named in the tooltip of a row: those that it attends to most."""
CELL, LETTER = 12, 6
"""Of a labelled map, in pixels: a cell, and the room for a letter of a label."""
SHOWN = 12
"""Characters of a piece in a label."""

STYLE = """
.attention{margin-top:1.2rem}.bars{max-width:34rem}.overview{border-spacing:.3rem;border-collapse:separate;width:auto}
.overview td,.overview th{border:0;padding:0;text-align:center;font-weight:400;color:var(--soft);font-size:.75rem}
.overview svg{width:3.6rem;height:3.6rem;border:1px solid var(--line);border-radius:.15rem}
.weights{fill:var(--bar)}.map rect.edge{fill:none;stroke:var(--line)}.map .row:hover{fill:var(--text);fill-opacity:.12}
.map .row{fill:transparent}.map text{font-size:9.5px;fill:var(--text)}.map text.side{text-anchor:end}
.maps{display:flex;flex-wrap:wrap;gap:.8rem}.maps figure{margin:0;min-width:0;max-width:100%;overflow-x:auto}
.maps figcaption{font-size:.85rem;color:var(--soft)}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}details summary~*{margin-top:.5rem}
"""


def build_export_page(folder: Path, about: str, readings: Sequence[ReadText]) -> str:
    """The page as text. Whatever paths, texts and pieces hold is escaped."""
    title = f"Model in {printable(folder)}"
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{safe(about)}</p>']
    for number, reading in enumerate(readings):
        body += [f'<h2 dir="auto">{safe(reading.text)}</h2>', show_pieces(reading), *fillings(reading), *attention(reading, number)]
    return page(title, body, STYLE)


def show_pieces(reading: ReadText) -> str:
    """The text in pieces, over each mask its likeliest filling."""
    shown, guesses = [], dict(zip(reading.masks, reading.guesses, strict=True))
    for place, piece in enumerate(reading.pieces):
        text = f"<bdi>{safe(piece)}</bdi>"
        if place in guesses:
            text = f'<ruby class="mask">{text}<rt dir="auto">{safe(guesses[place][0].piece)}</rt></ruby>'
        shown.append(text)
    return f'<article class="card instance"><p dir="auto">{" ".join(shown)}</p></article>'


def fillings(reading: ReadText) -> Iterable[str]:
    """A card with bars for each mask."""
    if reading.masks:
        cards = (
            card(f"[MASK] {number} <small>piece {place}</small>", bars(guesses))
            for number, (place, guesses) in enumerate(zip(reading.masks, reading.guesses, strict=True), start=1)
        )
        yield f'<div class="grid">{"".join(cards)}</div>'


def bars(guesses: Sequence[Guess]) -> str:
    rows = "".join(
        f'<dt><bdi>{safe(guess.piece)}</bdi></dt><dd><i style="width:{100 * guess.probability:.2f}%"></i></dd>'
        f"<dd>{guess.probability:.1%}</dd>"
        for guess in guesses
    )
    return f'<dl class="bars">{rows}</dl>'


def attention(reading: ReadText, number: int) -> Iterable[str]:
    """All heads of all layers at a glance, then layer by layer with the pieces as labels. number: of the text on the page."""
    _, num_heads, num_pieces, _ = reading.attention_LHNN.shape
    yield '<h3 class="attention">Attention</h3>'
    if num_pieces > LONGEST:
        yield f'<p class="soft">Not drawn: the text has {num_pieces:,} pieces, and maps are readable up to {LONGEST}.</p>'
        return
    yield (
        '<p class="soft">A row is a piece that attends, a column one that is attended to; the stronger the colour, the larger the '
        "weight (the shade is its root). The weights of a row sum to 1.</p>"
    )
    rows = [f"<tr><th></th>{''.join(f'<th>head {head + 1}</th>' for head in range(num_heads))}</tr>"]
    for layer, weights_HNN in enumerate(reading.attention_LHNN):
        cells = (small_map(weights, heading(layer, head), name_of(number, layer, head)) for head, weights in enumerate(weights_HNN))
        rows.append(f"<tr><th>layer {layer + 1}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    yield f'<div class="scroll card"><table class="overview">{"".join(rows)}</table></div>'
    for layer, weights_HNN in enumerate(reading.attention_LHNN):
        maps = (
            labelled_map(weights, reading.pieces, heading(layer, head), name_of(number, layer, head))
            for head, weights in enumerate(weights_HNN)
        )
        figures = "".join(
            f"<figure><figcaption>{heading(layer, head)}</figcaption>{each}</figure>" for head, each in enumerate(maps)
        )
        summary = f"Layer {layer + 1}, with the pieces"
        yield f'<details class="card"><summary>{summary}</summary><div class="maps">{figures}</div></details>'


def heading(layer: int, head: int) -> str:
    return f"layer {layer + 1}, head {head + 1}"


def name_of(text: int, layer: int, head: int) -> str:
    return f"t{text}-l{layer + 1}-h{head + 1}"


def small_map(weights_NN: np.ndarray, title: str, name: str) -> str:
    """The paths of a head, by level. weights_NN: from 0 to 1."""
    size = len(weights_NN)
    levels = np.rint(np.sqrt(weights_NN) * LEVELS).astype(int)
    drawn = [level for level in range(1, LEVELS + 1) if level in levels]
    paths = "".join(f'<path fill-opacity="{level / LEVELS:.4g}" d="{strokes(levels == level)}"/>' for level in drawn)
    frame = f'class="map" viewBox="0 0 {size} {size}" shape-rendering="crispEdges"'
    return f'<svg {frame}><title>{title}</title><g class="weights" id="{name}">{paths}</g></svg>'


def strokes(chosen_NN: np.ndarray) -> str:
    """Cells of a square as a path, those side by side in one go."""
    drawn = []
    for row, chosen in enumerate(chosen_NN):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
        drawn += [f"M{begin} {row}h{end - begin}v1h{begin - end}z" for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    return "".join(drawn)


def labelled_map(weights_NN: np.ndarray, pieces: Sequence[str], title: str, name: str) -> str:
    """The same with a label for each row and column; a row says what it attends to most."""
    labels = [piece if len(piece) <= SHOWN else f"{piece[: SHOWN - 1]}…" for piece in pieces]
    room = 8 + LETTER * max(map(len, labels))
    side = room + CELL * len(pieces)
    parts = [f'<use href="#{name}" transform="translate({room} {room}) scale({CELL})"/>']
    parts.append(f'<rect class="edge" x="{room}" y="{room}" width="{side - room}" height="{side - room}"/>')
    for place, label in enumerate(map(safe, labels)):
        middle = room + CELL * place + 9
        parts.append(f'<text class="side" x="{room - 4}" y="{middle}">{label}</text>')
        parts.append(f'<text transform="translate({middle} {room - 4}) rotate(-90)">{label}</text>')
    for row, weights in enumerate(weights_NN):
        most = np.argsort(-weights, kind="stable")[:NUM_NAMED]
        tip = f"{pieces[row]} → " + ", ".join(f"{pieces[column]} {weights[column]:.0%}" for column in most)
        y = room + CELL * row
        parts.append(f'<rect class="row" x="0" y="{y}" width="{side}" height="{CELL}"><title>{safe(tip)}</title></rect>')
    return f'<svg class="map" viewBox="0 0 {side} {side}" style="width:{side}px"><title>{title}</title>{"".join(parts)}</svg>'
