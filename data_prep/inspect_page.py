"""What `albert inspect` found in, one self-contained HTML page out: no scripts, no network, light and dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from data_prep.charts import bars, histogram
from data_prep.instances import Instance, Token
from data_prep.schema import Manifest
from data_prep.statistics import Statistics, figures, most_frequent
from data_prep.summary import Figure, folder_figures, label_name, split_figures
from tokenizer.page import card, page, safe, table
from tokenizer.printable import printable

NUM_FREQUENT = 30

FREQUENT = """<h2>Most frequent pieces</h2><p class="soft">With their share of the text in the same rows; ▁ is a space.</p>
<div class="grid">{}</div>"""

PRIVATE_NOTE = '<p class="soft">The corpus is private: numbers alone, no instances and no pieces.</p>'


def build_page(
    folder: object,
    manifest: Manifest,
    split: str,
    instances: Sequence[Instance],
    statistics: Statistics,
    pieces: Sequence[str],
    warnings: Sequence[str],
    shard_sizes: Mapping[str, int],
) -> str:
    """The page as text. Whatever the corpus, the inputs' names or the options hold is escaped.

    folder: path of the data, for the title. split: where instances and statistics are from. pieces: id -> piece.
    """
    title = f"Data in {printable(folder)}"
    warned = "".join(f'<p class="warn">{safe(warning)}</p>' for warning in warnings) or '<p class="soft">No warnings.</p>'
    counts = manifest.splits[split]
    about = (
        f"{counts.instances:,} {split} instances of at most {manifest.max_seq_length:,} pieces from {counts.documents:,} documents"
    )
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{safe(about)}.</p>', warned]
    body += [f"<h2>Instances of {safe(split)}, drawn at random</h2>", legend()] if instances else []
    body += [show_instance(instance, manifest) for instance in instances]
    body += [
        f'<h2>Histograms</h2><p class="soft">From the first {statistics.num_rows:,} rows of {safe(split)}.</p>',
        f'<div class="grid">{"".join(charts(manifest, statistics))}</div>',
        PRIVATE_NOTE if manifest.private else FREQUENT.format("".join(frequent_pieces(statistics, pieces))),
        '<h2>Numbers</h2><div class="columns">',
        card("By split", split_table(manifest, shard_sizes)),
        card("Of the whole folder", figure_table(folder_figures(manifest))),
        card(f"Of the first {statistics.num_rows:,} rows of {safe(split)}", figure_table(figures(statistics))),
        card("Options", table(["option", "value"], options_of(manifest))),
        "</div>",
        faults_section(manifest),
    ]
    return page(title, body)


def legend() -> str:
    samples = [("mask", "original", "[MASK]", "masked"), ("random", "original", "other", "replaced by a random piece")]
    samples += [("kept", "original", "original", "kept, but to be predicted")]
    marks = "".join(
        f'<span><ruby class="{fate}">{text}<rt>{shown}</rt></ruby> {words}</span>' for fate, text, shown, words in samples
    )
    return f'<p class="legend"><span class="A">segment A</span><span class="B">segment B</span>{marks}</p>'


def show_instance(instance: Instance, manifest: Manifest) -> str:
    """A heading and the text in its segments' colours; over a piece to predict stands what the model is shown."""
    num_targets = sum(bool(token.fate) for token in instance.tokens)
    label = label_name(instance.order_label, manifest.options.get("pair_objective"))
    heading = f"Row {instance.row:,}: {label}"
    note = f"{len(instance.tokens):,} pieces, {num_targets:,} to predict"
    text = "".join(map(show_tokens, join_masked(instance.tokens)))
    return f'<article class="card instance"><h3>{escape(heading)} <small>{note}</small></h3><p dir="auto">{text}</p></article>'


def join_masked(tokens: Iterable[Token]) -> list[list[Token]]:
    """The tokens one by one, but masked neighbours without a space between them (mostly one word) together, so that they read."""
    groups: list[list[Token]] = []
    for token in tokens:
        if token.fate == "mask" and not token.after_space and groups and groups[-1][0].fate == "mask":
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def show_tokens(tokens: Sequence[Token]) -> str:
    """One group. The direction of the text is that of the corpus: what is not of it is kept out of the reckoning (bdi, dir)."""
    first = tokens[0]
    space = " " if first.after_space else ""
    if not first.segment:
        return f'{space}<bdi class="special">{escape(first.text)}</bdi>'
    text = "".join(f'<span class="{token.segment}">{escape(token.text)}</span>' for token in tokens)
    if not first.fate:
        return space + text
    times = f"×{len(tokens)}" if len(tokens) > 1 else ""
    return f'{space}<ruby class="{first.fate}">{text}<rt dir="auto">{escape(first.shown)}{times}</rt></ruby>'


def charts(manifest: Manifest, statistics: Statistics) -> Iterable[str]:
    """The cards with drawings."""
    objective = manifest.options.get("pair_objective")
    yield card("Instance length", histogram(statistics.lengths, "pieces", "rows"), "in pieces, [CLS] and [SEP] included")
    unit = "pieces" if manifest.options.get("mask_unit") == "piece" else "words"
    runs = histogram(up_to_last(statistics.runs, least=3), unit, "runs", first=1)
    yield card("n-gram length", runs, f"{unit} in a run to predict; n-grams that touch count as one run")
    percent = histogram(up_to_last(statistics.masked_percent, least=20), "%", "rows")
    yield card("Masked share", percent, "per cent of an instance's pieces that are to be predicted")
    fates = {"[MASK]": "mask", "random piece": "random", "the piece itself": "kept"}
    fate_rows = [(name, statistics.fates[fate]) for name, fate in fates.items()]
    yield card("What stands for a piece to predict", bars(fate_rows, sum(statistics.fates.values())))
    labels = [(label_name(label, objective), number) for label, number in statistics.order_labels.items()]
    yield card("Order", bars(labels, statistics.num_rows), "rows by order label")
    steps = [(0, 1), (1, 2), (2, 5), (5, 10), (10, 100)]
    unknown = [("none", int(statistics.unknown_percent[0]))]
    unknown += [(f"over {low} to {high} %", int(statistics.unknown_percent[low + 1 : high + 1].sum())) for low, high in steps]
    yield card("Unknown rate", bars(unknown, statistics.num_rows), "rows by the share of their pieces that are &lt;unk&gt;")
    sources = manifest.sources or {split: counts for split, counts in manifest.splits.items()}
    documents = [(printable(name) or "inputs without a name", counts.documents) for name, counts in sources.items()]
    yield card("Documents per " + ("source" if manifest.sources else "split"), bars(documents, sum(n for _, n in documents)))
    if manifest.format_version >= 2:
        kept = sum(counts.documents for counts in manifest.splits.values())
        rows = [
            ("kept, first of their text", kept - manifest.duplicate_documents),
            ("kept, text seen before", manifest.duplicate_documents),
        ]
        rows += [(f"left out by {printable(step)}", number) for step, number in manifest.dropped.items()]
        yield card("Duplicates and documents left out", bars(rows, sum(number for _, number in rows)))


def up_to_last(counts: np.ndarray, least: int) -> np.ndarray:
    """Without the zeros at its end, but up to the value `least` and one beyond the last."""
    filled = np.flatnonzero(counts)
    return counts[: max(least, filled[-1] + 1 if len(filled) else 0) + 1]


def frequent_pieces(statistics: Statistics, pieces: Sequence[str]) -> Iterable[str]:
    """Three cards."""
    rows = [(printable(pieces[piece]), number) for piece, number in most_frequent(statistics, NUM_FREQUENT)]
    size = NUM_FREQUENT // 3
    for begin in range(0, len(rows), size):
        content = bars(rows[begin : begin + size], int(statistics.piece_counts.sum()), longest=rows[0][1])
        yield card(f"{begin + 1} to {min(begin + size, len(rows))}", content)


def split_table(manifest: Manifest, shard_sizes: Mapping[str, int]) -> str:
    columns = [split_figures(manifest, counts, shard_sizes) for counts in manifest.splits.values()]
    known = [row for row in zip(*columns, strict=True) if any(figure.value is not None for figure in row)]
    rows = [[row[0].label, *map(str, row)] for row in known]
    return table(["", *manifest.splits], rows, "numbers")


def figure_table(listed: Iterable[Figure]) -> str:
    return table([], [[figure.label, str(figure)] for figure in listed if figure.value is not None], "numbers")


def options_of(manifest: Manifest) -> list[list[object]]:
    shown = {"seed": manifest.seed, **manifest.options, "tokenizer_sha256": manifest.tokenizer_sha256}
    return [[name, value] for name, value in shown.items()]


def faults_section(manifest: Manifest) -> str:
    if not manifest.num_faults:
        return ""
    rows = [[fault.get("location", ""), fault.get("reason", "")] for fault in manifest.faults]
    heading = f"<h2>Faults</h2><p>{manifest.num_faults:,} left out, the first {len(rows):,}:</p>"
    return f'{heading}<section class="card">{table(["where", "why"], rows)}</section>'
