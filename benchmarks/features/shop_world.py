"""A simulated shop whose users' taste is known: category, price, brand, quality, and device by time of the day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

START_S = 1_750_000_000
REQUEST_S = 600
"""Seconds between two rankings."""
CATEGORIES, BRANDS, DEVICES = 8, 12, ("phone", "desktop")
PRICE_DROP = 0.7

CONFIG = """
[embedder]
model = "none"

[[features.declared]]
name = "price"
kind = "number"
from = "item.price"
transform = "log1p"
within = ["z"]

[[features.declared]]
name = "price_fit"
kind = "distance"
from = "item.price"
to = "user.recent(item.price)"
transform = "log1p"
within = ["z"]

[[features.declared]]
name = "quality"
kind = "number"
from = "item.quality"
within = ["z"]

[[features.declared]]
name = "category"
kind = "category"
from = "item.category"

[[features.declared]]
name = "device"
kind = "category"
from = "request.device"

[[features.declared]]
name = "hour"
kind = "local_time"
part = "hour"

[[features.declared]]
name = "brand_rate"
kind = "rate"
key = ["user", "item.brand"]
half_lives_h = [inf]
within = ["z"]

[[features.declared]]
name = "category_rate"
kind = "rate"
key = ["user", "item.category"]
half_lives_h = [inf]
within = ["z"]

[[features.declared]]
name = "brand_share"
kind = "interacted_with"
from = "item.brand"
half_lives_h = [inf]

[[features.declared]]
name = "moment_rate"
kind = "rate"
key = ["item.category", "request.moment"]
half_lives_h = [inf]
within = ["z"]
"""


@dataclass(eq=False)
class Shop:
    """The truth of a shop. Utilities are sums of five parts of about the same variance."""

    seed: int = 0
    n_items: int = 400
    n_users: int = 300

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        normal = self.random.normal
        self.category = self.random.integers(0, CATEGORIES, self.n_items)
        self.brand = self.random.integers(0, BRANDS, self.n_items)
        self.log_price, self.quality = normal(3.5, 0.8, self.n_items), normal(0, 1, self.n_items)
        self.likes_category, self.likes_brand = (
            normal(0, 1, (self.n_users, CATEGORIES)),
            normal(0, 1, (self.n_users, BRANDS)),
        )
        self.likes_log_price = normal(3.5, 0.6, self.n_users)
        self.of_moment = normal(0, 1, (CATEGORIES, len(DEVICES), 4))

    def parts(self, user: int, items: NDArray[np.int64], device: int, at_s: float) -> NDArray[np.float64]:
        """Return the (n, 5) parts of the utility of items: category, price fit, brand, quality, device by time."""
        quarter = int(at_s % 86_400 // 21_600)
        columns = (
            self.likes_category[user, self.category[items]],
            1.6 - 2.7 * np.abs(self.log_price[items] - self.likes_log_price[user]),
            0.7 * self.likes_brand[user, self.brand[items]],
            0.8 * self.quality[items],
            0.8 * self.of_moment[self.category[items], device, quarter],
        )
        return np.stack(columns, axis=1)

    def item_events(self) -> Iterator[dict[str, Any]]:
        """Yield an event of each item."""
        for item in range(self.n_items):
            yield self.item_event(item, 0, float(np.exp(self.log_price[item])))

    def item_event(self, item: int, timestamp_ms: int, price: float) -> dict[str, Any]:
        """Return an event that sets all fields of an item."""
        fields = {
            "category": f"c{self.category[item]}", "brand": f"b{self.brand[item]}", "price": price,
            "quality": float(self.quality[item]),
        }  # fmt: skip
        listed = [{"name": name, "value": value} for name, value in fields.items()]
        name = f"i{item}"
        return {
            "event": "item",
            "id": f"{name} {timestamp_ms}",
            "item": name,
            "timestamp": timestamp_ms,
            "fields": listed,
        }

    def request(self, number: int, size: int) -> tuple[int, NDArray[np.int64], int, float]:
        """Draw the user, the items, the device and the unix seconds of a request."""
        user, device = int(self.random.integers(self.n_users)), int(self.random.integers(len(DEVICES)))
        return user, self.random.choice(self.n_items, size, replace=False), device, START_S + number * REQUEST_S

    def context(self, device: int, at_s: float) -> dict[str, str]:
        """Return the fields of a request: the device, and the device with the quarter of the day."""
        return {"device": DEVICES[device], "moment": f"{DEVICES[device]} {int(at_s % 86_400 // 21_600)}"}

    def rankings(
        self, count: int, size: int = 12
    ) -> Iterator[tuple[list[dict[str, Any]], NDArray[np.float64], list[int]]]:
        """Yield the events, the parts and the clicks (0 or 1) of rankings of random items."""
        for number in range(count):
            user, items, device, at_s = self.request(number, size)
            parts = self.parts(user, items, device, at_s)
            clicked = self.random.random(size) < 1 / (1 + np.exp(2.0 - 1.5 * parts.sum(axis=1)))
            shown = {
                "event": "ranking", "id": f"r{number}", "user": f"u{user}", "timestamp": round(at_s * 1_000),
                "items": [{"id": f"i{item}"} for item in items.tolist()],
                "fields": [{"name": name, "value": value} for name, value in self.context(device, at_s).items()],
            }  # fmt: skip
            events = [shown]
            for step, item in enumerate(items[clicked].tolist()):
                events.append({
                    "event": "interaction", "id": f"r{number} {item}", "ranking": f"r{number}", "user": f"u{user}",
                    "item": f"i{item}", "type": "click", "timestamp": round(at_s * 1_000) + 1_000 * (step + 1),
                })  # fmt: skip
            yield events, parts, clicked.astype(int).tolist()
