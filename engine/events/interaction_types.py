"""What an interaction of each type means: positive, negative, an impression, or neutral."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Meaning: TypeAlias = Literal["positive", "negative", "impression", "neutral"]
MEANINGS: tuple[Meaning, ...] = ("positive", "negative", "impression", "neutral")
POSITIVE, NEGATIVE, SEEN, NEUTRAL = range(4)
"""Indices of the meanings."""

IN_HISTORY, IN_POPULARITY, IN_COOCCURRENCE, IN_TRANSITIONS = 1, 2, 4, 8
"""Bits of what an interaction enters."""
USUAL_WEIGHTS: dict[Meaning, float] = {"positive": 1.0, "negative": -1.0, "impression": 0.0, "neutral": 0.0}
"""Weight of a type in a label where none is configured."""

HISTORY_TYPE = "history"
"""Type of an interaction from before the log began: a positive one that belongs to no ranking."""

USUAL_NAMES: dict[Meaning, tuple[str, ...]] = {
    "positive": (
        HISTORY_TYPE, "click", "clicks", "clicked", "tap", "item_click", "product_click", "product_clicked",
        "select_item", "select_content", "open", "opened", "read", "view", "views", "viewed", "pv", "view_item",
        "item_view", "item_viewed", "detail_view", "detail_page_view", "product_view", "product_viewed", "cart",
        "carts", "add_to_cart", "added_to_cart", "cart_addition", "product_added", "basket", "add_to_basket",
        "begin_checkout", "checkout", "purchase", "purchases", "purchased", "purchase_complete", "product_purchase",
        "product_purchased", "buy", "bought", "order", "orders", "ordered", "order_completed", "transaction",
        "transactions", "conversion", "converted", "rating", "ratings", "rate", "rated", "review", "like", "liked",
        "love", "loved", "upvote", "thumbs_up", "thumb_up", "star", "fav", "favorite", "favourite", "bookmark", "save",
        "saved", "collect", "wishlist", "add_to_wishlist", "add_to_favorites", "add_to_list", "share", "shared",
        "follow", "subscribe", "comment", "tag", "download", "install", "listen", "listened", "scrobble", "stream",
        "play", "played", "watch", "watched", "complete", "completed", "finish", "finished", "book", "booking",
    ),
    "negative": (
        "hide", "hidden", "dislike", "disliked", "downvote", "thumbs_down", "thumb_down", "not_interested", "report",
        "reported", "block", "blocked", "mute", "decline", "declined", "declined_product", "reject", "rejected",
        "unlike", "unfavorite", "unfollow", "unsubscribe",
    ),
    "impression": (
        "impression", "impressions", "item_impression", "product_impression", "viewable_impression", "seen", "shown",
        "displayed", "exposure", "view_item_list", "list_view", "view_list", "view_search_results",
        "product_list_viewed",
    ),
    "neutral": (
        "skip", "skipped", "search", "on_search", "hover", "product_hover", "scroll", "login", "logout", "page_view",
        "home_page_view", "category_page_view", "global_click", "button_click", "remove_from_cart", "product_removed",
        "return", "returned", "refund", "refunded", "cancel", "type_filter", "brand_filter", "filter", "sort",
        "product_sort", "page_exit", "404_redirect",
    ),
}  # fmt: skip
"""Meaning of the names that logs use. `_`, `-`, blanks and capital letters make no difference."""


@dataclass(frozen=True, slots=True)
class InteractionType:
    """[interactions.types.NAME] What an interaction of one type means, and what it enters."""

    meaning: Meaning | None = None
    """positive, negative, impression (the item was seen, which is no interaction and gives no label) or neutral. Not
    set: negative for a weight below 0, otherwise what the name usually means, and positive for another name."""
    weight: float | None = None
    """Weight in a label: above 0 for a positive type, or 0; below 0 for a negative one, or 0. Not set: 1 and -1."""
    history: bool | None = None
    """Whether it enters the user's history, so that the item is not recommended again. Not set: positive types do."""
    popularity: bool | None = None
    """Whether it counts for the popularity and the rates of an item. Not set: positive types do."""
    cooccurrence: bool | None = None
    """Whether it counts for co-occurrence (items of the same users). Not set: positive types do."""
    transitions: bool | None = None
    """Whether it counts for transitions (which item follows which). Not set: positive types do."""
    min_value: float | None = None
    """Lowest value, such as a rating, that means this; a lower one means what `below` says. Not set: any value does."""
    below: Literal["neutral", "negative"] = "neutral"
    """Meaning of an interaction whose value is below `min_value`: neutral or negative."""


@dataclass(frozen=True, slots=True)
class TypeMeaning:
    """What an interaction type means, with nothing left open."""

    meaning: Meaning
    weight: float
    """Weight in a label; 0: none."""
    history: bool
    popularity: bool
    cooccurrence: bool
    transitions: bool
    min_value: float | None = None
    """An interaction with a lower value means `below`; None: the value does not matter."""
    below: Literal["neutral", "negative"] = "neutral"

    @property
    def changes_feeds(self) -> bool:
        """Whether it changes what its user is recommended next: it enters the history, or is negative."""
        return self.history or self.meaning == "negative"

    @property
    def enters(self) -> int:
        """The bits of what it enters."""
        return (
            IN_HISTORY * self.history
            + IN_POPULARITY * self.popularity
            + IN_COOCCURRENCE * self.cooccurrence
            + IN_TRANSITIONS * self.transitions
        )


class MeaningColumns(NamedTuple):
    """What I interactions mean."""

    meaning: NDArray[np.uint8]
    """(I,) index in `MEANINGS`."""
    weight: NDArray[np.float64]
    """(I,) weight in a label."""
    enters: NDArray[np.uint8]
    """(I,) bits of what it enters."""
    is_below: NDArray[np.bool_]
    """(I,) True where the value is below the type's `min_value`."""

    @property
    def is_interaction(self) -> NDArray[np.bool_]:
        """(I,) True for positive interactions, and neutral ones that enter the history or the popularity."""
        enters = (self.enters & (IN_HISTORY | IN_POPULARITY)) > 0
        found: NDArray[np.bool_] = (self.meaning == POSITIVE) | ((self.meaning == NEUTRAL) & enters)
        return found


@dataclass(frozen=True, slots=True)
class InteractionTypes:
    """[interactions] What an interaction of each type means."""

    unlisted: Meaning = "neutral"
    """Meaning of a type that has neither a table [interactions.types.NAME] nor a usual name: positive, negative,
    impression or neutral."""
    types: Mapping[str, InteractionType] = field(default_factory=dict)
    """Types by name, such as {purchase = {weight = 5.0}, hide = {weight = -2.0}}, instead of the meanings that their
    names usually have."""

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for name, configured in self.types.items():
            if (other := names.setdefault(_key(name), name)) != name:
                raise ValueError(
                    f"types.{other} and types.{name} are one type, as `_`, `-`, blanks and capital letters make no "
                    "difference; keep one"
                )
            _resolve(name, configured)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InteractionTypes:
        """Build the settings from the result of `to_dict`."""
        return cls(data["unlisted"], {name: InteractionType(**body) for name, body in data["types"].items()})

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-ready values."""
        return asdict(self)

    def of(self, name: str) -> TypeMeaning:
        """Return what a type means: as configured, as its name usually means, or as unlisted types do."""
        configured = self._configured(name)
        if configured is not None:
            return _resolve(name, configured)
        return _default_of(_USUAL.get(_key(name), self.unlisted))

    def is_listed(self, name: str) -> bool:
        """Return whether a type is configured, or has a usual name."""
        return self._configured(name) is not None or _key(name) in _USUAL

    def columns(self, names: Sequence[str], types: NDArray[np.int32], values: NDArray[np.float64]) -> MeaningColumns:
        """Return what interactions mean. names: of the types. types: (I,) indices in them. values: (I,), NaN: none."""
        found = [self.of(name) for name in names]
        meaning = np.array([MEANINGS.index(entry.meaning) for entry in found], np.uint8)[types]
        weight = np.array([entry.weight for entry in found], np.float64)[types]
        enters = np.array([entry.enters for entry in found], np.uint8)[types]
        is_below = np.zeros(len(types), np.bool_)
        if any(entry.min_value is not None for entry in found):
            least = np.array([-np.inf if entry.min_value is None else entry.min_value for entry in found])
            is_below = values < least[types]
            below = [_default_of(entry.below) for entry in found]
            meaning[is_below] = np.array([MEANINGS.index(entry.meaning) for entry in below], np.uint8)[types[is_below]]
            weight[is_below] = np.array([entry.weight for entry in below], np.float64)[types[is_below]]
            enters[is_below] = 0
        return MeaningColumns(meaning, weight, enters, is_below)

    def _configured(self, name: str) -> InteractionType | None:
        return next((entry for other, entry in self.types.items() if _key(other) == _key(name)), None)


def unlisted_types(counts: Mapping[str, int], types: InteractionTypes) -> dict[str, int]:
    """Return the types that have neither a table nor a usual name, most frequent first. counts: type -> number."""
    found = {name: count for name, count in counts.items() if count and not types.is_listed(name)}
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def unlisted_warning(counts: Mapping[str, int], types: InteractionTypes) -> str:
    """Return a sentence that names the unlisted types and what to write in the config; empty if there is none.

    counts: type -> interactions. Nothing is said where the config gives unlisted types another meaning than neutral.
    """
    found = unlisted_types(counts, types)
    if not found or types.unlisted != "neutral":
        return ""
    example = next(iter(found))
    return (
        f"{sum(found.values()):,} interactions are ignored, as nothing says what their types mean: {_listed(found)}; "
        f'say it in the config: [interactions.types] {_toml_key(example)} = {{ meaning = "positive" }}, or negative, '
        'impression or neutral; or for all of them: [interactions] unlisted = "positive"'
    )


def check_any_positive(counts: Mapping[str, int], types: InteractionTypes) -> None:
    """Raise ValueError, naming the types, if there are interactions but none is positive. counts: type -> number."""
    found = {name: count for name, count in counts.items() if count}
    if found and not any(types.of(name).meaning == "positive" for name in found):
        meanings = ", ".join(f"{name} ({count:,}, {types.of(name).meaning})" for name, count in found.items())
        example = next(iter(unlisted_types(found, types)), next(iter(found)))
        raise ValueError(
            f"found no positive interaction among {sum(found.values()):,} of the types {meanings}; a ranker learns "
            f"from positive ones: import clicks, or say in the config which type is positive: [interactions.types] "
            f'{_toml_key(example)} = {{ meaning = "positive" }}'
        )


def _listed(counts: Mapping[str, int], most: int = 10) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:most])
    return shown if len(counts) <= most else f"{shown} and {len(counts) - most} more"


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


@lru_cache(4_096)
def _key(name: str) -> str:
    """Return the form of a name in which `Add to cart`, `add-to-cart` and `addtocart` are equal."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_USUAL: dict[str, Meaning] = {_key(name): meaning for meaning, names in USUAL_NAMES.items() for name in names}


def _default_of(meaning: Meaning) -> TypeMeaning:
    enters = meaning == "positive"
    return TypeMeaning(meaning, USUAL_WEIGHTS[meaning], enters, enters, enters, enters)


def _resolve(name: str, configured: InteractionType) -> TypeMeaning:
    """Return the meaning of a configured type. Raises ValueError if its settings contradict each other."""
    weight, meaning = configured.weight, configured.meaning
    if meaning is None:
        meaning = "negative" if weight is not None and weight < 0 else _USUAL.get(_key(name), "positive")
    expected = {"positive": "at least 0", "negative": "at most 0"}.get(meaning, "0")
    low, high = {"positive": (0.0, np.inf), "negative": (-np.inf, 0.0)}.get(meaning, (0.0, 0.0))
    if weight is not None and not (low <= weight <= high and np.isfinite(weight)):
        raise ValueError(
            f"types.{name} has the weight {weight:g} and is {meaning}, expected {expected}; give it another meaning "
            "or weight"
        )
    entered = {key: getattr(configured, key) for key in ("history", "popularity", "cooccurrence", "transitions")}
    if meaning in ("negative", "impression") and (wrong := [key for key, value in entered.items() if value]):
        raise ValueError(
            f"types.{name} is {meaning} and has {wrong[0]} = true, expected false: only positive and neutral types may "
            f"enter {wrong[0]}"
        )
    usual = _default_of(meaning)
    return TypeMeaning(
        meaning,
        usual.weight if weight is None else weight,
        **{key: getattr(usual, key) if value is None else value for key, value in entered.items()},
        min_value=configured.min_value,
        below=configured.below,
    )
