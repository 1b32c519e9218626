"""What an interaction of each type means: positive, negative, an impression, or neutral."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Meaning: TypeAlias = Literal["positive", "negative", "impression", "neutral"]
MEANINGS: tuple[Meaning, ...] = ("positive", "negative", "impression", "neutral")

HISTORY_TYPE = "history"
"""Type of an interaction from before the log began: a positive one that belongs to no ranking."""

USUAL_NAMES: dict[Meaning, tuple[str, ...]] = {
    "positive": (
        HISTORY_TYPE, "click", "clicks", "item_click", "product_click", "product_clicked", "select_item", "open", "read",
        "view", "views", "view_item", "item_view", "detail_view", "detail_page_view", "product_view", "product_viewed",
        "cart", "carts", "add_to_cart", "added_to_cart", "product_added", "basket", "begin_checkout", "checkout",
        "purchase", "purchases", "purchased", "buy", "order", "orders", "order_completed", "transaction", "conversion",
        "rating", "review", "like", "liked", "love", "upvote", "thumbs_up", "star", "favorite", "favourite", "bookmark",
        "save", "wishlist", "add_to_wishlist", "share", "follow", "subscribe", "comment", "download", "install",
        "listen", "play", "watch", "watched", "complete",
    ),
    "negative": (
        "hide", "hidden", "dislike", "disliked", "downvote", "thumbs_down", "not_interested", "report", "block",
        "unlike", "unfollow", "reject",
    ),
    "impression": (
        "impression", "impressions", "item_impression", "seen", "shown", "exposure", "view_item_list", "list_view",
        "view_list", "view_search_results", "product_list_viewed",
    ),
    "neutral": (
        "skip", "skipped", "search", "on_search", "hover", "product_hover", "scroll", "login", "logout", "page_view",
        "remove_from_cart", "product_removed", "return", "refund", "type_filter", "filter", "sort",
    ),
}  # fmt: skip
"""Meaning of the names that logs use. `_`, `-`, blanks and capital letters make no difference."""


@dataclass(frozen=True, slots=True)
class InteractionType:
    """What an interaction of one type means and what it enters."""

    meaning: Meaning = "positive"
    """positive, negative, impression (the item was seen: no interaction and no label) or neutral (neither)."""


@dataclass(frozen=True, slots=True)
class InteractionTypes:
    """[interactions] What an interaction of each type means."""

    types: Mapping[str, InteractionType] = field(default_factory=dict)
    """Types by name, in addition to the usual names and instead of them."""
    unlisted: Meaning = "neutral"
    """Meaning of a type that is neither here nor among the usual names."""

    def of(self, name: str) -> InteractionType:
        """Return what a type means: as configured, as its name usually means, or as unlisted types do."""
        configured = self.types.get(name)
        return configured if configured is not None else _USUAL.get(_key(name)) or InteractionType(self.unlisted)

    def is_listed(self, name: str) -> bool:
        """Return whether a type is configured, or has a usual name."""
        return name in self.types or _key(name) in _USUAL


def _key(name: str) -> str:
    """Return the form of a name in which `Add to cart`, `add-to-cart` and `addtocart` are equal."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_USUAL = {_key(name): InteractionType(meaning) for meaning, names in USUAL_NAMES.items() for name in names}
