"""What each request of a batch says in words: its query, or else the titles of what its person touched last."""

from __future__ import annotations

from collections.abc import Sequence

from engine.rescoring import TITLES, request_text
from engine.types import Batch


def request_texts(batch: Batch, titles: Sequence[str], most: int = TITLES) -> list[str]:
    """(R,) the text of each request, as `engine.rescoring.request_text` makes it."""
    queries = batch.queries or ("",) * len(batch.at)
    history = batch.history[:, :most]
    return [request_text(query, touched, titles, most) for query, touched in zip(queries, history, strict=True)]
