"""What is sent to the HTTP API: pydantic models, strict, with a limit on every list and string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from engine.asked import Asked, FilterIds
from engine.diversity import Diversity

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=2_000)]
ContextValue = Text | float | bool | Annotated[list[Text], Field(max_length=100)]
Context = Annotated[dict[Id, ContextValue], Field(max_length=50)]
LONGEST_LIST = 1_000
LONGEST_FILTER = 100_000
LONGEST_DEADLINE_MS = 60_000


class Body(BaseModel):
    """Nothing is converted, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FiltersBody(Body):
    """Which items may come back."""

    seen: bool = Field(default=False, description="May items come back that the person has touched before?")
    categories: list[Id] | None = Field(default=None, max_length=LONGEST_LIST, description="Only these categories.")
    allow: list[Id] | None = Field(default=None, max_length=LONGEST_FILTER, description="Only these items.")
    deny: list[Id] = Field(default_factory=list, max_length=LONGEST_FILTER, description="None of these items.")

    def ids(self) -> FilterIds:
        """The same for the engine."""
        return FilterIds(
            seen=self.seen,
            categories=None if self.categories is None else tuple(self.categories),
            allow=None if self.allow is None else tuple(self.allow),
            deny=tuple(self.deny),
        )


class DiversityBody(Body):
    """How mixed the feed should be."""

    per_category: int = Field(default=0, ge=0, le=LONGEST_LIST, description="Items of one category at most; 0: any.")
    weight: float = Field(
        default=0.0, ge=0, le=1, strict=False,
        description="Maximal marginal relevance: 0 the ranker's order alone, towards 1 ever more variety.",
    )  # fmt: skip


class QuestionBody(Body):
    """What a feed and a ranking are both asked with."""

    ranking: Id | None = Field(
        default=None,
        description="Its id, so that it can be asked for again where the answer was lost: a ranking that is in the "
        "journal comes as it is there. Made up where absent.",
    )
    user: Id | None = Field(default=None, description="Whose; a stranger's where nobody is named.")
    session: Id | None = Field(default=None, description="The visit.")
    query: Text = Field(default="", description="A text that the items should answer.")
    history: list[Id] | None = Field(
        default=None, max_length=LONGEST_LIST,
        description="Item ids, latest first, in place of what is known of the person.",
    )  # fmt: skip
    surface: Id | None = Field(default=None, description="Where the items are shown, such as home or search.")
    context: Context = Field(default_factory=dict, description="Anything else about the request; kept in the log.")
    diversity: DiversityBody = Field(default_factory=DiversityBody)
    deadline_ms: float | None = Field(
        default=None, gt=0, le=LONGEST_DEADLINE_MS, strict=False,
        description="Time for the answer: dear parts are cut short or left out to hold it, and `skipped` says which.",
    )  # fmt: skip
    explain: bool = Field(default=False, description="Also say how each score came about; slow.")

    @field_validator("context")
    @classmethod
    def _own_names(cls, context: dict[str, Any]) -> dict[str, Any]:
        if taken := {"source", "query", "history"} & context.keys():
            raise ValueError(f"found {', '.join(sorted(taken))}, expected other names: these are the log's own")
        return context


class RecommendBody(QuestionBody):
    """A request for a feed."""

    n: int = Field(default=10, ge=1, le=LONGEST_LIST, description="How many items.")
    filters: FiltersBody = Field(default_factory=FiltersBody)

    def asked(self) -> Asked:
        """The same for the engine."""
        return _asked(self, n=self.n, filters=self.filters.ids())


ItemValue = ContextValue | Annotated[list[float], Field(max_length=100)]


class DescribedItem(Body):
    """An item that may not be known yet."""

    id: Id
    fields: Annotated[dict[Id, ItemValue], Field(max_length=50)] = Field(
        default_factory=dict,
        description="As in an item event. Taken where the item is not known; no feed shows it until an event names it.",
    )


class RankBody(QuestionBody):
    """A list to be put in order."""

    items: list[Id | DescribedItem] = Field(
        min_length=1, max_length=LONGEST_LIST, description="Item ids, each once; or items with what there is to know."
    )
    n: int | None = Field(default=None, ge=1, le=LONGEST_LIST, description="How many come back; all of them if absent.")

    @model_validator(mode="after")
    def _each_once(self) -> RankBody:
        ids = self.ids
        if len(set(ids)) < len(ids):
            twice = next(one for place, one in enumerate(ids) if one in ids[:place])
            raise ValueError(f"found the item {twice!r} twice, expected each once")
        return self

    def asked(self) -> Asked:
        """The same for the engine."""
        return _asked(self, items=tuple(self.ids), n=self.n or len(self.items))

    @property
    def ids(self) -> list[str]:
        """Of the items, in the order given."""
        return [one if isinstance(one, str) else one.id for one in self.items]

    @property
    def described(self) -> dict[str, Mapping[str, Any]]:
        """Item -> fields, of those that came with any."""
        return {one.id: one.fields for one in self.items if isinstance(one, DescribedItem) and one.fields}


def _asked(body: QuestionBody, **more: Any) -> Asked:
    context: Mapping[str, Any] = body.context
    return Asked(
        user=body.user,
        session=body.session,
        query=body.query,
        history=None if body.history is None else tuple(body.history),
        surface=body.surface,
        context=context,
        diversity=Diversity(body.diversity.per_category, body.diversity.weight),
        **more,
    )
