"""The declaration of a feature, as the config writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER
from feedrank.features.declared.source import RECENT, Source

Kind: TypeAlias = Literal[
    "number", "numbers", "boolean", "category", "list", "word_count", "item_age", "local_time", "user_agent", "referer",
    "count", "rate", "interacted_with", "distance", "match", "random",
]  # fmt: skip
Transform: TypeAlias = Literal["", "log1p", "log", "sqrt", "abs"]
TIME_PARTS = ("hour", "weekday", "day", "month", "year", "second", "is_weekend")
_NAME = re.compile(r"[^\s\",:\[\]{}]+")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "number": ("transform", "clip"),
    "numbers": ("max_values", "transform"),
    "boolean": (),
    "category": ("max_values",),
    "list": ("max_values",),
    "word_count": ("transform",),
    "item_age": ("transform", "from_"),
    "local_time": ("part", "zone"),
    "user_agent": ("part", "max_values"),
    "referer": ("part", "max_values"),
    "count": ("of", "key", "half_lives_h"),
    "rate": ("of", "per", "key", "half_lives_h", "smoothing"),
    "interacted_with": ("of", "half_lives_h"),
    "distance": ("to", "transform", "signed"),
    "match": ("to", "method"),
    "random": ("seed",),
}
"""Kind -> the keys that it reads, besides name, kind, from and within."""
_NEEDS_FROM = (
    "number", "numbers", "boolean", "category", "list", "word_count", "user_agent", "referer", "interacted_with",
    "distance", "match",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeclaredFeature:
    """[[features.declared]] A feature of fields that the team's events and requests have."""

    name: str
    """Name of the feature, or the beginning of the names of its columns."""
    kind: Kind
    """What is computed: number, numbers, boolean, category, list, word_count, item_age, local_time, user_agent,
    referer, count, rate, interacted_with, distance, match or random."""
    from_: str = ""
    """Where the value comes from: a field of an item, user, request or given list, such as item.price, user.country,
    request.device or list.distance."""
    to: str = ""
    """What `distance` and `match` compare with: another field, or user.recent(item.FIELD), the mean of the user's
    latest items."""
    transform: Transform = ""
    """What is made of a number: log1p, log, sqrt or abs. A distance is one of transformed numbers."""
    clip: tuple[float, ...] = ()
    """Least and greatest number; those beyond count as these. Before the transform."""
    max_values: int = 100
    """Most values that a category or list has of its own: the most frequent ones; others count as missing."""
    part: str = ""
    """Of local_time: hour, weekday, day, month, year, second or is_weekend; of user_agent: platform, browser or os; of
    referer: medium or host."""
    zone: str = "UTC"
    """Time zone of local_time: a name such as Europe/Paris, or the field that holds it, such as request.zone."""
    of: tuple[str, ...] = ("click",)
    """Event types that count, rate and interacted_with count: interaction types, or `impression`."""
    per: tuple[str, ...] = ("impression",)
    """Event types in the denominator of a rate."""
    key: tuple[str, ...] = ("item",)
    """What has a count of its own: one or two of item, user, session, and fields such as
    item.category or request.country."""
    half_lives_h: tuple[float, ...] = (168.0,)
    """Half-lives of counts, with one column each; inf: no decay."""
    smoothing: float = 10.0
    """Prior of a rate: how many `per` events at the average rate are added to each count. Unit: events."""
    method: Literal["value", "term", "3-gram"] = "value"
    """How `match` compares: equal values, shared words, or shared runs of three letters."""
    signed: bool = False
    """Whether a distance keeps its sign: positive where `from` is greater."""
    within: tuple[Literal["z", "rank"], ...] = ()
    """Further columns with the standing among the candidates of the request: z, the distance to the mean in standard
    deviations; rank, the share of candidates with a greater value."""
    seed: int = 0
    """Seed of the kind random: another one gives other numbers."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f'name is {self.name!r}; expected a name without spaces and any of " , : [ ] {{ }}')
        try:
            self._check()
        except ValueError as problem:
            raise ValueError(f"the declared feature {self.name!r}: {problem}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeclaredFeature:
        """Build a declaration from the result of `to_dict`."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        values["half_lives_h"] = tuple(map(float, values["half_lives_h"]))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-ready values. Half-lives are strings, since JSON has no infinity."""
        return {**asdict(self), "half_lives_h": list(map(str, self.half_lives_h))}

    @property
    def source(self) -> Source:
        """The parsed `from`."""
        return Source.parse(self.from_)

    @property
    def reads_list(self) -> bool:
        """Whether the value comes from what a list brought for its items."""
        return bool(self.from_) and self.source.entity == LIST

    @property
    def other(self) -> Source:
        """The parsed `to`."""
        return Source.parse(self.to)

    @property
    def keys(self) -> tuple[Source, ...]:
        """The parsed parts of `key`."""
        return tuple(map(Source.parse, self.key))

    def _check(self) -> None:
        defaults = {name: entry.default for name, entry in type(self).__dataclass_fields__.items()}
        allowed = {"name", "kind", "within", *_ALLOWED[self.kind], *(("from_",) if self.kind in _NEEDS_FROM else ())}
        for name, default in defaults.items():
            if name not in allowed and getattr(self, name) != default:
                raise ValueError(f"found {name.rstrip('_')}, which the kind {self.kind} does not read; remove it")
        if self.kind in _NEEDS_FROM and not self.from_:
            raise ValueError(f'found no `from`, which the kind {self.kind} needs, such as from = "item.price"')
        if self.kind == "numbers" and self.from_ not in ("list.*", "request.*"):
            raise ValueError(f"from is {self.from_!r}; expected list.* or request.*, for all numbers that these bring")
        if self.kind != "numbers" and self.from_.endswith(".*"):
            raise ValueError(f"from is {self.from_!r}, which only the kind numbers reads; name a field")
        if self.from_:
            _check_field(self.source, "from", (ITEM, USER, REQUEST, LIST))
        if self.kind in ("distance", "match"):
            _check_field(self.other, "to", (ITEM, USER, REQUEST, LIST, *((RECENT,) if self.kind == "distance" else ())))
        if self.kind in ("count", "rate"):
            if not 1 <= len(self.key) <= 2:
                raise ValueError(f"key is {list(self.key)}; expected one or two parts")
            for part in self.keys:
                if part.entity in (LIST, RECENT):
                    raise ValueError(
                        f"key has {part}; expected item, user, session, or a field of item, user or request"
                    )
        if self.kind == "interacted_with" and self.source.entity != ITEM:
            raise ValueError(f"from is {self.from_!r}; expected a field of items, such as item.brand")
        if len(self.clip) not in (0, 2) or (self.clip and self.clip[0] > self.clip[1]):
            raise ValueError(f"clip is {list(self.clip)}; expected two numbers, the smaller one first")
        if self.max_values < 1:
            raise ValueError(f"max_values is {self.max_values}; expected at least 1")
        if not self.half_lives_h or min(self.half_lives_h) <= 0:
            raise ValueError(f"half_lives_h is {list(self.half_lives_h)}; expected at least one, all above 0")
        if self.smoothing < 0:
            raise ValueError(f"smoothing is {self.smoothing}; expected at least 0")
        if not self.of or not self.per:
            raise ValueError("found no event types, expected at least one, such as click")
        parts = {"local_time": TIME_PARTS, "user_agent": ("platform", "browser", "os"), "referer": ("medium", "host")}
        if self.kind in parts and self.part not in parts[self.kind]:
            raise ValueError(f"part is {self.part!r}; expected one of {', '.join(parts[self.kind])}")


def _check_field(source: Source, name: str, entities: tuple[str, ...]) -> None:
    if source.entity not in entities or not source.field:
        raise ValueError(f"{name} is {str(source)!r}; expected a field of {', '.join(entities)}")


def check_declared(features: tuple[DeclaredFeature, ...]) -> None:
    """Check that the declared features can be used together. Raises ValueError if not."""
    names = [feature.name for feature in features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"declared has {', '.join(twice)} twice; name each feature once")
