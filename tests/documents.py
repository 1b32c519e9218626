"""Reads the Markdown documents: their blocks of code, their links and their anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import PROJECT

DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
REFERENCE = DOCS / "reference"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
WRITTEN = [path for path in PAGES if REFERENCE not in path.parents]
"""The pages that are not generated."""
DOCUMENTS = [README, PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *PAGES]

_FENCED = re.compile(r"(?ms)^(?:<!-- ([^\n]*?) -->\n)?```(\w*)\n(.*?)^```$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    mark: str
    """The comment in the line above it: `run`, `file: NAME`, `needs: ...`, or empty."""
    language: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    for mark, language, text in _FENCED.findall(path.read_text(encoding="utf-8")):
        yield Block(mark, language, text)


def command_lines(path: Path) -> Iterator[str]:
    """Every call of feedrank in the blocks of bash and the indented blocks of a document."""
    shells = [block.text for block in blocks(path) if block.language == "bash"]
    indented = re.findall(r"(?m)^    (feedrank .*)$", _FENCED.sub("", path.read_text(encoding="utf-8")))
    for line in [*"\n".join(shells).splitlines(), *indented]:
        if line.startswith("feedrank "):
            yield re.sub(r"\s+[#>] .*$", "", line)


def links(path: Path) -> Iterator[str]:
    """The targets of all links of a document that lead to another place of the documents."""
    prose = re.sub(r"`` .*? ``|`[^`\n]*`", "", _FENCED.sub("", path.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as MkDocs and GitHub make them."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#{1,6} +(.*?)\s*$", _FENCED.sub("", path.read_text(encoding="utf-8"))):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found
