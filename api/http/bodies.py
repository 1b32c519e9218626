"""Request bodies of the HTTP API: strict pydantic models, with a limit on every list and string."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from feedrank.engine.events.ids import MAX_DOCUMENT_CHARS, MAX_FIELDS, MAX_ID_CHARS, MAX_TEXT_CHARS, MISSING_IDS
from feedrank.engine.events.item_fields import columns_of, loggable

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^[^\x00]*$")]
IdList = Annotated[list[Id], Field(fail_fast=True)]
"""A list of ids; the first wrong one ends its validation, so that an error costs no more than the list."""
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
ContextValue = Text | float | bool | Annotated[list[Text], Field(max_length=100, fail_fast=True)]
Context = Annotated[dict[Id, ContextValue], Field(max_length=50)]
MAX_LIST_LENGTH = 1_000
MAX_FILTER_LENGTH = 100_000
MAX_DEADLINE_MS = 60_000


class RequestBody(BaseModel):
    """A strict request body: values are not converted, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FiltersBody(RequestBody):
    """Filters on the candidate items."""

    include_seen: bool = Field(default=False, description="Include items that the user has interacted with before.")
    include_disliked: bool = Field(default=False, description="Include items that the user dislikes, or has hidden.")
    categories: IdList | None = Field(default=None, max_length=MAX_LIST_LENGTH, description="Only these categories.")
    allow: IdList | None = Field(default=None, max_length=MAX_FILTER_LENGTH, description="Only these items.")
    deny: IdList = Field(default_factory=list, max_length=MAX_FILTER_LENGTH, description="None of these items.")


class DiversityBody(RequestBody):
    """Diversity of the ranking."""

    per_category: int = Field(
        default=0, ge=0, le=MAX_LIST_LENGTH, description="Maximum items per category; 0: no limit."
    )
    weight: float = Field(
        default=0.0, ge=0, le=1, strict=False,
        description="Weight of diversity in maximal marginal relevance (MMR); 0 keeps the ranker's order.",
    )  # fmt: skip


RESERVED_NAMES = {"source", "query", "history"}
"""Names of fields of a ranking that the service writes, so the context can't have them."""
NOT_OF_THE_REQUEST = {"ranking", "deadline_ms", "explain", "log"}
"""Options that are not part of the engine's request."""


class RankingOptions(RequestBody):
    """Options that /v1/recommend and /v1/rank share."""

    ranking: Id | None = Field(
        default=None,
        description="Ranking id, for idempotent retries: if the journal has a ranking with this id, that one is "
        "returned. Generated if absent.",
    )
    user: Id | None = Field(default=None, description="User id; without one the user is anonymous.")
    session: Id | None = Field(default=None, description="Session id.")
    query: Text = Field(default="", description="Search query.")
    history: IdList | None = Field(
        default=None, max_length=MAX_LIST_LENGTH,
        description="Item ids, latest first; replaces the stored history of the user.",
    )  # fmt: skip
    surface: Id | None = Field(default=None, description="Where the items are displayed, such as home or search.")
    context: Context = Field(default_factory=dict, description="Other fields of the request; they are logged.")
    diversity: DiversityBody = Field(default_factory=DiversityBody)
    deadline_ms: float | None = Field(
        default=None, gt=0, le=MAX_DEADLINE_MS, strict=False,
        description="Latency budget in ms. Slow stages are shortened or skipped to meet it; `degraded` lists them.",
    )  # fmt: skip
    explain: bool = Field(default=False, description="Add an explanation to each item; slow.")
    log: bool = Field(
        default=True,
        description="False: the ranking is not shown. It is not logged, counts as no impression, is in no experiment "
        "and in no metrics of feeds, and registers no items.",
    )

    @field_validator("context")
    @classmethod
    def _check_reserved_names(cls, context: dict[str, Any]) -> dict[str, Any]:
        if reserved := RESERVED_NAMES & context.keys():
            raise ValueError(f"found {', '.join(sorted(reserved))}, expected other names: the log reserves these")
        return context


class RecommendBody(RankingOptions):
    """A request for the best items of the catalogue."""

    n: int = Field(default=10, ge=1, le=MAX_LIST_LENGTH, description="Number of items to return.")
    filters: FiltersBody = Field(default_factory=FiltersBody)


Document = Annotated[str, StringConstraints(max_length=MAX_DOCUMENT_CHARS)]
ItemValue = (
    Document
    | float
    | bool
    | Annotated[list[Document], Field(max_length=100, fail_fast=True)]
    | Annotated[list[float], Field(max_length=100, fail_fast=True)]
    | None
)


class ItemWithFields(RequestBody):
    """An item with its fields; it may be missing from the catalogue."""

    id: Id
    fields: Annotated[dict[Id, ItemValue], Field(max_length=MAX_FIELDS)] = Field(
        default_factory=dict,
        description="Fields of the item in this list, such as the price shown; null: it has none. They are logged with "
        f"the ranking, but for texts of more than {MAX_TEXT_CHARS:,} characters, and features may read them. They "
        "register an unknown item, as in an item event; /v1/recommend shows it only after an item event.",
    )


class RankBody(RankingOptions):
    """A request to rank the given items."""

    items: list[Id | ItemWithFields] = Field(
        fail_fast=True,
        min_length=1,
        max_length=MAX_LIST_LENGTH,
        description="Unique item ids, or items with their fields.",
    )
    n: int | None = Field(
        default=None, ge=1, le=MAX_LIST_LENGTH, description="Number of items to return; all if absent."
    )

    @model_validator(mode="after")
    def _check_items(self) -> RankBody:
        ids = self.item_ids
        if missing := next((item for item in ids if item in MISSING_IDS), None):
            raise ValueError(f"found {missing!r} among items, which stands for a missing id, expected ids of items")
        if len(set(ids)) < len(ids):
            duplicate = Counter(ids).most_common(1)[0][0]
            raise ValueError(f"found the item {duplicate!r} twice, expected each item once")
        return self

    @property
    def item_ids(self) -> list[str]:
        """Item ids, in request order."""
        return [item if isinstance(item, str) else item.id for item in self.items]

    @property
    def fields_by_item(self) -> dict[str, dict[str, Any]]:
        """Item id -> fields, for the items that have a field with a value."""
        items = (item for item in self.items if isinstance(item, ItemWithFields))
        return {item.id: item.fields for item in items if any(value is not None for value in item.fields.values())}

    def to_options(self) -> dict[str, Any]:
        """Return the options of the engine's request. Raises EventError for too many fields of items."""
        options = self.model_dump(exclude={*NOT_OF_THE_REQUEST, "items"})
        columns = loggable(columns_of([{} if isinstance(item, str) else item.fields for item in self.items]))
        return options | {"items": self.item_ids, "n": self.n or len(self.items), "item_fields": columns}
