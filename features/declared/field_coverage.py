"""Finds declared fields that a log has no values for, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.field_forms import ALL_FIELDS, ITEM, LIST, REQUEST, USER, FieldForm
from feedrank.engine.events.field_table import FieldTable
from feedrank.features.declared.counter_plan import forms_of_all
from feedrank.features.declared.declaration import DeclaredFeature

LATE_SHARE = 0.95
"""A field whose first value is later than this share of the rankings comes too late for training."""
_FORM_NAMES = {"number": "a number", "boolean": "yes or no", "time": "a time", "zone": "a time zone"}
_WHAT = {ITEM: "item event", USER: "user event", REQUEST: "ranking", LIST: "given list"}


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """Why declared features of a field have no values."""

    field: str
    """Such as item.price."""
    features: tuple[str, ...]
    """The declared features that read it."""
    reason: str

    def sentence(self) -> str:
        """Return what was found, in a sentence."""
        names = ", ".join(self.features)
        said = f"feature {names} reads" if len(self.features) == 1 else f"features {names} read"
        return f"the declared {said} {self.field}, but {self.reason}"


def field_problems(features: Sequence[DeclaredFeature], log: EventTable) -> list[FieldProblem]:
    """Return the fields of declared features that no event has, or only later ones than nearly all rankings.

    A log without a table of these features' fields has no problem that is known.
    """
    table = log.fields
    if table is None:
        return []
    readers: dict[FieldForm, list[str]] = {}
    for feature in features:
        if feature.fallback:  # a field that some bring, and most do not
            continue
        for entries in forms_of_all([feature]).of_field.values():
            for _, form in entries:
                same = next((known for known in readers if known.key == form.key), form)
                readers.setdefault(same, []).append(feature.name)
    known_forms = set(table.forms.keys)
    problems: dict[tuple[str, str], list[str]] = {}
    for form, names in readers.items():
        if form.key in known_forms:
            found, first = _values(table, len(log.interactions), form)
            reason = _too_late(log, form.source, found, first) if found else _no_value(table, form)
            if reason:
                problems.setdefault((f"{form.source}.{form.field}", reason), []).extend(names)
    return [
        FieldProblem(field, tuple(dict.fromkeys(names)), reason) for (field, reason), names in problems.items()
    ]  # fmt: skip


def _values(table: FieldTable, n_interactions: int, form: FieldForm) -> tuple[int, int]:
    """Return how many values of a form a log has, and how many events stand before the first one of an entity."""
    column = table.forms.column(form)
    if form.source in (ITEM, USER):
        changes, index = table.changes, table.forms.indices(form.source)[form.key]
        of_form = (changes.is_user == (form.source == USER)) & (changes.form == index) & (changes.row >= 0)
        has_value = of_form & (~np.isnan(changes.number) if form.is_number else changes.stop > changes.start)
        return int(has_value.sum()), int(changes.position[has_value].min()) if has_value.any() else 0
    columns, start = (table.requests, n_interactions) if form.source == REQUEST else (table.lists, 0)
    if form.is_number:
        return int((~np.isnan(columns.numbers[column, start:])).sum()), 0
    return int((columns.stops[column, start:] > columns.starts[column, start:]).sum()), 0


def _no_value(table: FieldTable, form: FieldForm) -> str:
    what, own = _WHAT[form.source], table.names.get(form.source, frozenset())
    if form.field == ALL_FIELDS:
        return f"no {what} has a field that is a number"
    if form.field in own:
        return f"no {what} has a value there that can be read as {_FORM_NAMES.get(form.name, 'text')}"
    elsewhere = [f"{other}.{form.field}" for other, names in table.names.items() if form.field in names]
    close = [f"{form.source}.{name}" for name in get_close_matches(form.field, own, 1)]
    advice = f"; did you mean {' or '.join((*elsewhere, *close))}?" if elsewhere or close else ""
    listed = ", ".join(sorted(own)[:8]) + (", ..." if len(own) > 8 else "")
    there = f"; fields there are {listed}" if own and not advice else ""
    return f"no {what} has this field{advice}{there}"


def _too_late(log: EventTable, source: str, found: int, first: int) -> str:
    if source not in (ITEM, USER) or not len(log.rankings):
        return ""
    positions = log.event_positions()[len(log.interactions) :]
    share = float((positions < first).mean())
    if share < LATE_SHARE:
        return ""
    return (
        f"all its {found:,} values are of events later than {share:.0%} of the rankings, where it is missing; import"
        " the values with the times from which they held"
    )
