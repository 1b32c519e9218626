"""Surveys the fields of events in bounded memory: how many have a field, of which type, how often it changes."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import ItemEvent, RankingEvent, UserEvent, valid_from
from feedrank.engine.events.field_collector import item_fields_of, request_fields
from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER, value_hash
from feedrank.features.declared.encoders import texts_of
from feedrank.features.survey.field_summary import MAX_VALUES, FieldSummary
from feedrank.features.survey.field_type import FieldType, common_type, type_of

MAX_ENTITIES = 20_000
"""Items and users whose fields are followed over time."""
MAX_FIELDS = 1_000
"""Fields of one source; further ones are passed over."""
LONG_TEXT = 200
"""Longer values count by their hash. Unit: characters."""
MAX_SHOWN = 50
"""Items of a ranking that are looked at."""
MAX_MOMENTS = 20_000
"""Rankings whose items and users are compared with the times of their fields."""
MAX_LABELLED = 3_000
"""Rankings whose clicks are compared with the numbers of their items."""
MAX_SINGLE = 1.02
"""Lists with at most so many values on average are single values."""
MIN_LABELLED = 50
"""Rankings in which a number must differ so that it is compared with the clicks."""


class _Field:
    """Counts of one field."""

    def __init__(self) -> None:
        self.types: Counter[FieldType] = Counter()
        self.values: Counter[str] = Counter()
        self.has_more = False
        self.numbers = array("d")
        self.n_numbers = 0
        self.is_whole = True
        self.words = self.n_texts = 0
        self.n_listed = 0
        self.entities = 0
        self.changes = 0
        self.last: dict[str, int] = {}
        self.first_ms: dict[str, int] = {}
        self.last_number: dict[str, float] = {}
        self.moments = self.known = 0
        self.of_list = 0
        self.aucs = array("d")

    def add(self, value: FieldValue, chance: random.Random) -> FieldType:
        """Count a value; return its type."""
        kind = type_of(value)
        self.types[kind] += 1
        if kind == "empty":
            return kind
        if kind in ("number", "boolean"):
            self._add_number(_as_number(value), chance)
        if isinstance(value, str):
            self.words += len(value.split())
            self.n_texts += 1
        if kind != "list of numbers":
            for text in texts_of(value):
                self.n_listed += kind == "list"
                self._count(text if len(text) <= LONG_TEXT else f"#{value_hash(text)}")
        return kind

    def _count(self, text: str) -> None:
        if text in self.values or len(self.values) < MAX_VALUES:
            self.values[text] += 1
        else:
            self.has_more = True

    def _add_number(self, number: float, chance: random.Random) -> None:
        self.n_numbers += 1
        self.is_whole &= number.is_integer()
        if len(self.numbers) < MAX_VALUES:
            self.numbers.append(number)
        elif (place := chance.randrange(self.n_numbers)) < MAX_VALUES:  # a uniform sample (Vitter, algorithm R)
            self.numbers[place] = number


class FieldSurvey:
    """Observes item and user events, then rankings; memory is bounded by the constants of this module."""

    def __init__(self, seed: int = 0) -> None:
        """Start without events. seed: of the sample of numbers."""
        self._chance = random.Random(seed)
        self._fields: dict[str, dict[str, _Field]] = {source: {} for source in (ITEM, USER, REQUEST, LIST)}
        self._followed: dict[str, set[str]] = {ITEM: set(), USER: set()}
        self.counts = {ITEM: 0, USER: 0, REQUEST: 0, LIST: 0}
        """Number of followed items and users, of rankings, and of their items."""
        self._moments = self._labelled = 0

    def add_item(self, event: ItemEvent) -> None:
        """Add the fields of an item event."""
        self._add_entity(ITEM, event.item, event)

    def add_user(self, event: UserEvent) -> None:
        """Add the fields of a user event."""
        self._add_entity(USER, event.user, event)

    def add_ranking(self, event: RankingEvent, clicked: Collection[str] = ()) -> None:
        """Add the fields of a ranking and of its list; clicked: its items that got a positive interaction."""
        self.counts[REQUEST] += 1
        shown = event.items[:MAX_SHOWN]
        for name, value in request_fields(event.fields, event.surface).items():
            if (field := self._field(REQUEST, name)) is not None and field.add(value, self._chance) != "empty":
                field.entities += 1
                field.of_list += isinstance(value, str) and value in event.items
        given = item_fields_of(event)
        self.counts[LIST] += len(shown)
        for name, values in given.items():
            if (field := self._field(LIST, name)) is not None:
                for entry in values[: len(shown)]:
                    field.entities += entry is not None and field.add(entry, self._chance) != "empty"
        self.add_moment(event.timestamp if event.received is None else event.received, event.user, shown)
        if clicked and self._labelled < MAX_LABELLED:
            self._compare(shown, given, [item in clicked for item in shown])

    def add_moment(self, at_ms: int, user: str | None, items: Sequence[str]) -> None:
        """Note whether the fields of items and of a user were set before a moment."""
        if self._moments >= MAX_MOMENTS:
            return
        self._moments += 1
        for source, names in ((ITEM, items), (USER, () if user is None else (user,))):
            for field in self._fields[source].values():
                first_ms = [field.first_ms[name] for name in names if name in field.first_ms]
                field.moments += len(first_ms)
                field.known += sum(time_ms <= at_ms for time_ms in first_ms)

    def summaries(self) -> list[FieldSummary]:
        """Return the summary of each field: of items, users, requests and lists, by name."""
        return [
            self._summary(source, name, field)
            for source, fields in self._fields.items()
            for name, field in sorted(fields.items())
        ]

    def _field(self, source: str, name: str) -> _Field | None:
        fields = self._fields[source]
        if name not in fields and len(fields) < MAX_FIELDS:
            fields[name] = _Field()
        return fields.get(name)

    def _add_entity(self, source: str, entity: str, event: ItemEvent | UserEvent) -> None:
        followed = self._followed[source]
        if entity not in followed:
            if len(followed) >= MAX_ENTITIES:
                return
            followed.add(entity)
            self.counts[source] += 1
        time_ms = valid_from(event)
        for name, value in event.fields.items():
            if (field := self._field(source, name)) is None or type_of(value) == "empty":
                continue
            digest = hash(str(value))
            before = field.last.get(entity)
            field.entities += before is None
            field.changes += before is not None and before != digest
            field.last[entity] = digest
            field.first_ms[entity] = min(time_ms, field.first_ms.get(entity, time_ms))
            if before != digest and field.add(value, self._chance) in ("number", "boolean"):
                field.last_number[entity] = _as_number(value)

    def _compare(
        self, shown: Sequence[str], given: Mapping[str, Sequence[FieldValue | None]], clicked: Sequence[bool]
    ) -> None:
        labels = np.array(clicked)
        if labels.all() or not labels.any():
            return
        self._labelled += 1
        for field in self._fields[ITEM].values():
            if field.last_number and not field.changes:
                _add_auc(field, [field.last_number.get(item, np.nan) for item in shown], labels)
        for name, values in given.items():
            if (of_list := self._fields[LIST].get(name)) is not None and of_list.n_numbers:
                _add_auc(of_list, [_as_number(value) for value in values[: len(shown)]], labels)

    def _summary(self, source: str, name: str, field: _Field) -> FieldSummary:
        total = self.counts[source]
        numbers = np.frombuffer(field.numbers) if len(field.numbers) else np.empty(0)
        has_auc = len(field.aucs) >= MIN_LABELLED and not field.changes
        kind = common_type(field.types)
        if kind == "list" and field.n_listed <= MAX_SINGLE * field.types["list"]:
            kind = "text"  # lists of one value each
        return FieldSummary(
            source, name, kind, field.entities, 1 - field.entities / max(total, 1),
            len(field.values), field.has_more, dict(field.values.most_common(MAX_VALUES)),
            field.changes / max(field.entities, 1),
            field.known / field.moments if field.moments else None,
            tuple(np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]).tolist()) if len(numbers) else (),
            field.is_whole and bool(field.n_numbers), field.words / max(field.n_texts, 1),
            field.of_list / max(field.entities, 1),
            float(np.mean(field.aucs)) if has_auc else None,
        )  # fmt: skip


def _as_number(value: FieldValue | None) -> float:
    if value is None or isinstance(value, list):
        return float("nan")
    text = str(value).strip().lower()
    if text in ("true", "yes", "false", "no"):
        return float(text in ("true", "yes"))
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _add_auc(field: _Field, values: Sequence[float], labels: NDArray[np.bool_]) -> None:
    """Add the AUC of a number for the clicks of one ranking, if the number differs in it."""
    column = np.nan_to_num(np.array(values), nan=-np.inf)
    if column.min() == column.max():
        return
    better, other = column[labels][:, None], column[~labels][None, :]
    field.aucs.append(float(((better > other) + 0.5 * (better == other)).mean()))
