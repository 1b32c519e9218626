"""Hold training samples of text models: groups of one query, candidate texts and a relevance label per text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feedrank.engine.types import Batch, Offsets
from feedrank.features.bm25 import TermWeights
from feedrank.features.request_text import request_texts

QUERY_CHUNK = 256
"""Queries per chunk that are scored against all texts at once."""


@dataclass(frozen=True, eq=False, slots=True)
class QueryTextGroups:
    """Hold G queries with N candidate texts in all, flattened, and one label per text."""

    queries: tuple[str, ...]
    """(G,) one per group; several groups may have the same query."""
    texts: tuple[str, ...]
    """(N,) candidate texts, group after group, unique within a group."""
    labels: NDArray[np.float32]
    """(N,) relevance of each text to its query: 0 for a negative, more for a positive."""
    offsets: Offsets
    """(G + 1,) start and end of each group's texts."""

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.queries) + 1:
            raise ValueError(f"found {len(self.offsets)} offsets for {len(self.queries)} queries; expected one more")
        if len(self.labels) != len(self.texts) or self.offsets[-1] != len(self.texts):
            raise ValueError(
                f"found {len(self.texts)} texts, {len(self.labels)} labels and offsets that end at {self.offsets[-1]}; "
                "expected equal numbers"
            )

    @classmethod
    def from_groups(cls, groups: Iterable[tuple[str, Mapping[str, float]]]) -> QueryTextGroups:
        """Build from one (query, {text: label}) per group."""
        queries: list[str] = []
        texts: list[str] = []
        labels: list[float] = []
        bounds = [0]
        for query, labelled in groups:
            queries.append(query)
            texts += labelled
            labels += labelled.values()
            bounds.append(len(texts))
        return cls(tuple(queries), tuple(texts), np.array(labels, np.float32), np.array(bounds, np.int64))

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def group_index(self) -> NDArray[np.int64]:
        """(N,) group index of each text."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def positive_counts(self) -> NDArray[np.int64]:
        """(G,) number of positives per group."""
        return np.bincount(self.group_index[self.labels > 0], minlength=len(self)).astype(np.int64)

    @property
    def evaluable(self) -> NDArray[np.bool_]:
        """(G,) True for groups with both a positive and a negative: only these can evaluate a ranking."""
        return (self.positive_counts > 0) & (self.positive_counts < np.diff(self.offsets))

    def group(self, index: int) -> dict[str, float]:
        """Return one group as text -> label."""
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return dict(zip(self.texts[part], self.labels[part].tolist(), strict=True))

    def select(self, mask: NDArray[np.bool_]) -> QueryTextGroups:
        """Select the groups where the (G,) mask is True."""
        selected = np.flatnonzero(mask).tolist()
        return QueryTextGroups.from_groups((self.queries[index], self.group(index)) for index in selected)

    def split(
        self, validation_share: float, seed: int, keep_without_positives: bool = False
    ) -> tuple[QueryTextGroups, QueryTextGroups]:
        """Split by query into training and validation groups; a query is never on both sides.

        Validation keeps only `evaluable` groups. keep_without_positives: training keeps groups without positives, which
        a teacher can still score. Raises ValueError if one side would be empty.
        """
        distinct = list(dict.fromkeys(self.queries))
        count = min(max(1, round(validation_share * len(distinct))), len(distinct) - 1)
        if count < 1:
            raise ValueError(
                f"found {len(distinct)} different queries, expected at least 2 to split off validation; add more"
            )
        validation_queries = {
            distinct[index] for index in np.random.default_rng(seed).permutation(len(distinct))[:count]
        }
        held_out = np.array([query in validation_queries for query in self.queries], np.bool_)
        train = self.select(~held_out & ((self.positive_counts > 0) | keep_without_positives))
        validation = self.select(held_out & self.evaluable)
        if not len(train) or not len(validation):
            raise ValueError(
                f"found {len(train)} groups to train on and {len(validation)} to validate on, expected some of both: "
                "a training group needs a positive text (label > 0), a validation group a positive and a negative"
            )
        return train, validation

    def subsample(self, max_groups: int, max_texts: int, seed: int) -> QueryTextGroups:
        """Sample at most `max_groups` groups, each with all positives and negatives up to `max_texts` texts."""
        dice = np.random.default_rng(seed)
        kept = np.sort(dice.permutation(len(self))[:max_groups]).tolist()
        sampled: list[tuple[str, dict[str, float]]] = []
        for index in kept:
            labelled = self.group(index)
            negatives = [text for text, label in labelled.items() if label <= 0]
            max_negatives = max(1, max_texts - len(labelled) + len(negatives))
            dropped = {negatives[n] for n in dice.permutation(len(negatives))[max_negatives:].tolist()}
            remaining = {text: label for text, label in labelled.items() if text not in dropped}
            sampled.append((self.queries[index], remaining))
        return QueryTextGroups.from_groups(sampled)

    @property
    def digest(self) -> str:
        """Hash the content of these groups, in hex."""
        content = hashlib.blake2b(digest_size=16)
        for text in (*self.queries, *self.texts):
            raw = text.encode("utf-8", "surrogatepass")
            content.update(len(raw).to_bytes(8, "little") + raw)
        content.update(self.labels.astype("<f4").tobytes())
        content.update(self.offsets.astype("<i8").tobytes())
        return content.hexdigest()


def from_batch(
    batch: Batch, labels: NDArray[np.float32], titles: Sequence[str], documents: Sequence[str]
) -> QueryTextGroups:
    """Build groups from a batch: the request text as the query, the candidates' documents as texts.

    labels: (N,) aligned with `batch.rows`. Groups without a request text or a positive are dropped, and so are
    candidates without a text.
    """
    groups: list[tuple[str, dict[str, float]]] = []
    for index, query in enumerate(request_texts(batch, titles)):
        part = slice(int(batch.offsets[index]), int(batch.offsets[index + 1]))
        labelled: dict[str, float] = {}
        for row, label in zip(batch.rows[part].tolist(), labels[part].tolist(), strict=True):
            if row >= 0 and documents[row]:
                labelled[documents[row]] = max(labelled.get(documents[row], 0.0), label)
        if query and any(label > 0 for label in labelled.values()):
            groups.append((query, labelled))
    return QueryTextGroups.from_groups(groups)


def with_hard_negatives(
    groups: QueryTextGroups, negatives_per_query: int, seed: int, bm25_depth: int = 30
) -> QueryTextGroups:
    """Add `negatives_per_query` negatives to each group: half hard negatives by BM25, half random.

    Hard negatives are sampled from the top `bm25_depth` texts of all groups by BM25. A text that is a positive of the
    same query in any group is never added.
    """
    positives: dict[str, set[str]] = {}
    for query, text, label in zip(
        np.repeat(np.array(groups.queries, object), np.diff(groups.offsets)), groups.texts, groups.labels, strict=True
    ):
        if label > 0:
            positives.setdefault(query, set()).add(text)
    texts = list(dict.fromkeys(groups.texts))
    top_rows = _bm25_top_texts(TermWeights.fit(texts), groups.queries, bm25_depth)
    dice = np.random.default_rng(seed)
    extended: list[tuple[str, dict[str, float]]] = []
    for index, query in enumerate(groups.queries):
        labelled = groups.group(index)
        taken = positives.get(query, set()) | labelled.keys()
        hard = [texts[row] for row in top_rows[index].tolist() if texts[row] not in taken]
        added = [
            hard[n] for n in dice.permutation(len(hard))[: negatives_per_query - negatives_per_query // 2].tolist()
        ]
        taken = taken.union(added)
        for row in dice.integers(0, len(texts), 20 * negatives_per_query).tolist():
            if len(added) >= negatives_per_query:
                break
            if texts[row] not in taken:
                added.append(texts[row])
                taken.add(texts[row])
        extended.append((query, labelled | dict.fromkeys(added, 0.0)))
    return QueryTextGroups.from_groups(extended)


def _bm25_top_texts(terms: TermWeights, queries: Sequence[str], depth: int) -> list[NDArray[np.int64]]:
    """Return the rows of the top `depth` texts by BM25 per query, best first, without texts that share no word."""
    n = len(terms.offsets) - 1
    weights = sparse.csr_matrix((terms.weights, terms.term_codes, terms.offsets), shape=(n, max(1, len(terms.terms))))
    top_rows: list[NDArray[np.int64]] = []
    for start in range(0, len(queries), QUERY_CHUNK):
        codes = [terms.encode_query(query) for query in queries[start : start + QUERY_CHUNK]]
        bounds = np.concatenate([[0], np.cumsum([len(query_codes) for query_codes in codes])])
        flat = np.concatenate([np.empty(0, np.int32), *codes]).astype(np.int32)
        query_terms = sparse.csr_matrix(
            (np.ones(len(flat), np.float32), flat, bounds), shape=(len(codes), weights.shape[1])
        )
        scores = (weights @ query_terms.T).toarray().T
        for row in scores:
            top = np.sort(np.argpartition(-row, min(depth, n - 1))[:depth])
            top = top[np.argsort(-row[top], kind="stable")]
            top_rows.append(top[row[top] > 0])
    return top_rows
