"""Measures the length of sentences in Markdown: `python -m benchmarks.prose docs/*.md`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "vs.", "cf.", "etc.", "approx.")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*]*\s+")
"""A colon or a semicolon does not end a sentence, so that the measure can't be met by punctuation."""


def paragraphs(markdown: str) -> Iterator[str]:
    """Yield the paragraphs and list items of a Markdown text, without code blocks, tables, headings and comments."""
    lines: list[str] = []
    fence = ""
    after_blank, after_list_item = True, False
    for line in [*re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL).splitlines(), ""]:
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
            continue
        indented_code = line.startswith(("    ", "\t")) and (after_blank and not after_list_item)
        is_prose = bool(line.strip()) and not found and not indented_code and not line.lstrip().startswith(("#", "|"))
        starts_item = bool(_LIST_ITEM.match(line)) and is_prose
        if lines and (not is_prose or starts_item):
            yield " ".join(lines)
            lines = []
        if found:
            fence = found[1]
        if is_prose:
            lines.append(_LIST_ITEM.sub("", line).strip())
            after_list_item = starts_item or (after_list_item and not after_blank) or line.startswith(" ")
        after_blank = not is_prose


def sentences(markdown: str) -> Iterator[str]:
    """Yield the sentences of a Markdown text as plain words: code spans count as one word, links as their text."""
    for paragraph in paragraphs(markdown):
        text = re.sub(r"`` .*? ``|`[^`]*`", "code", paragraph)
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
        for abbreviation in _ABBREVIATIONS:
            text = text.replace(abbreviation, abbreviation.replace(".", ""))
        for sentence in _SENTENCE_END.split(text):
            if words(sentence):
                yield sentence.strip()


def words(sentence: str) -> int:
    """Count the words of a sentence; marks such as a lone dash are no words."""
    return sum(any(character.isalnum() for character in word) for word in sentence.split())


def median_words_per_sentence(paths: Iterable[Path]) -> float:
    """Return the median number of words per sentence over Markdown files. Raises ValueError if they have no prose."""
    counts = [words(sentence) for path in paths for sentence in sentences(path.read_text(encoding="utf-8"))]
    if not counts:
        raise ValueError("found no sentences, expected Markdown files with prose")
    return float(median(counts))


def main(names: Iterable[str]) -> None:
    """Print the median of each file and of all of them."""
    paths = [Path(name) for name in names]
    for path in paths:
        print(f"{median_words_per_sentence([path]):5.1f}  {path}")
    print(f"{median_words_per_sentence(paths):5.1f}  all")


if __name__ == "__main__":
    main(sys.argv[1:])
