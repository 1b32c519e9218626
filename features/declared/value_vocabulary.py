"""The values of a category that a ranker was trained with, and their codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_forms import value_hash
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.forms import all_forms_of

CODED_KINDS = ("numbers", "category", "list", "user_agent", "referer")


@dataclass(frozen=True, eq=False, slots=True)
class ValueVocabulary:
    """Values with their codes: the most frequent value has code 0."""

    values: tuple[str, ...]
    _hashes: NDArray[np.int64]
    _codes: NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[str]) -> ValueVocabulary:
        """Give codes to values in this order."""
        hashes = np.array([value_hash(value) for value in values], np.int64)
        order = np.argsort(hashes)
        return cls(tuple(values), hashes[order], order.astype(np.int32))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def column_names(self) -> list[str]:
        """What stands for each value in the name of a column: its letters and digits; its code where they are none."""
        names: dict[str, None] = {}
        for code, value in enumerate(self.values):
            name = "".join(character if character.isalnum() or character in "._-" else "_" for character in value)
            names[f"{name}_{code}" if name in names or not name.strip("_") else name] = None
        return list(names)

    def codes(self, hashes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the code of each hash; -1 for a value that the ranker was not trained with."""
        if not len(self.values):
            return np.full(hashes.shape, -1, np.int32)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[place] == hashes, self._codes[place], -1).astype(np.int32)


def fit_vocabularies(
    features: Sequence[DeclaredFeature], counts: Mapping[tuple[str, str, str], Mapping[str, int]]
) -> dict[str, ValueVocabulary]:
    """Return name of a feature -> the most frequent values of its field, for the kinds that code values.

    counts: `FieldTable.value_counts`. Equally frequent values are in order of their text. Values that a feature lists
    are taken as they are.
    """
    found = {}
    for feature in features:
        if feature.kind in CODED_KINDS:
            of_field = Counter[str]()
            for form in all_forms_of(feature):
                of_field.update(counts.get(form.key, {}))
            ranked = sorted(of_field, key=lambda value: (-of_field[value], value))
            found[feature.name] = ValueVocabulary.of(feature.values or ranked[: feature.max_values])
    return found
