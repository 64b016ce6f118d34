"""What `albert inspect` found in a run in, one self-contained HTML page out: curves, predictions, config and environment."""

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Literal, NamedTuple

import numpy as np
import yaml

from data_prep.instances import Token
from data_prep.summary import label_name
from pretrain.axes import step_edges
from pretrain.config import RunConfig
from pretrain.config_file import to_plain
from pretrain.curves import STYLE as CURVE_STYLE
from pretrain.curves import Line, draw_curves
from pretrain.predictions import NUM_GUESSES, Guess, Prediction, Predictions
from pretrain.run_report import MARKS, Mark, RunReport, Series
from tokenizer.page import card, page, safe, table
from tokenizer.printable import masked, printable
from tokenizer.provenance import Record

MOST_ROWS = 200
"""Of the tables of marks and sessions: the newest."""

STYLE = (
    CURVE_STYLE
    + """
.right{background:var(--kept);border-color:var(--kept-line)}.wrong{background:var(--mask);border-color:var(--mask-line)}
.verdict{color:var(--text);border-radius:.2rem;padding:0 .3em;border-bottom:2px solid}
.guesses{width:auto}.guesses td{font-variant-numeric:tabular-nums;white-space:nowrap}.guesses td,.guesses th{padding:.25rem .6rem}
.guesses .right,.guesses .wrong{border-bottom-width:1px}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}details summary~*{margin-top:.5rem}
pre{overflow-x:auto;font-size:.85rem;line-height:1.4;margin:.5rem 0}
"""
)


class Figure(NamedTuple):
    """One drawing: a figure of training, of validation where it has it, and what stands beside it."""

    name: str
    unit: str
    keys: Sequence[tuple[str, str]]
    """(figure, label) of each line."""
    kind: Literal["smoothed", "plain"] = "plain"
    factor: float = 1.0
    validated: bool = False
    log: bool = False
    from_zero: bool = False
    beside_entropy: bool = False
    """Whether the unigram entropy is drawn, too: the loss of a model that knows the frequencies of the pieces alone."""


FIGURES = (
    Figure("Loss", "nats", [("loss", "train")], "smoothed", validated=True),
    Figure("MLM loss", "nats", [("mlm_loss", "train")], "smoothed", validated=True, beside_entropy=True),
    Figure("Sentence-order loss", "nats", [("sop_loss", "train")], "smoothed", validated=True),
    Figure("MLM accuracy", "%", [("mlm_accuracy", "train")], "smoothed", 100, validated=True),
    Figure("Sentence-order accuracy", "%", [("sop_accuracy", "train")], "smoothed", 100, validated=True),
    Figure("Learning rate", "", [("lr", "learning rate")], from_zero=True),
    Figure(
        "Trust ratios",
        "|w| / |u|, log scale",
        [("trust_ratio_median", "median"), ("trust_ratio_max", "largest"), ("trust_ratio_min", "least")],
        log=True,
    ),
    Figure("Gradient norm", "log scale", [("grad_norm", "before clipping")], "smoothed", log=True),
    Figure("Throughput", "pieces a second", [("tokens_per_second", "pieces a second")], "smoothed", from_zero=True),
    Figure("MFU", "%", [("mfu", "model FLOP/s of the peak")], "smoothed", 100, from_zero=True),
    Figure("Waiting for data", "% of the time", [("data_wait", "waiting")], "smoothed", 100, from_zero=True),
    Figure(
        "Memory", "GB of one process", [("peak_memory", "peak"), ("estimated_memory", "estimated")], factor=1e-9, from_zero=True
    ),
)


def build_run_page(report: RunReport, predictions: Predictions | None, why_none: str) -> str:
    """The page as text. Whatever the corpus, paths, messages or the config hold is escaped.

    why_none: what to say in place of predictions, where there are none.
    """
    title = f"Run in {printable(report.folder)}"
    warned = [f'<p class="warn">{safe(fault)}</p>' for fault in report.faults]
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{safe(about(report))}</p>', *warned, *curves(report)]
    body += prediction_section(report, predictions, why_none)
    body += ["<h2>Config and environment</h2>", config_details(report.config), *session_details(report.sessions)]
    return page(title, body, STYLE)


def about(report: RunReport) -> str:
    """How far, what, and how it stands, in a sentence each."""
    config, model = report.config, report.config.model
    hours = config.training.max_hours
    limit = f" and of {hours:g} hours at most" if hours is not None else ""
    parts = [f"Step {report.step:,} of {config.training.steps:,}{limit}, {report.state}."]
    if (time := newest_time(report)) is not None:
        parts.append(f"Last figures of {time}.")
    parts.append(
        f"{model.num_hidden_layers} layers x {model.hidden_size:,} hidden x {model.num_attention_heads} heads, batch "
        f"{config.training.global_batch_size:,}, {config.optimizer.name} at {config.optimizer.lr:.3g}."
    )
    return " ".join(parts)


def newest_time(report: RunReport) -> str | None:
    """Of a record, ISO 8601."""
    times = [time for series in (report.train, report.validation) if (time := series.last("time")) is not None]
    try:
        return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if times else None
    except (OverflowError, ValueError, OSError):
        return None


def curves(report: RunReport) -> list[str]:
    """A card for each figure that has been logged, and what happened beside."""
    marks = sorted(report.marks, key=lambda mark: (MARKS.index(mark.kind), mark.step))
    steps = [report.train.steps, report.validation.steps, np.array([mark.step for mark in marks], dtype=np.int64)]
    edges = step_edges(np.concatenate(steps))
    cards = [card(figure.name, drawn, note(figure, report)) for figure in FIGURES if (drawn := draw(figure, report, marks, edges))]
    if not cards:
        return ['<h2>Curves</h2><p class="soft">No step has been logged yet.</p>', *mark_details(report.marks)]
    kinds = [kind for kind in MARKS if any(mark.kind == kind for mark in marks)]
    names = {"rollback": "rollback", "restart": "started again", "skipped": "step without an update", "warning": "warning"}
    key = "".join(f'<span><i class="{kind}"></i>{names[kind]}</span>' for kind in kinds)
    legend = f'<p class="key">{key}</p>' if kinds else '<p class="soft">No restarts, rollbacks, skipped steps or warnings.</p>'
    return ["<h2>Curves</h2>", legend, f'<div class="grid">{"".join(cards)}</div>', *mark_details(report.marks)]


def draw(figure: Figure, report: RunReport, marks: Sequence[Mark], edges: np.ndarray) -> str:
    lines = [line(figure, report.train, key, label, figure.kind) for key, label in figure.keys]
    if figure.validated:
        lines.append(line(figure, report.validation, figure.keys[0][0], "validation", "points"))
    entropy = report.unigram_entropy
    if figure.beside_entropy and entropy is not None:
        lines.append(Line("unigram entropy", "level", np.array([report.step]), np.array([entropy])))
    return draw_curves(figure.name, figure.unit, lines, marks, edges, log=figure.log, from_zero=figure.from_zero)


def line(figure: Figure, series: Series, key: str, label: str, kind: Literal["smoothed", "plain", "points"]) -> Line:
    return Line(label, kind, series.steps, series.figures[key] * figure.factor)


def note(figure: Figure, report: RunReport) -> str:
    """Of values that cannot be drawn."""
    series = [report.train, report.validation] if figure.validated else [report.train]
    number = sum(int(np.isinf(each.figures[key]).sum()) for each in series for key, _ in figure.keys)
    return f"{number:,} value(s) that are no finite number are left out" if number else ""


def mark_details(marks: Sequence[Mark]) -> list[str]:
    if not marks:
        return []
    rows = [[f"{mark.step:,}", mark.kind, mark.message] for mark in marks[-MOST_ROWS:]]
    cut = f", the last {len(rows):,}" if len(rows) < len(marks) else ""
    content = table(["step", "what", ""], rows)
    return [f'<details class="card"><summary>{len(marks):,} mark(s) in words{cut}</summary>{content}</details>']


def prediction_section(report: RunReport, predictions: Predictions | None, why_none: str) -> Iterable[str]:
    if predictions is None:
        yield f'<h2>Predictions</h2><p class="soft">{safe(why_none)}</p>'
        return
    yield f"<h2>Predictions of step {predictions.step:,}</h2>"
    yield (
        f'<p class="soft">Instances of {safe(predictions.split)}, drawn at random, at least half of them with an order label where '
        "there are such. A piece to predict stands where it belongs, over it the model's likeliest one; ▁ is a space.</p>"
    )
    yield (
        '<p class="legend"><span class="A">segment A</span><span class="B">segment B</span>'
        '<span><ruby class="right">piece<rt>guess</rt></ruby> right</span>'
        '<span><ruby class="wrong">piece<rt>guess</rt></ruby> wrong</span></p>'
    )
    objective = report.manifest.options.get("pair_objective") if report.manifest else None
    for number, prediction in enumerate(predictions.listed):
        yield show_prediction(prediction, objective, is_open=number == 0)


def show_prediction(prediction: Prediction, objective: object, *, is_open: bool) -> str:
    """A heading with the order, the text, and a table of guesses."""
    instance, num = prediction.instance, len(prediction.right)
    num_right = sum(listed[0].is_right for listed in prediction.guesses)
    heading = f"Row {instance.row:,} <small>{num_right:,} of {num:,} pieces right</small>"
    guesses = iter(prediction.guesses)
    text = "".join(show_token(token, next(guesses) if token.fate else []) for token in instance.tokens)
    order = show_order(instance.order_label, prediction.swapped, objective)
    rows = "".join(map(guess_row, prediction.right, prediction.guesses, target_fates(instance.tokens)))
    head = f'<tr><th>piece</th><th>its probability</th><th>shown as</th><th colspan="{NUM_GUESSES}">likeliest</th></tr>'
    listed = f'<div class="scroll"><table class="guesses">{head}{rows}</table></div>'
    details = f"<details{' open' if is_open else ''}><summary>the likeliest pieces</summary>{listed}</details>" if num else ""
    return f'<article class="card instance"><h3>{heading}</h3>{order}<p dir="auto">{text}</p>{details}</article>'


def target_fates(tokens: Iterable[Token]) -> list[str]:
    """What stands in the row for each piece to predict."""
    return [{"mask": "[MASK]", "kept": "itself"}.get(token.fate, token.shown) for token in tokens if token.fate]


def show_token(token: Token, guesses: Sequence[Guess]) -> str:
    space = " " if token.after_space else ""
    if not token.segment:
        return f'{space}<bdi class="special">{escape(token.text)}</bdi>'
    text = f'<span class="{token.segment}">{escape(token.text)}</span>'
    if not guesses:
        return space + text
    guess = f'<rt dir="auto">{escape(guesses[0].text)}</rt>'
    return f'{space}<ruby class="{verdict(guesses[0].is_right)}">{text}{guess}</ruby>'


def verdict(is_right: bool) -> str:
    return "right" if is_right else "wrong"


def show_order(label: int, swapped: float | None, objective: object) -> str:
    """The label, and what the model gives it."""
    if swapped is None:
        return f"<p><small>{safe(label_name(label, objective))}</small></p>"
    probability = swapped if label == 1 else 1 - swapped
    style = verdict(probability > 0.5)
    said = f"{safe(label_name(label, objective))}: the model gives it {probability:.1%}"
    return f'<p><small class="verdict {style}">{said}, {style}</small></p>'


def guess_row(right: Guess, guesses: Sequence[Guess], fate: str) -> str:
    cells = "".join(
        f'<td class="{verdict(True) if guess.is_right else ""}"><bdi>{escape(guess.text)}</bdi> {guess.probability:.1%}</td>'
        for guess in guesses
    )
    return (
        f'<tr><td class="{verdict(guesses[0].is_right)}"><bdi>{escape(right.text)}</bdi></td>'
        f"<td>{right.probability:.1%}</td><td><bdi>{escape(fate)}</bdi></td>{cells}</tr>"
    )


def config_details(config: RunConfig) -> str:
    """As RUN/config.yaml, with the values of today's defaults where it is from an earlier release."""
    text = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    lines = "\n".join(safe(masked(each)) for each in text.splitlines())
    return f'<details class="card"><summary>Config</summary><pre>{lines}</pre></details>'


def session_details(sessions: Sequence[Record]) -> list[str]:
    """Each start of the run, the newest first."""
    if not sessions:
        return ['<p class="soft">There is no provenance.json that says where and by which code the run was started.</p>']
    shown = list(reversed(sessions[-MOST_ROWS:]))
    cards = "".join(f"<h3>{safe(session.get('started'))}</h3>{table([], session_rows(session))}" for session in shown)
    cut = f", the last {len(shown):,}" if len(shown) < len(sessions) else ""
    return [f'<details class="card"><summary>Environment: {len(sessions):,} start(s){cut}</summary>{cards}</details>']


def session_rows(session: Record) -> list[list[object]]:
    """Label and value of what is known; what a damaged record holds in its place is shown as it is."""
    code, libraries = (value if isinstance(value := session.get(name), dict) else {} for name in ("code", "libraries"))
    clean = {"True": "", "False": ", with changes"}.get(str(code.get("clean")), ", changes unknown")
    code_text = f"{code.get('version')}, git {code['revision']}{clean}" if code.get("revision") else code.get("version")
    hosts, command = session.get("hosts") or session.get("host"), session.get("command")
    rows = [
        ["ended", session.get("ended") or "not recorded: at work, or killed"],
        ["exit code", session.get("exit_code")],
        ["steps", f"{show_step(session.get('from_step'), 'the beginning')} to {show_step(session.get('to_step'), '?')}"],
        ["hosts", ", ".join(map(str, hosts)) if isinstance(hosts, list) else hosts],
        ["platform", session.get("platform")],
        ["Python", session.get("python")],
        ["libraries", ", ".join(f"{name} {version}" for name, version in libraries.items()) or None],
        ["albert", code_text],
        ["SHA-256 of the sources", code.get("sources_sha256")],
        ["SHA-256 of requirements.lock", session.get("lock_sha256")],
        ["Slurm job", session.get("slurm_job")],
        ["command", shlex.join(map(str, command)) if isinstance(command, list) else command],
        ["folder", session.get("working_folder")],
    ]
    return [row for row in rows if row[1] is not None]


def show_step(step: object, unknown: str) -> str:
    return unknown if step is None else f"{step:,}" if isinstance(step, int) else str(step)
