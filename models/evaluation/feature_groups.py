"""The groups of features that ablation leaves out: signals, families of your own, and declared features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from feedrank.engine.feature import Feature
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.declared_batch import FAMILY as DECLARED
from feedrank.features.families.registry import FAMILIES

SIGNAL_PREFIXES: dict[str, tuple[str, ...]] = {
    "bm25": ("bm25",),
    "embedding": ("text_", "content_", "cca_", "query_cosine"),
    "late interaction": ("maxsim_",),
    "cross-encoder": ("ce_",),
}
"""Signal group -> prefixes of its feature names; all other built-in features count as behaviour."""
BEHAVIOUR = "behaviour"
JOINT_GROUPS = ("late interaction", "cross-encoder")
"""The optional signal groups; they are also ablated together."""

GroupKind: TypeAlias = Literal["signal", "family", "field", "feature"]


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """Features that are left out together."""

    name: str
    kind: GroupKind
    """signal: built-in features of one signal; family: those of an own family, or all declared ones; field: the
    declared features that read a field; feature: one declared feature."""
    columns: tuple[int, ...]
    """Its columns in the feature matrix."""


def feature_groups(builder: FeatureBuilder) -> list[FeatureGroup]:
    """Return the groups of the features of a builder: signals, families, fields, then each declared feature alone.

    A group whose columns are those of an earlier one is left out.
    """
    by_feature = declared_columns(builder)
    groups = [*_signals(builder.features), *_families(builder.features)]
    by_field: dict[str, list[str]] = {}
    for feature in builder.spec.declared:
        for field in feature.fields:
            by_field.setdefault(field, []).append(feature.name)
    for field, names in by_field.items():
        if len(names) > 1:
            columns = sorted(column for name in names for column in by_feature[name])
            groups.append(FeatureGroup(field, "field", tuple(columns)))
    groups += [FeatureGroup(name, "feature", columns) for name, columns in by_feature.items()]
    first = {group.columns: group for group in reversed(groups)}
    return [group for group in groups if group.columns and first[group.columns] is group]


def declared_columns(builder: FeatureBuilder) -> dict[str, tuple[int, ...]]:
    """Return declared feature -> its columns in the feature matrix."""
    index = {name: column for column, name in enumerate(builder.names)}
    return {
        name: tuple(index[record.name] for record in columns) for name, columns in builder.declared_columns()
    }  # fmt: skip


def _signals(features: Sequence[Feature]) -> list[FeatureGroup]:
    """Return the signal groups that have columns, listwise columns included.

    Where all optional groups (`JOINT_GROUPS`) are present, one more group joins their columns.
    """
    by_signal: dict[str, list[int]] = {signal: [] for signal in (*SIGNAL_PREFIXES, BEHAVIOUR)}
    for column, feature in enumerate(features):
        if feature.family in FAMILIES:
            begins = (group for group, prefixes in SIGNAL_PREFIXES.items() if feature.name.startswith(prefixes))
            by_signal[next(begins, BEHAVIOUR)].append(column)
    if all(by_signal[signal] for signal in JOINT_GROUPS):
        by_signal[" and ".join(JOINT_GROUPS)] = [column for signal in JOINT_GROUPS for column in by_signal[signal]]
    return [FeatureGroup(signal, "signal", tuple(columns)) for signal, columns in by_signal.items() if columns]


def _families(features: Sequence[Feature]) -> list[FeatureGroup]:
    """Return the families that are not built in: all declared features, and each extra family."""
    by_family: dict[str, list[int]] = {}
    for column, feature in enumerate(features):
        if feature.family not in FAMILIES:
            by_family.setdefault(feature.family, []).append(column)
    ordered = sorted(by_family, key=lambda family: family != DECLARED)
    return [FeatureGroup(family, "family", tuple(by_family[family])) for family in ordered]
