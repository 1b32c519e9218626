"""A feed: a ranking of items for one request, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from feedrank.api.client import responses
from feedrank.api.client.responses import FeatureDescription, ItemExplanation, ScoredItem
from feedrank.api.http.explanations import explain_ranking, explained_features
from feedrank.api.python.explanation import Explanation
from feedrank.api.python.frames import ResultTable
from feedrank.api.python.text_table import as_text
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.serving_snapshot import ServingSnapshot


@dataclass(frozen=True, slots=True, repr=False)
class Feed(responses.Feed, ResultTable):
    """A ranking made in this process. It has all that a feed of the HTTP client has, titles and explanations."""

    titles: tuple[str, ...]
    """The title of each item; empty text where it has none."""
    fallback: str
    """full, or the fallback level that made the ranking because the full pipeline failed."""
    _explain: Callable[[], list[dict[str, Any]]] = field(compare=False)
    _describe: Callable[[], list[dict[str, Any]]] = field(compare=False)

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each item, higher is better; None where an item has none."""
        return tuple(item.score for item in self.items)

    def explain(self) -> Explanation:
        """Compute why each item stands where it is: its features, and what each added to its score."""
        entries = tuple(
            ItemExplanation(
                entry["recall_score"], entry["features"], entry["contributions"], entry["base"], entry["categories"]
            )
            for entry in self._explain()
        )
        features = tuple(FeatureDescription(**entry) for entry in self._describe())
        return Explanation(self.ids, self.titles, self.scores, entries, features)

    def to_pyarrow(self) -> Any:
        """Return one row per item: position, item, title, score."""
        import pyarrow as pa

        return pa.table(
            {
                "position": pa.array(range(1, len(self.items) + 1), pa.int32()),
                "item": pa.array(self.ids, pa.string()),
                "title": pa.array(self.titles, pa.string()),
                "score": pa.array(self.scores, pa.float64()),
            }
        )

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def __repr__(self) -> str:
        """Return the feed as text."""
        whose = f"feed of user {self.user}" if self.user is not None else "feed of an anonymous user"
        head = Text(f"{whose}, from {self.source}, by {self.bundle}")
        table = Table("", "item", "title", "score", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for position, (item, title) in enumerate(zip(self.items, self.titles, strict=True), 1):
            score = "" if item.score is None else f"{item.score:.3f}"
            table.add_row(*map(Text, (str(position), item.id, title, score)))
        empty = ["the feed is empty: the user has interacted with every item, or the filters exclude all"]
        return as_text(head, table, *(empty if not self.items else []))


def feed_from_record(record: RankingRecord, snapshot: ServingSnapshot) -> Feed:
    """Build the feed of a ranking. snapshot: what made it, for titles and explanations."""
    catalogue = snapshot.catalogue
    rows = catalogue.ids.rows(record.items).tolist()
    return Feed(
        ranking=record.id,
        timestamp=record.timestamp,
        user=record.user,
        bundle=record.bundle,
        source=record.source,
        items=tuple(ScoredItem(item, score) for item, score in zip(record.items, record.scores, strict=True)),
        degraded=record.degraded,
        logged=record.logged,
        experiments=dict(record.experiments),
        titles=tuple(catalogue.titles[row] if row >= 0 else "" for row in rows),
        fallback=record.fallback,
        _explain=lambda: explain_ranking(record, snapshot),
        _describe=lambda: explained_features(record, snapshot),
    )
