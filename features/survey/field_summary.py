"""What a survey found out about one field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feedrank.features.survey.field_type import FieldType

MAX_VALUES = 10_000
"""Distinct values of a field that are counted, and numbers that are kept."""


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field of items, users, requests or lists, in numbers. Shares are from 0 to 1."""

    source: str
    """item, user, request or list."""
    field: str
    type: FieldType
    entities: int
    """Number of items, users, rankings or listed items in the survey that have a value."""
    missing_share: float
    """Share of those in the survey that have none."""
    distinct: int
    """Number of distinct values; those of a list count each."""
    has_more: bool
    """Whether there are more distinct values than were counted."""
    top: Mapping[str, int]
    """The most frequent values, with how often each occurs; empty for long texts."""
    changes: float = 0.0
    """Changes of the value per item or user."""
    known_share: float | None = None
    """Share of the shown items, or of the rankings' users, that have a value for whom it was set before the ranking;
    None: not known."""
    quantiles: tuple[float, ...] = ()
    """Least number, quartiles and greatest number; empty without numbers."""
    is_whole: bool = False
    """Whether all numbers are whole."""
    mean_words: float = 0.0
    """Words per text."""
    shown_share: float = 0.0
    """Of a field of requests: share of the values that name an item of the ranking."""
    label_auc: float | None = None
    """AUC of the number alone for what was clicked in each ranking; None: not measured."""

    @property
    def name(self) -> str:
        """The field as declared features name it, such as item.price."""
        return f"{self.source}.{self.field}"
