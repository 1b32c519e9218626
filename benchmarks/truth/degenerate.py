"""Seeded degenerate catalogues and logs: none or few items, no text, one text, no clicks, one user, one moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

START = 1_700_000_000_000
"""Epoch milliseconds of the first event."""
MINUTE = 60_000
Event = dict[str, Any]
Fields = list[dict[str, Any]]
CONFIG = """
[journal]
max_unknown_share = {max_unknown_share}

[embedder]
model = "{embedder}"

[index]
trees = 2

[training]
folds = 2
min_history = {min_history}
min_rankings = {min_rankings}

[ranker]
rounds = 4
threads = 1

[ranker.parameters]
min_data_in_leaf = 2
"""


@dataclass(frozen=True, slots=True)
class World:
    """A catalogue and a log."""

    name: str
    """What it is made of, readable."""
    items: list[Event]
    log: list[Event]
    min_history: int = 1
    min_rankings: int = 5
    max_unknown_share: float = 1.0
    """Share of ids without an item that is no error."""
    hidden: frozenset[str] = field(default_factory=frozenset)
    """Items that are in no feed."""

    def config(self, embedder: str) -> str:
        """Return the TOML config: small trees, and thresholds that even a tiny log may pass."""
        return CONFIG.format(
            embedder=embedder, min_history=self.min_history, min_rankings=self.min_rankings,
            max_unknown_share=self.max_unknown_share,
        )  # fmt: skip

    def can_be_shown(self, user: str | None) -> set[str]:
        """Return the items that a feed of this user may have."""
        seen = {one["item"] for one in self.log if one["event"] == "interaction" and user and one.get("user") == user}
        return {one["item"] for one in self.items} - seen - self.hidden


def _no_fields(_: random.Random, __: int) -> Fields:
    return []


def _fields(**values: Any) -> Callable[[random.Random, int], Fields]:
    """Return a maker of fields; a value that is a function gets the random numbers and the item's index."""

    def make(dice: random.Random, index: int) -> Fields:
        return [
            {"name": name, "value": value(dice, index) if callable(value) else value} for name, value in values.items()
        ]

    return make


def _some(first: Callable[[random.Random, int], Fields], share: float = 0.5) -> Callable[[random.Random, int], Fields]:
    return lambda dice, index: first(dice, index) if dice.random() < share else []


WORDS = ["red", "blue", "green", "shoes", "hat", "coat", "jazz", "opera", "soup", "bread", "moon", "star"]


def _title(dice: random.Random, _: int) -> str:
    return " ".join(dice.sample(WORDS, 3))


FIELDS: dict[str, Callable[[random.Random, int], Fields]] = {
    "ids only": _no_fields,
    "one text": _fields(title="the same red shoes"),
    "empty texts": _fields(title="", text="", category="", tags=[]),
    "only emoji": _fields(title="🎉🎉", text="🙈"),
    "only punctuation": _fields(title="...", text="!?", tags=["-"]),
    "only stop words": _fields(title="the of and"),
    "numbers only": _fields(price=lambda dice, _: dice.randint(1, 99), weight=0.0),
    "one number": _fields(price=5),
    "huge numbers": _fields(price=lambda dice, _: 10.0 ** dice.randint(-300, 300)),
    "one category": _fields(category="all"),
    "a category each": _fields(category=lambda _, index: f"brand {index}"),
    "many categories": _fields(category=lambda dice, _: [f"c{dice.randint(0, 50)}" for _ in range(20)]),
    "tags only": _fields(tags=lambda dice, _: dice.sample(WORDS, 3)),
    "published at once": _fields(published=START, title="news"),
    "published": _fields(published=lambda _, index: START + index * MINUTE),
    "titles": _fields(title=_title, category=lambda dice, _: dice.choice("ab")),
    "some titles": _some(_fields(title=_title)),
    "one title": lambda dice, index: [{"name": "title", "value": "red shoes"}] if index == 0 else [],
    "a long text": _fields(text=lambda dice, _: " ".join(dice.choices(WORDS, k=2_000))),
    "all hidden": _fields(removed=True),
    "some hidden": _some(_fields(removed=True)),
    "booleans": _fields(new=lambda dice, _: dice.random() < 0.5),
}  # fmt: skip
"""What the items have -> its maker."""
ITEM_COUNTS = (0, 1, 2, 3, 3, 5, 12, 30)
USERS = ("none", "one", "two", "many")
INTERACTIONS = (
    "none", "one", "one a user", "few", "six each", "unknown items only", "one item", "all items each", "history only",
    "some unknown",
)  # fmt: skip
TYPES = (("click",), ("rating",), ("click", "purchase", "hide"), ("odd type",))
TIMES = ("one moment", "minutes", "years", "backwards")
VALUES = ("no values", "one value", "ratings", "huge values")
RANKINGS = (
    "no rankings", "one ranking", "no clicks", "clicked", "all clicked", "labels", "labels of 0", "labels of 1",
    "graded labels", "one item each", "unknown items shown", "first clicked",
)  # fmt: skip
MEETS = ("users", "sessions", "neither")


def worlds(count: int, seed: int = 15) -> Iterator[World]:
    """Yield `count` worlds. Each axis takes its values in turn, in an order of its own, so that all of them come."""
    dice = random.Random(seed)
    axes: dict[str, Sequence[Any]] = {
        "items": ITEM_COUNTS, "fields": tuple(FIELDS), "users": USERS, "interactions": INTERACTIONS, "types": TYPES,
        "times": TIMES, "values": VALUES, "rankings": RANKINGS, "by": MEETS, "positions": (False, True),
        "min_history": (1, 5), "min_rankings": (1, 5, 500), "max_unknown_share": (0.5, 1.0, 1.0),
    }  # fmt: skip
    decks: dict[str, list[Any]] = {name: [] for name in axes}
    for number in range(count):
        chosen: dict[str, Any] = {}
        for name, values in axes.items():
            if not decks[name]:
                decks[name] = dice.sample(list(values), len(values))
            chosen[name] = decks[name].pop()
        yield make_world(number, chosen, random.Random(f"{seed} {number}"))


def make_world(number: int, chosen: dict[str, Any], dice: random.Random) -> World:
    """Make the world of these values of the axes."""
    n_items = chosen["items"]
    make_fields = FIELDS[chosen["fields"]]
    items = [
        {"event": "item", "id": f"i{index}", "timestamp": START, "item": f"item{index}",
         "fields": make_fields(dice, index)}
        for index in range(n_items)
    ]  # fmt: skip
    users = {"none": [None], "one": ["u0"], "two": ["u0", "u1"], "many": [f"u{user}" for user in range(15)]}
    interactions = _interactions(chosen, users[chosen["users"]], n_items, dice)
    log = [*interactions, *_rankings(chosen, users[chosen["users"]], n_items, dice)]
    hidden = frozenset(
        one["item"] for one in items for entry in one["fields"] if entry == {"name": "removed", "value": True}
    )
    name = ", ".join(f"{axis}: {value}" for axis, value in chosen.items())
    return World(f"{number}: {name}", items, log, chosen["min_history"], chosen["min_rankings"],
        chosen["max_unknown_share"], hidden,
    )  # fmt: skip


def _at(times: str, step: int) -> int:
    """Return the epoch milliseconds of a step of the log; none is in the future."""
    days = 14 * 24 * 60
    return START + {"one moment": 0, "minutes": step, "years": (step - 300) * days, "backwards": -step}[times] * MINUTE


def _interactions(chosen: dict[str, Any], users: list[str | None], n_items: int, dice: random.Random) -> list[Event]:
    kind, known = chosen["interactions"], [f"item{index}" for index in range(n_items)] or ["nothing"]
    unknown = [f"gone{index}" for index in range(5)]
    chosen_items: list[tuple[str | None, str]] = []
    for user in users:
        chosen_items += {
            "none": [],
            "one": [(user, known[0])],
            "one a user": [(user, dice.choice(known))],
            "few": [(user, dice.choice(known)) for _ in range(3)],
            "six each": [(user, dice.choice(known)) for _ in range(6)],
            "unknown items only": [(user, dice.choice(unknown)) for _ in range(6)],
            "one item": [(user, known[0])] * 6,
            "all items each": [(user, item) for item in known],
            "history only": [(user, dice.choice(known)) for _ in range(6)],
            "some unknown": [(user, dice.choice(known + unknown)) for _ in range(6)],
        }[kind]
        if kind == "one":
            break
    if chosen["times"] != "one moment":
        dice.shuffle(chosen_items)
    events: list[Event] = []
    for step, (user, item) in enumerate(chosen_items):
        event: Event = {
            "event": "interaction", "id": f"e{step}", "timestamp": _at(chosen["times"], step), "item": item,
            "type": "history" if kind == "history only" else dice.choice(chosen["types"]),
        }  # fmt: skip
        if user is not None:
            event["user"] = user
        elif chosen["by"] == "sessions":
            event["session"] = "s0"
        value = {"no values": None, "one value": 3.0, "ratings": dice.randint(1, 5), "huge values": 1e300}
        if (number := value[chosen["values"]]) is not None:
            event["value"] = number
        events.append(event)
    return events


def _rankings(chosen: dict[str, Any], users: list[str | None], n_items: int, dice: random.Random) -> list[Event]:
    kind = chosen["rankings"]
    known = [f"item{index}" for index in range(n_items)] or ["nothing"]
    events: list[Event] = []
    for number in range({"no rankings": 0, "one ranking": 1}.get(kind, 24)):
        size = 1 if kind == "one item each" else dice.randint(1, min(6, len(known)))
        shown = dice.sample(known, size) if kind != "unknown items shown" else [f"gone{index}" for index in range(3)]
        at = _at(chosen["times"], 200 + 2 * number)
        listed: list[Event] = [{"id": item} for item in shown]
        labels = {"labels of 0": lambda _: 0, "labels of 1": lambda _: 1, "graded labels": lambda place: place % 5}
        if kind == "labels":
            listed[0]["label"] = 1
        elif kind in labels:
            listed = [{"id": item, "label": labels[kind](place)} for place, item in enumerate(shown)]
        event: Event = {"event": "ranking", "id": f"r{number}", "timestamp": at, "items": listed}
        if chosen["by"] == "users" and (user := users[number % len(users)]) is not None:
            event["user"] = user
        elif chosen["by"] == "sessions":
            event["session"] = f"s{number % 3}"
        if chosen["positions"]:
            event["positions"] = list(range(1, len(shown) + 1))
        events.append(event)
        clicked = {"clicked": dice.sample(shown, 1), "all clicked": shown, "first clicked": shown[:1],
                   "one ranking": shown[:1], "one item each": shown}.get(kind, [])  # fmt: skip
        events += [
            {"event": "interaction", "id": f"c{number}-{item}", "timestamp": at + 1_000, "item": item,
             "type": "click", "ranking": f"r{number}", "user": event.get("user") or "u0"}
            for item in clicked
        ]  # fmt: skip
    return events
