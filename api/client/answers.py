"""What the service answers, as values. What this client does not know in an answer is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Why:
    """How an item came to its place."""

    recall_score: float | None
    """What recall gave it."""
    features: Mapping[str, float | None]
    """The feature row that was scored; None is missing."""
    contributions: Mapping[str, float]
    """TreeSHAP: with `base` they add up to the score; empty where another bundle serves now."""
    base: float | None


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """An item and its score."""

    id: str
    score: float | None
    """Higher is better; None where there is none."""
    why: Why | None = None
    """Where it was asked for."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A ranking: what is shown, best first. The service's log has it under its id."""

    ranking: str
    """Its id: what clicks name."""
    timestamp: int
    """Epoch milliseconds."""
    user: str | None
    bundle: str
    """What it was made by."""
    source: str
    """Where the candidates come from: embedding, bm25, popular, given, ..."""
    items: tuple[ScoredItem, ...]
    skipped: tuple[str, ...]
    """What was cut short or left out to hold the deadline, or because it failed."""
    kept: bool
    """False: the service could not log it, so nothing will be learnt of it."""
    experiments: Mapping[str, str]
    """Experiments that it is part of, and the variant of each."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The items' ids, best first."""
        return tuple(one.id for one in self.items)


@dataclass(frozen=True, slots=True)
class Explanation(Feed):
    """A ranking, and why it is in this order."""

    step: str
    """full, or the plainer list that stood in: no_neural, popular, last_good."""
    candidates: int | None
    """How many recall found."""
    without_ranker: tuple[str, ...]
    """The ids that would have been shown in the order of recall."""


@dataclass(frozen=True, slots=True)
class Similar:
    """The nearest items to one, best first."""

    item: str
    items: tuple[ScoredItem, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that was not taken in."""

    place: int
    """Which of the events that were given, from 0."""
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of events."""

    accepted: int
    duplicate: int
    """Known already; among them those that arrived although their answer was lost, and that were then sent again."""
    rejected: tuple[Rejected, ...]
    ids: tuple[str | None, ...]
    """In the order of the events; None where one was rejected."""

    def __add__(self, later: Taken) -> Taken:
        """What came of these events and then of later ones."""
        before = len(self.ids)
        moved = tuple(Rejected(before + one.place, one.field, one.detail) for one in later.rejected)
        return Taken(
            self.accepted + later.accepted,
            self.duplicate + later.duplicate,
            self.rejected + moved,
            self.ids + later.ids,
        )


NOTHING_TAKEN = Taken(0, 0, (), ())


@dataclass(frozen=True, slots=True)
class Ready:
    """What answers come from."""

    status: str
    bundle: str
    items: int
    """In the catalogue."""
    ahead: Mapping[str, int] | None
    """Feeds that are scored ahead of their request: waiting, done, dropped, failed."""


def feed(body: Mapping[str, Any]) -> Feed:
    """Raises KeyError, TypeError or AttributeError, as all of these do, where the body has another shape."""
    return Feed(**_feed(body))


def explanation(body: Mapping[str, Any]) -> Explanation:
    """The answer to explain."""
    return Explanation(
        **_feed(body),
        step=body["step"],
        candidates=body["candidates"],
        without_ranker=tuple(body["without_ranker"]),
    )


def similar(body: Mapping[str, Any]) -> Similar:
    """The answer to similar."""
    return Similar(body["item"], tuple(_item(one) for one in body["items"]))


def taken(body: Mapping[str, Any]) -> Taken:
    """The answer to events."""
    rejected = tuple(Rejected(one["place"], one["field"], one["detail"]) for one in body["rejected"])
    return Taken(body["accepted"], body["duplicate"], rejected, tuple(body["ids"]))


def ready(body: Mapping[str, Any]) -> Ready:
    """The answer to readyz."""
    return Ready(body["status"], body["bundle"], body["items"], body.get("ahead"))


def _feed(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ranking": body["ranking"],
        "timestamp": body["timestamp"],
        "user": body["user"],
        "bundle": body["bundle"],
        "source": body["source"],
        "items": tuple(_item(one) for one in body["items"]),
        "skipped": tuple(body["skipped"]),
        "kept": body["kept"],
        "experiments": dict(body.get("experiments", {})),
    }


def _item(body: Mapping[str, Any]) -> ScoredItem:
    why = body.get("why")
    if why is None:
        return ScoredItem(body["id"], body["score"])
    said = Why(why["recall_score"], why["features"], why["contributions"], why["base"])
    return ScoredItem(body["id"], body["score"], said)
