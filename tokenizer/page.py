"""A title and HTML in, one self-contained page out, light and dark, for which a browser fetches nothing; its cards and tables."""

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from tokenizer.errors import UserError
from tokenizer.files import write_text
from tokenizer.printable import printable

STYLE = """
:root{color-scheme:light dark;--page:#f6f6f4;--card:#fff;--line:#dddcd6;--text:#1b1b1a;--soft:#62615b;--bar:#2a6fc9;
--a:#14529c;--b:#8a4300;--mask:#fbd9d5;--mask-line:#c22f20;--random:#e6ddfb;--random-line:#6a45c4;--kept:#d3efd9;--kept-line:#1c7a36;
--warn:#fff1cc;--warn-line:#c98a00}
@media (prefers-color-scheme:dark){:root{--page:#161615;--card:#212120;--line:#3a3a37;--text:#ecebe6;--soft:#a5a49c;--bar:#5b9bec;
--a:#8fc1ff;--b:#f5b470;--mask:#5a201b;--mask-line:#f08a7e;--random:#3a2a66;--random-line:#b39af2;--kept:#1b4527;--kept-line:#74cf8c;
--warn:#3d3010;--warn-line:#e0a82e}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem;max-width:78rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2rem 0 .6rem}
h3{font-size:1rem;margin:0 0 .2rem}
p{margin:.3rem 0}small,.soft{color:var(--soft);font-size:.85rem}
.grid{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem;min-width:0}
.warn{background:var(--warn);border-left:4px solid var(--warn-line);border-radius:.3rem;padding:.5rem .8rem;margin:.5rem 0}
.instance{margin-bottom:.8rem}.instance p{line-height:2.2;overflow-wrap:anywhere}
.A{color:var(--a)}.B{color:var(--b)}.special{color:var(--soft);font-size:.8em}
ruby{border-radius:.2rem;padding:0 .15em;color:var(--text);border-bottom:2px solid;white-space:nowrap;overflow-wrap:normal}
rt{font-size:.62em;color:var(--text)}
.mask{background:var(--mask);border-color:var(--mask-line)}.random{background:var(--random);border-color:var(--random-line)}
.kept{background:var(--kept);border-color:var(--kept-line)}
ruby span+span{border-left:1px dotted var(--mask-line)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;align-items:baseline;margin-bottom:.8rem}
.columns{columns:22rem;column-gap:.8rem}.columns .card{break-inside:avoid;margin-bottom:.8rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg line{stroke:var(--line);stroke-width:1}.bar{fill:var(--bar)}
.hover{fill:transparent}.hover:hover{fill:var(--text);fill-opacity:.12}
.bars{display:grid;grid-template-columns:minmax(4.5rem,auto) minmax(3rem,1fr) auto;gap:.2rem .7rem;align-items:center}
.bars{margin:.4rem 0}
.bars dt{overflow-wrap:anywhere}.bars dd{margin:0}.bars dd+dd{text-align:right;font-variant-numeric:tabular-nums}
.bars i{display:block;height:.75rem;background:var(--bar);border-radius:0 .2rem .2rem 0;min-width:1px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.25rem .5rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}td+td{overflow-wrap:anywhere}
.numbers td+td,.numbers th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """title: text. body: HTML. style: CSS beside that of all pages."""
    return PAGE.format(title=escape(title), style=STYLE + style, body="\n".join(body))


def write_page(path: Path, content: str) -> None:
    """Write it whole or not at all; a link's target is replaced, not the link."""
    try:
        write_text(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). Choose another --html.") from error
    print(f"wrote {printable(path)}")


def safe(text: object) -> str:
    """Text of others as HTML."""
    return escape(printable(text))


def card(title: str, content: str, note: str = "") -> str:
    """title and note: HTML."""
    return f'<section class="card"><h3>{title}</h3>{f"<p><small>{note}</small></p>" if note else ""}{content}</section>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "") -> str:
    head = "".join(f"<th>{safe(cell)}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>{lines}</table></div>'
