"""What a caller asks for, in ids: the form of a request before it is resolved to rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.diversity import Diversity
from engine.events import FieldValue, RankingEvent


@dataclass(frozen=True, slots=True)
class FilterIds:
    """Which items may come back, by ids and category names."""

    seen: bool = False
    """May items that the person has touched before come back?"""
    categories: tuple[str, ...] | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for a feed, or for an order of given items."""

    user: str | None = None
    session: str | None = None
    query: str = ""
    history: tuple[str, ...] | None = None
    """Item ids, latest first, in place of what is known of the person; unknown ids are passed over."""
    items: tuple[str, ...] | None = None
    """Put these in order; None: find the best there are."""
    n: int = 10
    filters: FilterIds = FilterIds()
    diversity: Diversity = field(default_factory=Diversity)
    surface: str | None = None
    """Where the feed is shown."""
    context: Mapping[str, FieldValue] = field(default_factory=dict)
    """Anything else about the request; it is kept in the log."""

    @classmethod
    def of(cls, event: RankingEvent) -> Asked:
        """What a ranking that was served came of, by what it says of that."""
        fields = dict(event.fields)
        query, history = fields.pop("query", ""), fields.pop("history", None)
        fields.pop("source", None)
        narrowed = dict(event.extra.get("served", {}).get("asked", {}))
        lists = {name: _tuple(value) for name, value in narrowed.pop("filters", {}).items()}
        return cls(
            user=event.user,
            session=event.session,
            query=str(query),
            history=_tuple(history),
            items=_tuple(narrowed.pop("items", None)),
            filters=FilterIds(**lists),
            diversity=Diversity(**narrowed.pop("diversity", {})),
            surface=event.extra.get("surface"),
            context=fields,
            **narrowed,
        )

    def said(self) -> dict[str, FieldValue]:
        """What the person said or did, as fields of the ranking event."""
        said: dict[str, FieldValue] = {"query": self.query} if self.query else {}
        return said if self.history is None else {**said, "history": list(self.history)}

    def narrowed(self) -> dict[str, Any]:
        """All else that the order came of, besides the journal itself: JSON-ready, only what is not as usual."""
        usual = Asked()
        found: dict[str, Any] = {}
        if self.items is not None:
            found["items"] = list(self.items)
        for name in ("filters", "diversity"):
            mine, theirs = asdict(getattr(self, name)), asdict(getattr(usual, name))
            if told := {key: value for key, value in mine.items() if value != theirs[key]}:
                found[name] = told
        return found if self.n == usual.n else {**found, "n": self.n}


def _tuple(value: Any) -> Any:
    """A list as it was before it was written as JSON."""
    return tuple(value) if isinstance(value, list) else value
