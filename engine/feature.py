"""The record of a feature says what one column of the feature matrix means."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

_REFUSED = re.compile(r'[\s",:\[\]{}]')
"""Characters that LightGBM refuses or replaces in feature names."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Describes one feature, which is one column of the feature matrix. Raises ValueError for an unusable record."""

    name: str
    """Unique name of the column; no spaces and none of `" , : [ ] { }`, which LightGBM refuses."""
    family: str
    """Name of the feature family that computes it."""
    sentence: str
    """What the feature says, in one sentence."""
    unit: str
    """Unit or scale of the value, such as hours, or log(1 + count)."""
    missing: str
    """When the value is missing (NaN) for an item of the catalogue; `never` if it always exists."""
    is_category: bool = False
    """Whether values are codes without an order; LightGBM splits them into sets."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "is_category":
                continue
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{entry.name} of the feature {self.name!r} is {value!r}; expected a text")
        if found := _REFUSED.search(self.name):
            raise ValueError(
                f"the feature name {self.name!r} has the character {found[0]!r}, which LightGBM refuses; "
                "use letters, digits, dots and underscores"
            )
