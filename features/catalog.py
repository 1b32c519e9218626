"""The feature catalog lists the features that settings give, without data and without a bundle."""

from __future__ import annotations

from feedrank.engine.feature import Feature
from feedrank.features.builder import FeatureBuilder
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.sample_item_model import ItemModelParts, sample_item_model
from feedrank.features.state_spec import StateSpec


def all_features(
    settings: FeatureSettings | None = None, spec: StateSpec | None = None, parts: ItemModelParts | None = None
) -> list[Feature]:
    """Return the records of all features in column order; the defaults are those of the config.

    settings: the families, with your own. spec: half-lives and custom counters. parts: names of the item model's views,
    matrices and statistics; by default all that can be fitted, with late interaction and cross-encoder. Raises
    ValueError if two features have one name or an extra family can't be used.
    """
    # the builder itself is asked, on a catalogue of one item, so that this list can't differ from the feature matrix
    return list(FeatureBuilder(sample_item_model(1, parts), spec or StateSpec(), settings).features)
