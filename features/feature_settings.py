"""The feature settings say which feature families the feature matrix has."""

from __future__ import annotations

from dataclasses import dataclass

from feedrank.engine.plugins import is_plugin_path
from feedrank.features.declared.declaration import DeclaredFeature, check_declared
from feedrank.features.families.registry import FAMILIES


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """[features] Which feature families the matrix has."""

    families: tuple[str, ...] = (
        "recall", "bm25", "similarity", "late_interaction", "cross_encoder", "item_item", "rates", "recency",
        "categories", "item_stats", "custom_counters", "user", "dislikes", "listwise",
    )  # fmt: skip
    """The built-in families, in column order; `feedrank features` lists their features."""
    extra: tuple[str, ...] = ()
    """Families of your own, as "package.module:function"; their columns follow those of the built-in families."""
    declared: tuple[DeclaredFeature, ...] = ()
    """Features of fields that your events and requests have: one table [[features.declared]] each."""

    def __post_init__(self) -> None:
        check_declared(self.declared)
        for name in self.families:
            if name not in FAMILIES:
                raise ValueError(f"no feature family {name!r}; there are {', '.join(FAMILIES)}")
        for path in self.extra:
            if not is_plugin_path(path):
                raise ValueError(f'extra has {path!r}; expected a function as "package.module:function"')
        for key, names in (("families", self.families), ("extra", self.extra)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{key} has {', '.join(twice)} twice; name each once")
