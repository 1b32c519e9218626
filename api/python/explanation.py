"""Explains a feed: the features of each item, and what each of them added to the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from feedrank.api.client.responses import FeatureDescription, ItemExplanation
from feedrank.api.python.frames import ResultTable
from feedrank.api.python.text_table import as_text

SHOWN_FEATURES = 5
"""Features per item in the `repr`."""
SHOWN_ITEMS = 10
"""Items in the `repr`."""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(ResultTable):
    """The explanation of each item of a feed, in its order; its `repr` shows the strongest features of each."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    scores: tuple[float | None, ...]
    items: tuple[ItemExplanation, ...]
    """Per item: recall score, feature -> value, feature -> contribution (TreeSHAP), and the base. Contributions and
    base add up to the score; contributions are empty without a trained ranker, features if nothing was scored."""
    features: tuple[FeatureDescription, ...]
    """What each feature means; empty if nothing was scored."""

    def to_pyarrow(self) -> Any:
        """Return one row per item and feature: position, item, feature, value, contribution, meaning, category."""
        import pyarrow as pa

        meanings = {feature.name: feature.sentence for feature in self.features}
        rows = [
            (position, item, name, value, entry.contributions.get(name), meanings.get(name), entry.categories.get(name))
            for position, (item, entry) in enumerate(zip(self.ids, self.items, strict=True), 1)
            for name, value in entry.features.items()
        ]
        schema = pa.schema(
            [("position", pa.int32()), ("item", pa.string()), ("feature", pa.string()), ("value", pa.float64()),
             ("contribution", pa.float64()), ("meaning", pa.string()), ("category", pa.string())]
        )  # fmt: skip
        columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
        return pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )

    def __repr__(self) -> str:
        """Return the strongest features of the first items as text."""
        table = Table(
            "", "item", "title", "score", "what moved it: feature (its value) contribution", box=box.SIMPLE_HEAD,
            show_edge=False, pad_edge=False,
        )  # fmt: skip
        for position, item in enumerate(self.ids[:SHOWN_ITEMS]):
            score = self.scores[position]
            cells = str(position + 1), item, self.titles[position], "" if score is None else f"{score:.3f}"
            table.add_row(*map(Text, (*cells, _strongest(self.items[position]))))
        more = len(self.ids) - SHOWN_ITEMS
        return as_text(table, *([f"... and {more} more items"] if more > 0 else []))


def _strongest(explanation: ItemExplanation) -> str:
    if not explanation.contributions:
        return "in recall order" if explanation.features else "no feature rows"
    moved = [entry for entry in explanation.contributions.items() if entry[1]]
    ordered = sorted(moved, key=lambda entry: -abs(entry[1]))[:SHOWN_FEATURES]
    return ", ".join(f"{name} ({_value(explanation, name)}) {part:+.3f}" for name, part in ordered)


def _value(explanation: ItemExplanation, name: str) -> str:
    if (text := explanation.categories.get(name)) is not None:
        return text
    value = explanation.features[name]
    return "missing" if value is None else f"{value:.3g}"
