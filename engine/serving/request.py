"""A recommendation request as the caller states it, in ids, before it is resolved to rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import EventError, FieldValue, parse_field_value, short_repr
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.field_collector import request_fields
from feedrank.engine.events.item_fields import ItemFields, check_columns, check_lengths, columns_of, rows_of, select
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.typed_dataclasses import check_types
from feedrank.engine.types import UNKNOWN_ROW


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """Constrains which items may be recommended, by item ids and category names (`Filters` has the rows)."""

    include_seen: bool = False
    """True: items that the user has interacted with may be recommended again."""
    categories: tuple[str, ...] | None = None
    """Only these categories; None: all."""
    allow: tuple[str, ...] | None = None
    """Only these items; None: all."""
    deny: tuple[str, ...] = ()
    """None of these items."""
    include_disliked: bool = False
    """True: items that the user dislikes, such as hidden ones, may be recommended."""


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """A request for recommendations, or for ranking the given items."""

    user: str | None = None
    session: str | None = None
    query: str = ""
    history: tuple[str, ...] | None = None
    """Item ids, latest first, that replace the user's stored history; unknown ids are ignored."""
    items: tuple[str, ...] | None = None
    """Rank exactly these items; None: recommend from the whole catalogue."""
    n: int = 10
    filters: FilterSpec = FilterSpec()
    diversity: Diversity = field(default_factory=Diversity)
    surface: str | None = None
    """Where the ranking is shown, such as home or search."""
    context: Mapping[str, FieldValue] = field(default_factory=dict)
    """Further properties of the request; they are logged."""
    item_fields: ItemFields | None = None
    """Fields that come with `items`, such as the price shown: name -> one value per item, or None; they are logged."""

    def check(self, ranking_id: str) -> None:
        """Check that a ranking of this request and id can be logged and read back. Raises EventError if not."""
        filters = self.filters
        for name, texts, may_be_empty in (
            ("ranking", (ranking_id,), False),
            ("user", () if self.user is None else (self.user,), False),
            ("session", () if self.session is None else (self.session,), False),
            ("surface", () if self.surface is None else (self.surface,), True),
            ("query", (self.query,), True),
            ("history", self.history or (), True),
            ("items", self.items or (), False),
            ("filters", (*(filters.categories or ()), *(filters.allow or ()), *filters.deny), True),
            ("context", tuple(self.context), False),
        ):
            try:
                "".join(texts).encode()
            except (TypeError, UnicodeEncodeError) as problem:
                raise EventError(name, f"found {short_repr(texts)}, expected text in UTF-8 ({problem})") from None
            if not (may_be_empty or all(texts)):
                raise EventError(name, "found an empty string, expected at least one character")
        if self.items is not None and len(set(self.items)) < len(self.items):
            raise EventError("items", "found an item more than once, expected each item once")
        for name, value in self.context.items():
            parse_field_value(value, f"context.{name}")
        if self.item_fields is not None:
            if self.items is None:
                raise EventError("item_fields", "found fields of items without the items, expected `items` as well")
            check_columns(self.item_fields, len(self.items))
            check_lengths(self.item_fields)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RecommendationRequest:
        """Build a request from its fields as JSON has them: lists for tuples, objects for `filters` and `diversity`.

        Raises AttributeError, TypeError or ValueError where they have another shape.
        """
        filters = {name: _as_tuple(value) for name, value in options.get("filters", {}).items()}
        given = {
            **options,
            "history": _as_tuple(options.get("history")),
            "items": _as_tuple(options.get("items")),
            "item_fields": _as_columns(options.get("item_fields")),
            "filters": FilterSpec(**filters),
            "diversity": Diversity(**options.get("diversity", {})),
        }
        return cls(**given)

    @classmethod
    def from_log(cls, event: RankingEvent, options: Mapping[str, Any]) -> RecommendationRequest:
        """Rebuild the request of a logged ranking event and its `non_default_options`.

        Raises AttributeError, TypeError or ValueError where the options have another shape.
        """
        fields = dict(event.fields)
        query, history = str(fields.pop("query", "")), fields.get("history")
        if isinstance(history, list) and all(isinstance(item, str) for item in history):
            del fields["history"]
        else:
            history = None
        fields.pop("source", None)
        logged = {"user": event.user, "session": event.session, "query": query, "history": history,
                  "surface": event.surface, "context": fields}  # fmt: skip
        if taken := logged.keys() & options.keys():
            raise ValueError(f"found {', '.join(sorted(taken))} among the options, expected these in the event itself")
        if event.item_fields or "item_fields" in options:
            options = {**options, "item_fields": _all_item_fields(event, options)}
        request = cls.from_options({**logged, **options})
        if options:
            check_types(request)
        return request

    def logged_fields(self) -> dict[str, FieldValue]:
        """Return the query and the history that came with the request, as fields of the ranking event."""
        fields: dict[str, FieldValue] = {"query": self.query} if self.query else {}
        return fields if self.history is None else {**fields, "history": list(self.history)}

    def fields_of(self, items: Sequence[str]) -> ItemFields | None:
        """Return the fields that came with these of the given items, one value per item; None if there are none."""
        return select(self.item_fields, self.items or (), items) if self.item_fields else None

    def non_default_options(self, shown: Sequence[str] = ()) -> dict[str, Any]:
        """Return the options that differ from the defaults and that a replay needs, JSON-ready.

        shown: the items whose fields are in the ranking event itself; those of the other items are an option.
        """
        defaults = RecommendationRequest()
        options: dict[str, Any] = {}
        if self.items is not None:
            options["items"] = list(self.items)
            if columns := self.item_fields and self.fields_of(_others(self.items, shown)):
                options["item_fields"] = {name: list(column) for name, column in columns.items()}
        for name in ("filters", "diversity"):
            given, usual = getattr(self, name), getattr(defaults, name)
            if given != usual:
                values = asdict(given)
                options[name] = {key: value for key, value in values.items() if value != getattr(usual, key)}
        return options if self.n == defaults.n else {**options, "n": self.n}


def _others(items: Iterable[str], shown: Iterable[str]) -> list[str]:
    taken = set(shown)
    return [item for item in items if item not in taken]


def _all_item_fields(event: RankingEvent, options: Mapping[str, Any]) -> ItemFields | None:
    """Return the fields of all items of a logged request: those shown, and the others among its options.

    None if the ranking is not one of given items. Raises AttributeError, TypeError or ValueError for another shape.
    """
    items = options.get("items")
    if not items:
        return None
    others = _others(items, event.items)
    unshown = _as_columns(options.get("item_fields", {}))
    check_columns(unshown, len(others))
    rows = dict(zip(others, rows_of(unshown, len(others)), strict=True))
    rows |= zip(event.items, rows_of(event.item_fields or {}, len(event.items)), strict=True)
    return columns_of([rows.get(item, {}) for item in items])


def _as_columns(columns: Any) -> Any:
    """Turn the lists of columns that were read from JSON into tuples."""
    return None if columns is None else {name: _as_tuple(values) for name, values in columns.items()}


def _as_tuple(value: Any) -> Any:
    """Turn a list that was read from JSON back into a tuple; other values stay as they are."""
    return tuple(value) if isinstance(value, list) else value


def declared_fields(request: RecommendationRequest, catalogue: Catalogue) -> dict[str, Any]:
    """Return the parts of a resolved request that declared features read, as its ranking event will have them."""
    parts: dict[str, Any] = {"fields": request_fields({**request.context, **request.logged_fields()}, request.surface)}
    if request.items and request.item_fields:
        rows = catalogue.ids.rows(request.items).tolist()
        of_items = rows_of(request.item_fields, len(rows))
        parts["item_fields"] = {row: fields for row, fields in zip(rows, of_items, strict=True) if row != UNKNOWN_ROW}
        parts["unknown_item_fields"] = tuple(
            fields for row, fields in zip(rows, of_items, strict=True) if row == UNKNOWN_ROW
        )
    return parts
