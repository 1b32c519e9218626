"""What the features of a Metarank config become, while they are imported one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from feedrank.api.metarank.section import Report

Declared: TypeAlias = dict[str, Any]
"""Key -> value of a declared feature, as in the config file."""


@dataclass(slots=True)
class ImportedFeatures:
    """What the features of a file become."""

    report: Report
    declared: dict[str, list[Declared]] = field(default_factory=dict)
    """Name of a feature of Metarank -> the declared features that it becomes; empty: something else does its work."""
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Section of the config -> key -> value, for what built-in families compute."""
    number_fields: frozenset[str] = frozenset()
    """Fields that a feature of the file reads as numbers."""
    text_fields: frozenset[str] = frozenset()
    """Fields that a feature of the file reads as texts."""
