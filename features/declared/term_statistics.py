"""What BM25 knows of the texts of a field: how many of the items have each word, and how long the texts are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_forms import ITEM, USER
from feedrank.engine.events.field_table import FieldTable
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.forms import forms_of

BM25 = "bm25"


@dataclass(frozen=True, eq=False, slots=True)
class TermStatistics:
    """Document frequencies of the words of a field, at training. Words of one document alone are not stored."""

    hashes: NDArray[np.int64]
    """(terms,) hashes of the words, ascending."""
    counts: NDArray[np.int64]
    """(terms,) number of documents that have each."""
    totals: NDArray[np.float64]
    """(2,) number of documents with a word, and their mean length in words."""

    @classmethod
    def of(cls, documents: Sequence[NDArray[np.int64]]) -> TermStatistics:
        """Count the words of documents, each encoded by `encoders.document`; those without a word do not count."""
        known = [document for document in documents if len(document) > 1]
        words = [np.unique(document[1:]) for document in known]
        hashes, counts = np.unique(np.concatenate([np.empty(0, np.int64), *words]), return_counts=True)
        lengths = [int(document[0]) for document in known]
        totals = np.array([len(known), float(np.mean(lengths)) if known else 1.0])
        return cls(hashes[counts > 1], counts[counts > 1], totals)

    @property
    def digest(self) -> str:
        """Digest of all numbers."""
        return hashlib.sha256(
            b"".join(column.tobytes() for column in (self.hashes, self.counts, self.totals))
        ).hexdigest()


def fit_term_statistics(features: Sequence[DeclaredFeature], fields: FieldTable) -> dict[str, TermStatistics]:
    """Return name of a feature -> the statistics of the field in its `to`, for those that match by BM25.

    The documents are the latest values of the field in the log: one of each item or user that has it, or each list or
    request.
    """
    found = {}
    for feature in features:
        if feature.kind == "match" and feature.method == BM25:
            form = forms_of(feature)[1]
            bounds = _bounds(fields, form.source, fields.forms.indices(form.source)[form.key])
            found[feature.name] = TermStatistics.of([fields.pool[start:stop] for start, stop in bounds.tolist()])
    return found


def _bounds(fields: FieldTable, source: str, index: int) -> NDArray[np.int64]:
    """Return the (documents, 2) bounds of the latest values of a form in the pool of the log."""
    if source not in (ITEM, USER):
        columns = fields.requests if source == "request" else fields.lists
        column = index - len(fields.forms.numbers[source])
        return np.stack([columns.starts[column], columns.stops[column]], axis=-1)
    changes = fields.changes
    chosen = np.flatnonzero((changes.form == index) & (changes.is_user == (source == USER)) & (changes.row >= 0))
    chosen = chosen[np.argsort(changes.valid_s[chosen], kind="stable")]
    latest = chosen[len(chosen) - 1 - np.unique(changes.row[chosen][::-1], return_index=True)[1]]
    return np.stack([changes.start[latest], changes.stop[latest]], axis=-1)
