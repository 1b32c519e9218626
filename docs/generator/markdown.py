"""Builds Markdown: headings' anchors, tables, and text from docstrings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Sequence
from html import escape


def cell(text: str) -> str:
    """Return text as one table cell: on one line, without bars that would end the cell.

    A bar in a code span becomes an HTML entity, since Python-Markdown and GitHub differ in how they escape it there.
    """
    line = re.sub(r"`([^`]*\|[^`]*)`", lambda found: f"<code>{escape(found[1])}</code>", " ".join(text.split()))
    return line.replace("|", "&#124;") or " "


def code(text: object) -> str:
    """Return text as a code span, also if it holds backticks; empty text stays empty."""
    shown = str(text)
    if not shown:
        return ""
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def value(found: object) -> str:
    """Return a setting's value as TOML and JSON write it, as a code span."""
    shown = json.dumps(found, default=str, ensure_ascii=False) if not isinstance(found, str) else f'"{found}"'
    return code(shown)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; without rows, an empty string."""
    lines = [" | ".join(cell(one) for one in row) for row in rows]
    if not lines:
        return ""
    head = [" | ".join(header), " | ".join("---" for _ in header)]
    return "".join(f"| {line} |\n" for line in (*head, *lines))


def prose(docstring: str) -> str:
    """Return a docstring or a help text as paragraphs; indented blocks and those after `\\b` become code blocks."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring.replace("\f", "")).strip())
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs if paragraph.strip("\b \n"))


def _paragraph(paragraph: str) -> str:
    lines = paragraph.lstrip("\b\n").splitlines()
    as_is = [line for line in lines if line.startswith("  ")]
    if not as_is:
        return _text(" ".join(line.strip() for line in lines))
    before = " ".join(line.strip() for line in lines[: lines.index(as_is[0])])
    block = "\n".join(line.removeprefix("  ") for line in lines[lines.index(as_is[0]) :])
    return f"{_text(before)}\n\n```text\n{block}\n```".lstrip()


def _text(text: str) -> str:
    """Escape what Markdown would read as markup outside of code spans."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<\[]|(?<!\w)_|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def text(found: str) -> str:
    """Return text of the code as Markdown: markup characters outside of code spans are escaped."""
    return _text(" ".join(found.split()))


def slug(heading: str) -> str:
    """Return the anchor that Python-Markdown and GitHub give a heading of plain words."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
