"""Sentences of Markdown are found and counted as a reader would."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.prose import median_words_per_sentence, paragraphs, sentences, words

TEXT = """<!-- made by
a tool -->
# A heading of five words

One two three. Four five
six seven! See [the other page](other.md) for more.

    feedrank import items.csv

- an item of five words
  that goes on
- another item

    with a paragraph of its own

```python
x = 1.  # no sentence here
```

| a | table |
|---|---|
| of | many. words |

1. `feedrank import FILE` counts as one: yes, e.g. here; and on.
"""


def test_only_prose_is_counted() -> None:
    assert list(paragraphs(TEXT)) == [
        "One two three. Four five six seven! See [the other page](other.md) for more.",
        "an item of five words that goes on",
        "another item",
        "with a paragraph of its own",
        "`feedrank import FILE` counts as one: yes, e.g. here; and on.",
    ]
    assert [words(sentence) for sentence in sentences(TEXT)] == [3, 4, 6, 8, 2, 6, 9]


def test_the_median_is_over_all_sentences(tmp_path: Path) -> None:
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text("One. One two three.")
    second.write_text("One two three four five. One two.")
    assert median_words_per_sentence([first, second]) == 2.5


def test_no_prose_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Heading\n")
    with pytest.raises(ValueError, match="no sentences"):
        median_words_per_sentence([tmp_path / "a.md"])
