"""Parse the service's JSON responses into dataclasses. Unknown fields are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """Explains the score of one item: its features and their contributions."""

    recall_score: float | None
    """Score of the retriever."""
    features: Mapping[str, float | None]
    """The feature row that was scored; None: the value is missing."""
    contributions: Mapping[str, float]
    """TreeSHAP values, which add up to the score with `base`; empty if another bundle serves now."""
    base: float | None
    """Expected score without any feature; None without contributions."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """The text of each feature that is the code of a category; empty from an older service."""


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """An item with its score."""

    id: str
    score: float | None
    """Higher is better; None: the item has no score."""
    explanation: ItemExplanation | None = None
    """None unless the request asked for it."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A ranking as the service answered and logged it, best item first."""

    ranking: str
    """Id of the ranking, which interactions refer to."""
    timestamp: int
    """Epoch milliseconds."""
    user: str | None
    bundle: str
    """Name of the bundle that computed it."""
    source: str
    """Source of the candidates: embedding, bm25, hybrid (both), popular, explicit, ..."""
    items: tuple[ScoredItem, ...]
    degraded: tuple[str, ...]
    """Parts of the pipeline that were skipped or cut short, to meet the deadline or after a failure."""
    logged: bool
    """False: the service could not log the ranking, so it will not be used in training."""
    experiments: Mapping[str, str]
    """Experiment that the ranking is part of -> its variant."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the items, best first."""
        return tuple(item.id for item in self.items)


@dataclass(frozen=True, slots=True)
class FeatureDescription:
    """Describes one feature of the ranker."""

    name: str
    family: str
    """The feature family that computes it."""
    sentence: str
    """What it says, in one sentence."""
    unit: str
    missing: str
    """When the value is missing (None), for an item of the catalogue."""
    is_category: bool = False
    """Whether values are codes of a category; `ItemExplanation.categories` has their texts."""


@dataclass(frozen=True, slots=True)
class RankingExplanation(Feed):
    """A ranking with an explanation of its order."""

    fallback: str
    """Fallback level that served it: full (no fallback), no_neural, popular or last_good."""
    candidates: int | None
    """Number of candidates that recall found."""
    recall_order: tuple[str, ...]
    """The ids that would have been shown in recall order, without the ranker."""
    features: tuple[FeatureDescription, ...] = ()
    """What the features of the items' explanations mean; empty if they have none, or from an older service."""


@dataclass(frozen=True, slots=True)
class SimilarItems:
    """The nearest items of an item, best first."""

    item: str
    items: tuple[ScoredItem, ...]


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that the service rejected."""

    index: int
    """Index of the event in the request, from 0."""
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class EventsResult:
    """The result of sending events."""

    accepted: int
    duplicate: int
    """Number of events that the service already had, for example from an attempt whose response was lost."""
    rejected: tuple[RejectedEvent, ...]
    ids: tuple[str | None, ...]
    """Event ids in the order of the events; None for a rejected event."""

    def __add__(self, later: EventsResult) -> EventsResult:
        """Combine the results of two consecutive batches; the later indexes are shifted."""
        offset = len(self.ids)
        shifted = tuple(RejectedEvent(offset + event.index, event.field, event.detail) for event in later.rejected)
        return EventsResult(
            self.accepted + later.accepted,
            self.duplicate + later.duplicate,
            self.rejected + shifted,
            self.ids + later.ids,
        )


NO_EVENTS = EventsResult(0, 0, (), ())


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The readiness of the service and the bundle that it serves."""

    status: str
    bundle: str
    items: int
    """Number of items in the catalogue."""
    prefetch: Mapping[str, int] | None
    """Counts of precomputed feeds: waiting, completed, dropped, failed; None: the service precomputes none."""


def parse_feed(body: Mapping[str, Any]) -> Feed:
    """Parse a feed. Like all parsers here it raises KeyError, TypeError or AttributeError for an unexpected shape."""
    return Feed(**_feed_fields(body))


def parse_explanation(body: Mapping[str, Any]) -> RankingExplanation:
    """Parse the response of /v1/rankings/{id}/explain."""
    return RankingExplanation(
        **_feed_fields(body),
        fallback=body["fallback"],
        candidates=body["candidates"],
        recall_order=tuple(body["recall_order"]),
        features=tuple(
            FeatureDescription(
                entry["name"],
                entry["family"],
                entry["sentence"],
                entry["unit"],
                entry["missing"],
                entry.get("is_category", False),
            )
            for entry in body.get("features", ())
        ),
    )


def parse_similar(body: Mapping[str, Any]) -> SimilarItems:
    """Parse the response of /v1/items/{id}/similar."""
    return SimilarItems(body["item"], tuple(_parse_item(entry) for entry in body["items"]))


def parse_events_result(body: Mapping[str, Any]) -> EventsResult:
    """Parse the response of /v1/events."""
    rejected = tuple(RejectedEvent(entry["index"], entry["field"], entry["detail"]) for entry in body["rejected"])
    return EventsResult(body["accepted"], body["duplicate"], rejected, tuple(body["ids"]))


def parse_status(body: Mapping[str, Any]) -> ServiceStatus:
    """Parse the response of /readyz."""
    return ServiceStatus(body["status"], body["bundle"], body["items"], body.get("prefetch"))


def _feed_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ranking": body["ranking"],
        "timestamp": body["timestamp"],
        "user": body["user"],
        "bundle": body["bundle"],
        "source": body["source"],
        "items": tuple(_parse_item(entry) for entry in body["items"]),
        "degraded": tuple(body["degraded"]),
        "logged": body["logged"],
        "experiments": dict(body.get("experiments", {})),
    }


def _parse_item(body: Mapping[str, Any]) -> ScoredItem:
    explanation = body.get("explanation")
    if explanation is None:
        return ScoredItem(body["id"], body["score"])
    parsed = ItemExplanation(
        explanation["recall_score"], explanation["features"], explanation["contributions"], explanation["base"],
        explanation.get("categories", {}),
    )  # fmt: skip
    return ScoredItem(body["id"], body["score"], parsed)
