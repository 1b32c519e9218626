"""Build self-contained HTML pages: one file each, without external resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: right; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #e4e7eb; white-space: nowrap }
th:first-child, td:first-child { text-align: left } td { font-variant-numeric: tabular-nums }
.quiet { color: #52606d } .promoted { color: #00664b } .refused { color: #a33a00 }
.bar { background: #0072b2; height: .7rem; display: inline-block }
svg { max-width: 100% } figure { margin: 0 } .columns { display: flex; gap: 2rem; flex-wrap: wrap }
""".strip()


def html_page(title: str, body: str, extra_css: str = "") -> str:
    """Return a whole page around an HTML body. extra_css: CSS after the common style."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    css = f"<style>{_STYLE}\n{extra_css}</style>"
    return f"<!doctype html><html lang=en><head>{head}{css}</head><body>{body}</body></html>\n"


class Html(str):
    """A string that is already HTML and is not escaped again."""

    __slots__ = ()


def html_table(title: str, headers: Sequence[str], lines: Sequence[Sequence[str]], note: str = "") -> str:
    """Return a titled HTML table; cells are escaped unless they are `Html`. note: a paragraph above it."""

    def line(tag: str, cells: Sequence[str]) -> str:
        escaped = (cell if isinstance(cell, Html) else escape(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}" for cell in escaped) + "</tr>"

    rows = line("th", headers) + "".join(line("td", cells) for cells in lines)
    return f"<h2>{escape(title)}</h2>" + (f"<p>{escape(note)}</p>" if note else "") + f"<table>{rows}</table>"
