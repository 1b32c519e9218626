"""The request text is the query, or else the titles of the user's latest items."""

from __future__ import annotations

from collections.abc import Sequence

from feedrank.engine.serving.reranking import MAX_TITLES, request_text
from feedrank.engine.types import Batch


def request_texts(batch: Batch, titles: Sequence[str], max_titles: int = MAX_TITLES) -> list[str]:
    """Return the (R,) texts of a batch's requests, built by `engine.serving.reranking.request_text`."""
    queries = batch.queries or ("",) * len(batch.at)
    history = batch.history[:, :max_titles]
    return [request_text(query, rows, titles, max_titles) for query, rows in zip(queries, history, strict=True)]
