"""The declaration of a feature, as the config writes it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER
from feedrank.features.declared.source import RECENT, Source
from feedrank.features.text_analyser import stemming_languages

MAX_BUCKETS, MAX_LATEST, MAX_DIMENSIONS = 1_000, 1_000, 2_000
"""Most buckets of a window's counts, interactions of a list of the latest, and columns of a vector."""

Kind: TypeAlias = Literal[
    "number", "numbers", "boolean", "category", "list", "vector", "word_count", "item_age", "local_time", "user_agent",
    "referer", "count", "rate", "interacted_with", "distance", "match", "diversity", "random",
]  # fmt: skip
Transform: TypeAlias = Literal["", "log1p", "log", "sqrt", "abs"]
Reduction: TypeAlias = Literal[
    "first", "last", "min", "max", "mean", "sum", "norm", "size", "values", "dot", "cosine"
]  # fmt: skip
Method: TypeAlias = Literal["value", "term", "ngram", "bm25", "number"]
TIME_PARTS = ("hour", "weekday", "day", "month", "year", "second", "is_weekend", "timestamp")
_NAME = re.compile(r"[^\s\",:\[\]{}]+")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "number": ("transform", "clip", "fallback"),
    "numbers": ("max_values", "transform"),
    "boolean": ("fallback",),
    "category": ("max_values", "values", "fallback"),
    "list": ("max_values", "values", "fallback"),
    "vector": ("to", "reduce", "dimensions"),
    "word_count": ("transform", "fallback"),
    "item_age": ("transform", "from_"),
    "local_time": ("part", "zone", "from_"),
    "user_agent": ("part", "max_values", "values"),
    "referer": ("part", "max_values", "values"),
    "count": ("of", "key", "half_lives_h", "windows_h", "bucket_h"),
    "rate": ("of", "per", "key", "half_lives_h", "windows_h", "bucket_h", "smoothing", "prior_of"),
    "interacted_with": ("of", "by", "half_lives_h", "windows_h", "latest", "share"),
    "distance": ("to", "transform", "signed", "clip"),
    "match": ("to", "method", "n", "language"),
    "diversity": ("method",),
    "random": ("seed",),
}
"""Kind -> the keys that it reads, besides name, kind, from and within."""
_NEEDS_FROM = (
    "number", "numbers", "boolean", "category", "list", "vector", "word_count", "user_agent", "referer",
    "interacted_with", "distance", "match", "diversity",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeclaredFeature:
    """[[features.declared]] A feature of fields that the team's events and requests have."""

    name: str
    """Name of the feature, or the beginning of the names of its columns."""
    kind: Kind
    """What is computed: number, numbers, boolean, category, list, vector, word_count, item_age, local_time, user_agent,
    referer, count, rate, interacted_with, distance, match, diversity or random."""
    from_: str = ""
    """Where the value comes from: a field of an item, user, request or given list, such as item.price, user.country,
    request.device or list.distance."""
    fallback: str = ""
    """Another field, which is read where `from` has no value, such as item.price for from = "list.price"."""
    to: str = ""
    """What `distance`, `match` and `vector` compare with: another field, or for a distance user.recent(item.FIELD),
    the mean of the user's latest items."""
    transform: Transform = ""
    """What is made of a number: log1p, log, sqrt or abs. A distance is one of transformed numbers."""
    clip: tuple[float, ...] = ()
    """Least and greatest number; those beyond count as these. Before the transform."""
    max_values: int = 100
    """Most values that a category or list has of its own: the most frequent ones; others count as missing."""
    values: tuple[str, ...] = ()
    """The values of a category or list, in the order of their codes; others count as missing. Not set: the most
    frequent ones of the log."""
    reduce: tuple[Reduction, ...] = ("min", "max", "size", "mean")
    """What a vector becomes, with one column each: first, last, min, max, mean, sum, norm (Euclidean), size, or values
    (the first `dimensions` numbers). With `to`: dot or cosine, the product of both vectors."""
    dimensions: int = 0
    """Numbers of a vector that reduce = ["values"] makes columns of; a shorter vector has none for the rest."""
    part: str = ""
    """Of local_time: hour, weekday, day, month, year, second, is_weekend, or timestamp (seconds since 1970 on the local
    clock); of user_agent: platform, browser, os or bot; of referer: medium or host."""
    zone: str = "UTC"
    """Time zone of local_time: a name such as Europe/Paris, or the field that holds it, such as request.zone."""
    of: tuple[str, ...] = ("click",)
    """Event types that count, rate and interacted_with count: interaction types, or `impression`."""
    per: tuple[str, ...] = ("impression",)
    """Event types in the denominator of a rate."""
    key: tuple[str, ...] = ("item",)
    """What has a count of its own: one or two of item, user, session, and fields such as item.category or
    request.country. Empty: all events together."""
    by: Literal["user", "session"] = "user"
    """Whose interactions interacted_with compares with: those of the user or of the session."""
    half_lives_h: tuple[float, ...] = (168.0,)
    """Half-lives of counts, with one column each; inf: no decay."""
    windows_h: tuple[float, ...] = ()
    """Windows of counts instead of half-lives, with one column each: events that are older count no more."""
    bucket_h: float = 0.0
    """Length of the buckets that windows are made of: a window has whole buckets and the one that has begun, so it is
    longer than asked by less than one. 0: the shortest window / 24. Unit: hours."""
    latest: int = 0
    """How many of the latest interactions interacted_with compares with; 0: all. With `latest` or windows, the items'
    present values count; with half-lives, those of the time of the interaction. Unit: interactions."""
    share: bool = True
    """Whether interacted_with is the share of interactions; false: log(1 + their number)."""
    smoothing: float = 10.0
    """Prior of a rate: how many `per` events at the average rate are added to each count. Unit: events."""
    prior_of: float = 0.0
    """Prior of a rate instead of `smoothing`: how many `of` events are added to each count, with as many `per` events
    as the average rate gives them. Unit: events."""
    method: Method = "value"
    """How `match` compares: value (equal values), term (shared words), ngram (shared runs of `n` letters) or bm25 (the
    BM25 score of the text in `to` for the words of `from`). What `diversity` compares: value or number."""
    n: int = 3
    """Length of the runs that method = "ngram" compares. Unit: letters."""
    language: str = ""
    """Language of the words that match compares, such as english: a Snowball stemmer. Empty: words as they are."""
    signed: bool = False
    """Whether a distance keeps its sign: positive where `from` is greater."""
    within: tuple[Literal["z", "rank", "minmax"], ...] = ()
    """Further columns with the standing among the candidates of the request: z, the distance to the mean in standard
    deviations; rank, the share of candidates with a greater value; minmax, 0 for the least and 1 for the greatest."""
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
    def origin(self) -> str:
        """Where the value comes from, in words: `from`, or also `fallback`."""
        return f"{self.from_} or {self.fallback}" if self.fallback else self.from_

    @property
    def ring(self) -> tuple[float, int]:
        """Length of the buckets of the windows in hours, and their number."""
        bucket = self.bucket_h or min(self.windows_h) / 24
        return bucket, math.ceil(round(max(self.windows_h) / bucket, 9)) + 1

    @property
    def reads_list(self) -> bool:
        """Whether the value comes from what a list brought for its items."""
        sources = [Source.parse(text) for text in (self.from_, self.fallback) if text]
        return any(source.entity == LIST for source in sources)

    @property
    def other(self) -> Source:
        """The parsed `to`."""
        return Source.parse(self.to)

    @property
    def keys(self) -> tuple[Source, ...]:
        """The parsed parts of `key`."""
        return tuple(map(Source.parse, self.key))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it reads, such as item.price, each once."""
        from_ = self.from_ or ("item.published" if self.kind == "item_age" else "")
        sources = [Source.parse(text) for text in (from_, self.fallback, self.to) if text]
        sources += self.keys if self.kind in ("count", "rate") else ()
        zone = self.zone if self.kind == "local_time" and "." in self.zone else ""
        named = [Source(ITEM, part.field) if part.entity == RECENT else part for part in sources]
        return tuple(dict.fromkeys([*(str(part) for part in named if part.field), *([zone] if zone else [])]))

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
        if self.fallback:
            _check_field(Source.parse(self.fallback), "fallback", (ITEM, USER, REQUEST, LIST))
        if self.kind in ("distance", "match") or self.to:
            _check_field(self.other, "to", (ITEM, USER, REQUEST, LIST, *((RECENT,) if self.kind == "distance" else ())))
        if self.kind in ("count", "rate"):
            if len(self.key) > 2:
                raise ValueError(f"key is {list(self.key)}; expected one or two parts")
            for part in self.keys:
                if part.entity in (LIST, RECENT):
                    raise ValueError(
                        f"key has {part}; expected item, user, session, or a field of item, user or request"
                    )
        Source.parse(self.by)
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
        self._check_windows()
        self._check_vector()
        if self.kind == "match" and self.method == "number":
            raise ValueError("method is 'number'; expected value, term, ngram or bm25; `distance` compares numbers")
        if self.kind == "diversity" and self.method not in ("value", "number"):
            raise ValueError(f"method is {self.method!r}; expected value or number")
        if not 1 <= self.n <= 100:
            raise ValueError(f"n is {self.n}; expected 1 to 100")
        if self.language and self.language not in stemming_languages():
            raise ValueError(f"language is {self.language!r}; expected one of {', '.join(stemming_languages())}")
        if twice := sorted({value for value in self.values if self.values.count(value) > 1}):
            raise ValueError(f"values has {', '.join(twice)} twice; name each value once")
        parts = {
            "local_time": TIME_PARTS,
            "user_agent": ("platform", "browser", "os", "bot"),
            "referer": ("medium", "host"),
        }
        if self.kind in parts and self.part not in parts[self.kind]:
            raise ValueError(f"part is {self.part!r}; expected one of {', '.join(parts[self.kind])}")

    def _check_windows(self) -> None:
        if self.smoothing != 10 and self.prior_of:
            raise ValueError("found smoothing and prior_of; expected one of the two")
        if self.prior_of < 0 or self.bucket_h < 0 or self.latest < 0:
            raise ValueError("found prior_of, bucket_h or latest below 0; expected at least 0")
        if self.latest > MAX_LATEST:
            raise ValueError(f"latest is {self.latest}; expected at most {MAX_LATEST}")
        if self.bucket_h and not self.windows_h:
            raise ValueError("found bucket_h without windows_h; windows are made of buckets, half-lives are not")
        if not self.windows_h:
            return
        if self.half_lives_h != (168.0,):
            raise ValueError("found windows_h and half_lives_h; declare one feature with each")
        if min(self.windows_h) <= 0 or max(self.windows_h) == math.inf:
            raise ValueError(f"windows_h is {list(self.windows_h)}; expected hours above 0, and no inf")
        if self.bucket_h > min(self.windows_h):
            raise ValueError(f"bucket_h is {self.bucket_h}; expected at most the shortest window")
        if self.kind != "interacted_with" and self.ring[1] > MAX_BUCKETS:
            raise ValueError(
                f"windows_h and bucket_h give {self.ring[1]:,} buckets per key; expected at most {MAX_BUCKETS:,}; "
                "take longer buckets, or fewer different windows per feature"
            )

    def _check_vector(self) -> None:
        products = {"dot", "cosine"} & set(self.reduce)
        if self.kind == "vector" and (not self.reduce or bool(self.to) != (products == set(self.reduce))):
            expected = "dot or cosine" if self.to else "a reduction of one vector; products need `to`"
            raise ValueError(f"reduce is {list(self.reduce)}; expected {expected}")
        if ("values" in self.reduce) != (self.dimensions > 0):
            raise ValueError(f"dimensions is {self.dimensions}; expected a number above 0 with reduce values only")
        if self.dimensions > MAX_DIMENSIONS:
            raise ValueError(f"dimensions is {self.dimensions}; expected at most {MAX_DIMENSIONS}")


def _check_field(source: Source, name: str, entities: tuple[str, ...]) -> None:
    if source.entity not in entities or not source.field:
        raise ValueError(f"{name} is {str(source)!r}; expected a field of {', '.join(entities)}")


def check_declared(features: tuple[DeclaredFeature, ...]) -> None:
    """Check that the declared features can be used together. Raises ValueError if not."""
    names = [feature.name for feature in features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"declared has {', '.join(twice)} twice; name each feature once")
