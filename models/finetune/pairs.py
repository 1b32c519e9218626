"""Training material for text models: queries with candidate texts and how well each text answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from engine.types import Batch, Offsets
from features.bm25 import TermWeights
from features.request_text import request_texts

QUERIES = 256
"""Queries that are held against all texts at a time."""


@dataclass(frozen=True, eq=False, slots=True)
class PairGroups:
    """G queries, each with its candidate texts, flattened, and a label a text."""

    queries: tuple[str, ...]
    """(G,) one a group; two groups may have the same."""
    texts: tuple[str, ...]
    """(N,) candidate texts, group after group, each once in its group."""
    labels: NDArray[np.float32]
    """(N,) how well each text answers its query: 0 not at all, 1, or more."""
    offsets: Offsets
    """(G + 1,) bounds of each group's texts."""

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.queries) + 1:
            raise ValueError(f"{len(self.offsets)} offsets for {len(self.queries)} queries; expected one more")
        if len(self.labels) != len(self.texts) or self.offsets[-1] != len(self.texts):
            raise ValueError(
                f"{len(self.texts)} texts, {len(self.labels)} labels, and offsets that end at {self.offsets[-1]}"
            )

    @classmethod
    def of(cls, groups: Iterable[tuple[str, Mapping[str, float]]]) -> PairGroups:
        """From (query, text -> label) a group."""
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
    def owner(self) -> NDArray[np.int64]:
        """(N,) the group of each text."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def positives(self) -> NDArray[np.int64]:
        """(G,) how many texts answer."""
        return np.bincount(self.owner[self.labels > 0], minlength=len(self)).astype(np.int64)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(G,) whether there is both a text that answers and one that does not: what an order can be measured on."""
        return (self.positives > 0) & (self.positives < np.diff(self.offsets))

    def group(self, place: int) -> dict[str, float]:
        """Text -> label of one group."""
        part = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        return dict(zip(self.texts[part], self.labels[part].tolist(), strict=True))

    def only(self, groups: NDArray[np.bool_]) -> PairGroups:
        """The groups where the (G,) mask is True."""
        kept = np.flatnonzero(groups).tolist()
        return PairGroups.of((self.queries[place], self.group(place)) for place in kept)

    def split(self, share: float, seed: int, unanswered: bool = False) -> tuple[PairGroups, PairGroups]:
        """Training groups, and validation groups of about this share of the queries; a query is on one side only.

        Validation has only groups that an order can be measured on. unanswered: training also has groups in which no
        text answers, of which a teacher has something to say.
        """
        distinct = list(dict.fromkeys(self.queries))
        count = min(max(1, round(share * len(distinct))), len(distinct) - 1)
        if count < 1:
            raise ValueError(f"found {len(distinct)} different queries, expected at least 2 to hold some out; add more")
        chosen = {distinct[place] for place in np.random.default_rng(seed).permutation(len(distinct))[:count]}
        held_out = np.array([query in chosen for query in self.queries], np.bool_)
        train = self.only(~held_out & ((self.positives > 0) | unanswered))
        validation = self.only(held_out & self.judged)
        if not len(train) or not len(validation):
            raise ValueError(
                f"found {len(train)} groups to train on and {len(validation)} to validate on, expected some of both: "
                "a group needs a text that answers, and to be validated on also one that does not"
            )
        return train, validation

    def thinned(self, groups: int, texts: int, seed: int) -> PairGroups:
        """At most so many groups, and of each all that answers and as many others as make up so many texts."""
        dice = np.random.default_rng(seed)
        kept = np.sort(dice.permutation(len(self))[:groups]).tolist()
        made: list[tuple[str, dict[str, float]]] = []
        for place in kept:
            labelled = self.group(place)
            others = [text for text, label in labelled.items() if label <= 0]
            most = max(1, texts - len(labelled) + len(others))
            dropped = {others[one] for one in dice.permutation(len(others))[most:].tolist()}
            made.append((self.queries[place], {text: one for text, one in labelled.items() if text not in dropped}))
        return PairGroups.of(made)

    @property
    def digest(self) -> str:
        """What tells these groups from others, in hex."""
        seen = hashlib.blake2b(digest_size=16)
        for text in (*self.queries, *self.texts):
            raw = text.encode("utf-8", "surrogatepass")
            seen.update(len(raw).to_bytes(8, "little") + raw)
        seen.update(self.labels.astype("<f4").tobytes())
        seen.update(self.offsets.astype("<i8").tobytes())
        return seen.hexdigest()


def from_examples(
    batch: Batch, labels: NDArray[np.float32], titles: Sequence[str], documents: Sequence[str]
) -> PairGroups:
    """What the requests of a batch say in words, with the documents of their candidates.

    labels: (N,) aligned with `batch.rows`. Groups without words or without a candidate that answers are left out, and
    so are candidates without a text.
    """
    found: list[tuple[str, dict[str, float]]] = []
    for place, query in enumerate(request_texts(batch, titles)):
        part = slice(int(batch.offsets[place]), int(batch.offsets[place + 1]))
        labelled: dict[str, float] = {}
        for row, label in zip(batch.rows[part].tolist(), labels[part].tolist(), strict=True):
            if row >= 0 and documents[row]:
                labelled[documents[row]] = max(labelled.get(documents[row], 0.0), label)
        if query and any(label > 0 for label in labelled.values()):
            found.append((query, labelled))
    return PairGroups.of(found)


def with_hard_negatives(groups: PairGroups, per_query: int, seed: int, depth: int = 30) -> PairGroups:
    """The groups, each with so many further texts that do not answer: half of them hard, half at random.

    The hard ones are drawn from the `depth` texts of all groups that BM25 puts first. No text is added that answers the
    same query in any group.
    """
    answers: dict[str, set[str]] = {}
    for query, text, label in zip(
        np.repeat(np.array(groups.queries, object), np.diff(groups.offsets)), groups.texts, groups.labels, strict=True
    ):
        if label > 0:
            answers.setdefault(query, set()).add(text)
    texts = list(dict.fromkeys(groups.texts))
    best = _best(TermWeights.fit(texts), groups.queries, depth)
    dice = np.random.default_rng(seed)
    made: list[tuple[str, dict[str, float]]] = []
    for place, query in enumerate(groups.queries):
        labelled = groups.group(place)
        taken = answers.get(query, set()) | labelled.keys()
        hard = [texts[row] for row in best[place].tolist() if texts[row] not in taken]
        added = [hard[one] for one in dice.permutation(len(hard))[: per_query - per_query // 2].tolist()]
        taken = taken.union(added)
        for row in dice.integers(0, len(texts), 20 * per_query).tolist():
            if len(added) >= per_query:
                break
            if texts[row] not in taken:
                added.append(texts[row])
                taken.add(texts[row])
        made.append((query, labelled | dict.fromkeys(added, 0.0)))
    return PairGroups.of(made)


def _best(terms: TermWeights, queries: Sequence[str], depth: int) -> list[NDArray[np.int64]]:
    """The rows of the texts that BM25 puts first for each query, of those that share a word with it."""
    n = len(terms.offsets) - 1
    weights = sparse.csr_matrix((terms.weights, terms.codes, terms.offsets), shape=(n, max(1, len(terms.terms))))
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(queries), QUERIES):
        codes = [terms.query(query) for query in queries[start : start + QUERIES]]
        bounds = np.concatenate([[0], np.cumsum([len(one) for one in codes])])
        flat = np.concatenate([np.empty(0, np.int32), *codes]).astype(np.int32)
        asked = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, bounds), shape=(len(codes), weights.shape[1]))
        scores = (weights @ asked.T).toarray().T
        for row in scores:
            first = np.sort(np.argpartition(-row, min(depth, n - 1))[:depth])
            first = first[np.argsort(-row[first], kind="stable")]
            found.append(first[row[first] > 0])
    return found
