"""Finds declared fields that a log has no values for, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER, FieldForm
from feedrank.engine.events.field_table import FieldTable
from feedrank.features.declared.counter_plan import forms_of_all
from feedrank.features.declared.declaration import DeclaredFeature

LATE_SHARE = 0.95
"""A field whose first value is later than this share of the rankings comes too late for training."""
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
        of = "feature" if len(self.features) == 1 else "features"
        return f"the declared {of} {', '.join(self.features)} read {self.field}, but {self.reason}"


def field_problems(features: Sequence[DeclaredFeature], log: EventTable) -> list[FieldProblem]:
    """Return the fields of declared features that no event has, or only later ones than nearly all rankings.

    A log without a table of these features' fields has no problem that can be told.
    """
    readers: dict[tuple[str, str], list[FieldForm]] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for feature in features:
        for key in forms_of_all([feature]).of_field:
            names.setdefault(key, []).append(feature.name)
    for key, entries in forms_of_all(features).of_field.items():
        readers[key] = [form for _, form in entries]
    table = log.fields
    if table is None:
        return []
    known = set(table.forms.keys)
    problems = []
    for (source, name), forms in readers.items():
        if any(form.key not in known for form in forms):
            continue
        found, first = _values(table, len(log.interactions), forms)
        reason = _no_value(table, source, name, forms) if not found else _too_late(log, source, found, first)
        if reason:
            problems.append(FieldProblem(f"{source}.{name}", tuple(dict.fromkeys(names[source, name])), reason))
    return problems


def _values(table: FieldTable, n_interactions: int, forms: Sequence[FieldForm]) -> tuple[int, int]:
    """Return how many values a log has for some forms of one field, and how many events stand before the first one."""
    found, first = 0, -1
    for form in forms:
        column = table.forms.column(form)
        if form.source in (ITEM, USER):
            changes, index = table.changes, table.forms.indices(form.source)[form.key]
            of_form = (changes.is_user == (form.source == USER)) & (changes.form == index) & (changes.row >= 0)
            has_value = of_form & (~np.isnan(changes.number) if form.is_number else changes.stop > changes.start)
            if has_value.any():
                before = int(changes.position[has_value].min())
                first = before if first < 0 else min(first, before)
        else:
            columns, start = (table.requests, n_interactions) if form.source == REQUEST else (table.lists, 0)
            if form.is_number:
                has_value = ~np.isnan(columns.numbers[column, start:])
            else:
                has_value = columns.stops[column, start:] > columns.starts[column, start:]
        found += int(has_value.sum())
    return found, first


def _no_value(table: FieldTable, source: str, field: str, forms: Sequence[FieldForm]) -> str:
    what, own = _WHAT[source], table.names.get(source, frozenset())
    if field in own:
        return f"no {what} has a value there that can be read as {' or '.join(_form_name(form) for form in forms)}"
    elsewhere = [f"{other}.{field}" for other, names in table.names.items() if field in names]
    close = [f"{source}.{name}" for name in get_close_matches(field, own, 1)]
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


def _form_name(form: FieldForm) -> str:
    return {"number": "a number", "boolean": "yes or no", "time": "a time", "zone": "a time zone"}.get(
        form.name, "text"
    )
