"""The feature builder computes the feature matrix of a batch. It is the only place where features are made.

The columns come from feature families, each a function of the batch (`feedrank.features.families`). Position and ids
are never features. A missing value is NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.feature import Feature
from feedrank.engine.types import UNKNOWN_ROW, Batch, Matrix, Scores, Vector
from feedrank.features import custom_counters
from feedrank.features.declared.family import FAMILY, DeclaredFamily
from feedrank.features.families import text_relevance
from feedrank.features.families.extra import ExtraFamilyError, load_extra_families
from feedrank.features.families.family import Columns, FamilyFunction, FamilyInputs
from feedrank.features.families.history import ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS, RECENT_DECAY
from feedrank.features.families.rates import SMOOTHING
from feedrank.features.families.registry import FAMILIES
from feedrank.features.families.similarity import TOP_K, VECTOR_DECAYS
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.item_model import CROSS_ENCODER, ItemModel
from feedrank.features.late_interaction import MAX_HISTORY_ITEMS
from feedrank.features.state_spec import StateSpec


class FeatureBuilder:
    """Builds the feature matrix of a batch from its behavioural state and from the item model."""

    def __init__(
        self, item_model: ItemModel, spec: StateSpec, settings: FeatureSettings | None = None,
        category_shares: Vector | None = None,
    ) -> None:  # fmt: skip
        """Create the builder of an item model.

        category_shares: shares that the ranker was trained with, if items were added since; None: those of the
        catalogue. Raises ValueError if two features have one name, and ExtraFamilyError (a ValueError) if an extra
        family can't be used.
        """
        self.item_model = item_model
        self.spec = spec
        self.settings = settings or FeatureSettings()
        shares = _category_shares(item_model.catalogue)
        if category_shares is not None:
            shares[: len(category_shares)] = category_shares
        self.category_shares = shares
        self._families: dict[str, FamilyFunction] = {name: FAMILIES[name] for name in self.settings.families}
        if spec.declared:
            self._families[FAMILY] = DeclaredFamily(spec, item_model.vocabularies, item_model.term_statistics)
        self._families |= load_extra_families(self.settings.extra)
        self._features = self._declared_features()
        self._names = tuple(feature.name for feature in self._features)
        self._columns_of_known = self._without_lists()
        self._fingerprint = self._digest_settings()

    @property
    def features(self) -> tuple[Feature, ...]:
        """Feature records, in column order."""
        return self._features

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        return self._names

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered feature names and of all settings that change feature values."""
        return self._fingerprint

    def family_columns(self, batch: Batch) -> Iterator[tuple[str, Columns]]:
        """Compute one family after another; yield the name of each (the path of an extra one) and its columns."""
        earlier: dict[str, Scores] = {}
        if batch.disliked.size and batch.disliked.max() >= len(self.item_model.catalogue.ids):
            batch = _without_later_items(batch, len(self.item_model.catalogue.ids))
        inputs = FamilyInputs(self.item_model, self.spec, self.category_shares, earlier)
        for name, family in self._families.items():
            columns = family(batch, inputs)
            if name != CROSS_ENCODER:  # its scores may be filled in later, by `set_cross_encoder_features`
                for feature, column in columns.items():
                    earlier[feature.name] = column
            yield name, columns

    def declared_columns(self, batch: Batch | None = None) -> Iterator[tuple[str, Columns]]:
        """Compute one declared feature after another; yield the name of each and its columns.

        batch: None: one without candidates, for the records.
        """
        family = self._families.get(FAMILY)
        if isinstance(family, DeclaredFamily):
            yield from family.by_feature(_empty_batch(self.spec) if batch is None else batch)

    def columns(self, batch: Batch) -> dict[str, Scores]:
        """Compute the columns: feature name -> (N,) float32, in column order.

        Raises ValueError if a family returns other features than for other batches.
        """
        columns: dict[str, Scores] = {}
        for _, added in self.family_columns(batch):
            for feature, column in added.items():
                columns[feature.name] = column
        if tuple(columns) != self._names:
            differing = sorted(columns.keys() ^ set(self._names)) or ["the same ones in another order"]
            raise ValueError(
                f"found other features than for a batch without candidates: {', '.join(differing)}; "
                "a family must return the same features for every batch"
            )
        return columns

    def matrix(self, batch: Batch) -> Matrix:
        """Compute the feature matrix: (N, F) float32, NaN where a value is missing."""
        columns = self.columns(batch)
        out = np.empty((len(batch.rows), len(columns)), np.float32)
        for i, column in enumerate(columns.values()):
            out[:, i] = column
        unknown = np.flatnonzero(batch.rows < 0)
        if len(unknown):
            out[np.ix_(unknown, self._columns_of_known)] = np.nan
        return out

    def set_cross_encoder_features(self, matrix: Matrix, batch: Batch) -> None:
        """Overwrite the cross-encoder columns of a matrix with the batch's scores; other columns stay."""
        if CROSS_ENCODER not in self._families:
            return
        inputs = FamilyInputs(self.item_model, self.spec, self.category_shares, {})
        for feature, column in self._families[CROSS_ENCODER](batch, inputs).items():
            matrix[:, self._names.index(feature.name)] = np.where(batch.rows >= 0, column, np.nan)

    def _digest_settings(self) -> str:
        inputs: list[Any] = [
            self._names,
            self.spec.half_lives_h,
            self.spec.history_length,
            VECTOR_DECAYS,
            ITEM_ITEM_DECAYS,
            ITEM_ITEM_DEPTHS,
            RECENT_DECAY,
            text_relevance.BM25_TITLES,
            self.item_model.term_weights.fingerprint,
            MAX_HISTORY_ITEMS,
            SMOOTHING,
            TOP_K,
            [asdict(counter) for counter in self.spec.counters],
            sorted(self.item_model.model_digests.items()),
            self.spec.interactions.to_dict(),
        ]
        if self.spec.declared:
            declared = [feature.to_dict() for feature in self.spec.declared]
            vocabularies = {name: known.values for name, known in self.item_model.vocabularies.items()}
            inputs += [declared, sorted(vocabularies.items())]
            inputs += [[name, known.digest] for name, known in sorted(self.item_model.term_statistics.items())]
        if self.settings.extra:
            inputs.append(self.settings.extra)
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]

    def _without_lists(self) -> NDArray[np.int64]:
        """Return the indices of the columns that unknown items do not have: all but those of what a list brought."""
        of_lists: set[str] = set()
        if self.spec.declared:
            family = DeclaredFamily(self.spec, self.item_model.vocabularies, self.item_model.term_statistics)
            of_lists = {feature.name for feature in family.columns_of_lists(_empty_batch(self.spec))}
        return np.array([index for index, name in enumerate(self._names) if name not in of_lists], np.int64)

    def _declared_features(self) -> tuple[Feature, ...]:
        """Return the records of all families. Raises ValueError for a name or a family that is taken."""
        by_name: dict[str, Feature] = {}
        owners: dict[str, str] = {}
        for family, columns in self.family_columns(_empty_batch(self.spec)):
            for feature in columns:
                _check_family(family, feature, owners)
                if (other := by_name.get(feature.name)) is not None:
                    raise ValueError(
                        f"two features are named {feature.name}, in the families {other.family} and {feature.family}; "
                        "rename one, or its counter"
                    )
                by_name[feature.name] = feature
        return tuple(by_name.values())


def _check_family(name: str, feature: Feature, owners: dict[str, str]) -> None:
    """Check the family of a record. owners: record's family -> family function that has it. Raises ValueError."""
    if name in FAMILIES or name == FAMILY:
        if feature.family != name:
            raise ValueError(f"the record of {feature.name} is of the family {feature.family!r}, expected {name!r}")
    elif feature.family in (*FAMILIES, FAMILY) or owners.get(feature.family, name) != name:
        raise ExtraFamilyError(
            f"the extra feature family {name!r} has the feature {feature.name} in the family {feature.family!r}, which "
            f"is {'built in' if feature.family in FAMILIES else f'that of {owners[feature.family]!r}'}; "
            "choose another family in its record"
        )
    owners[feature.family] = name


def _without_later_items(batch: Batch, n_items: int) -> Batch:
    """Leave out dislikes of items that the state knows and the item model does not know yet; the others move up."""
    is_later = batch.disliked >= n_items
    order = np.argsort(is_later, axis=1, kind="stable")
    disliked = np.where(is_later, UNKNOWN_ROW, batch.disliked)
    at = np.where(is_later, np.nan, batch.disliked_at)
    return replace(
        batch,
        disliked=np.take_along_axis(disliked, order, axis=1).astype(np.int32),
        disliked_at=np.take_along_axis(at, order, axis=1),
    )


def _category_shares(catalogue: Catalogue) -> Vector:
    """Compute the (categories,) share of each category in the catalogue; an item's weight is split evenly."""
    sizes = np.diff(catalogue.category_offsets)
    weights = np.repeat(1 / np.maximum(sizes, 1), sizes)
    shares = np.bincount(catalogue.category_codes, weights, len(catalogue.categories))
    return np.asarray(shares / max(shares.sum(), 1), np.float32)


def _empty_batch(spec: StateSpec) -> Batch:
    """Build a batch of one request without candidates, to get the records of the features."""
    empty = np.empty(0, np.float32)
    return Batch(
        at=np.zeros(1),
        rows=np.empty(0, np.int32),
        offsets=np.zeros(2, np.int64),
        history=np.full((1, spec.history_length), -1, np.int32),
        history_at=np.full((1, spec.history_length), np.nan),
        interaction_count=np.zeros(1, np.int64),
        impressions=empty,
        item_age=empty,
        since_interaction=empty,
        counters=np.empty((0, spec.width), np.float32),
        custom_counters=np.empty((0, custom_counters.n_columns(spec.counters)), np.float32),
    )
