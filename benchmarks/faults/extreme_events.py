"""Generates events whose every part is at its extremes: bodies as a client sends them, many of which are refused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from feedrank.engine.events.event_time import EARLIEST_MS
from feedrank.engine.experiments.spec import ExperimentSpec

NOW_MS = 1_750_000_000_000
EXPERIMENTS = ("ab", "mixed", "balanced", "shadow")
"""Names of the experiments that the readers of `event_readers` know."""
ARMS = ("usual", "other", "interleaved", "holdout", "", "nobody")
NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 1, -1, 0.5, 1.5, 2, 3, 30, 31, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, -(2**53), 2**53 + 2),
    *(2**63 - 1, 2**63, -(2**63), 2**64 - 1, 10**15 - 1, 10**15, 1e18, -1e18, 3.4028234663852886e38, 3.5e38, 1e300),
    *(1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e-12, 10**400),
    *(math.nan, math.inf, -math.inf),
)
AMOUNTS = (0, -0.0, 1, 4.5, -1, 0.1, 31, 2**53, -(2**53), 5e-324, 2**31)
ACCEPTED: dict[str, tuple[Any, ...]] = {
    "label": (*AMOUNTS, 0, 1, 2, 3), "value": AMOUNTS, "dwell_ms": (0, 0.5, 30_000, 2**53, 5e-324),
    "position": (1, 2, 2**31 - 1), "positions": (1, 2.0, 3, 2**31 - 1),
    "scores": (0.1, -1, 3.4028234663852886e38, -3.4028234663852886e38, 5e-324),
    "propensities": (0.1, 0.5, 1, 1e-12, 2.2250738585072014e-308),
}  # fmt: skip
"""The least and the largest numbers that a part may have, and usual ones between them."""
ODD: tuple[Any, ...] = (None, True, False, "", "7", "\ud800", [], {}, [None], [1, "a"], {"a": {"b": [1e18]}})
TIMES: tuple[Any, ...] = (
    *(0, -1, 1, 999, EARLIEST_MS - 1, EARLIEST_MS, NOW_MS, NOW_MS - 1_800_001, NOW_MS + 86_400_000, 10**15 - 1),
    *(
        -(10**15) + 1,
        10**15,
        999_999_999_999_999.9,
        -999_999_999_999_999.9,
        4e12,
        -62_135_596_800_000,
        253_402_300_799_999,
    ),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59.999Z", "1e12", math.nan, None),
)
TEXTS: tuple[Any, ...] = (
    "",
    " ",
    "a",
    "the rocket book",
    "x" * 3_000,
    "日本語 ก็ é",
    "\x00",
    "\u202e",
    "0",
    "1e5",
    "true",
)
ITEMS = (*(f"i{number}" for number in range(12)), "x" * 256, "é", "a|b", "1.0", "007")
USERS = ("u1", "u2", "u3", "x" * 256, "é", "7")
PSEUDONYMS = ("erased:salt:" + "0" * 34, "erased:salt:" + "z" * 34, f"erased:{'x' * 100}:{'0' * 34}", "erased::")
"""Users of tombstones, which parts of the service read as pseudonyms."""
RANKINGS = tuple(f"r{number}" for number in range(40))
BASE64 = ("", "AAAA", "AACAPw==", "AACAPwAAgD8=", "AADAfwAAgH8=", "*", "é")
SERVED: dict[str, Callable[[random.Random, int], Any]] = {
    "offset": lambda dice, n: dice.choice(NUMBERS),
    "items_offset": lambda dice, n: dice.choice(NUMBERS),
    "fallback": lambda dice, n: dice.choice(("popular", "full", 5, None)),
    "degraded": lambda dice, n: dice.choice((["rank"], ["encode_query"], [None], 5)),
    "cross_encoder_scores": lambda dice, n: dice.choice(BASE64),
    "experiments": lambda dice, n: dice.choice(
        (None, [], [[dice.choice(EXPERIMENTS), dice.choice(ARMS)]], [["ab"]], [[1, 2]], "ab", {"ab": "usual"})
    ),
    "ranks": lambda dice, n: dice.choice(
        ([[dice.randint(-1, 3) for _ in range(n)] for _ in range(dice.randint(0, 3))], [[10**400] * n] * 2, 5, [[]])
    ),
    "places": lambda dice, n: dice.choice((5, None, [[0] * n, [-1] * n])),
    "interleaving": lambda dice, n: dice.choice(("team-draft", "balanced", 5)),
    "arm_overrides": lambda dice, n: dice.choice(
        (
            {"candidates": dice.choice(NUMBERS)}, {"explore": {"depth": dice.choice(NUMBERS)}},
            {"diversity": {"weight": 10**400}}, {"what": 1}, 5,
        )
    ),
    "recall": lambda dice, n: dice.choice(
        (
            {"items": ["i1"] * n, "scores": [dice.choice(NUMBERS)] * n, "candidates": dice.choice(NUMBERS)},
            {"items": 5}, 5,
        )
    ),
    "options": lambda dice, n: dice.choice(
        (
            {"n": dice.choice(NUMBERS)}, {"items": ["i1", "i2"]}, {"items": 5}, {"items": [1]}, {"user": "u9"},
            {"items": ["i1", "i2"], "item_fields": {"price": [dice.choice(NUMBERS)]}}, {"item_fields": {"price": 5}},
            {"filters": {"allow": dice.choice(NUMBERS)}}, {"filters": {"deny": ["i1"]}}, {"filters": {"seen": 1}},
            {"diversity": {"weight": dice.choice(NUMBERS), "per_category": dice.choice(NUMBERS)}}, {"what": 1}, 5,
        )
    ),
    "logged": lambda dice, n: dice.choice((False, True, 5)),
}  # fmt: skip


def extreme_event(dice: random.Random, number: int) -> dict[str, Any]:
    """Return the body of an event. number: makes its id."""
    kind = dice.choices(tuple(_PARTS), _WEIGHTS)[0]
    at = NOW_MS + dice.randint(-(10**8), 10**7) if dice.random() < 0.5 else dice.choice(TIMES)
    body: dict[str, Any] = {"event": kind, "id": f"e{number}", "timestamp": at, **_PARTS[kind](dice)}
    if kind == "ranking" and dice.random() < 0.6:
        body["id"] = dice.choice(RANKINGS)
    if dice.random() < 0.2:
        body["received"] = dice.choice(TIMES)
    if kind != "experiment" and dice.random() < 0.6:
        body["fields"] = _fields(dice)
    if kind == "user" and dice.random() < 0.3:
        body["fields"] = [
            {"name": "erased", "value": True},
            {"name": "ties", "value": dice.choice(([], ["a"], [1], 5))},
        ]
    if dice.random() < 0.1:
        body[dice.choice(tuple(body))] = dice.choice(ODD)
    return body


def _number(dice: random.Random, part: str) -> Any:
    """Return a usual number of a part, an extreme one that it may have, or any number."""
    return dice.choice(NUMBERS if dice.random() < 0.05 else ACCEPTED[part])


def _fields(dice: random.Random) -> list[dict[str, Any]]:
    names = (
        "title",
        "text",
        "category",
        "tags",
        "published",
        "removed",
        "rank_only",
        "price",
        "query",
        "history",
        "source",
    )
    return [{"name": dice.choice(names), "value": _field_value(dice)} for _ in range(dice.randint(0, 4))]


def _field_object(dice: random.Random) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in _fields(dice)}


def _field_value(dice: random.Random) -> Any:
    return dice.choice(
        (
            dice.choice(TEXTS), dice.choice(NUMBERS), dice.choice(TIMES),
            [dice.choice(TEXTS) for _ in range(dice.randint(0, 3))],
            [dice.choice(NUMBERS) for _ in range(dice.randint(0, 3))], dice.choice(ODD),
        )
    )  # fmt: skip


def _who(dice: random.Random) -> dict[str, Any]:
    return {name: dice.choice(USERS) for name in ("user", "session") if dice.random() < 0.7}


def _ranking(dice: random.Random) -> dict[str, Any]:
    n = 500 if dice.random() < 0.01 else dice.randint(1, 6)
    listed = [f"long{number}" for number in range(n)] if n > len(ITEMS) else dice.sample(ITEMS, n)
    body: dict[str, Any] = {"items": [{"id": item} for item in listed], **_who(dice)}
    if dice.random() < 0.4:
        body["items"] = [{"id": item, "label": _number(dice, "label")} for item in listed]
    if dice.random() < 0.3:
        for entry in body["items"]:
            entry |= dice.choice(({}, {"fields": _fields(dice)}, {"fields": _field_object(dice)}))
    for name in ("positions", "scores", "propensities"):
        if dice.random() < 0.5:
            body[name] = [_number(dice, name) for _ in listed]
    texts = {"surface": ("home", "x" * 300), "bundle": ("toy", "..", ""), "experiment": EXPERIMENTS, "variant": ARMS}
    body |= {name: dice.choice(values) for name, values in texts.items() if dice.random() < 0.5}
    if dice.random() < 0.3:
        body["team"] = [dice.choice(ARMS) for _ in listed]
    if dice.random() < 0.3:
        body["seed"] = dice.choice(NUMBERS)
    if dice.random() < 0.3:
        body["features"] = {
            "fingerprint": dice.choice(("f", "", 5)),
            "rows": dice.choice((n, True, 0, 1e18)),
            "data": dice.choice(BASE64),
        }
    if dice.random() < 0.5:
        body["served"] = {name: SERVED[name](dice, n) for name in dice.sample(tuple(SERVED), dice.randint(0, 4))}
    if dice.random() < 0.5:
        body["provenance"] = dice.choice(("service", "import"))
    return body


def _interaction(dice: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {"item": dice.choice(ITEMS), **_who(dice)}
    body["type"] = dice.choice(("click", "purchase", "rating", "hide", "impression", "history", "wishlist", "x" * 300))
    if dice.random() < 0.5:
        body["ranking"] = dice.choice(RANKINGS)
    names = ("value", "dwell_ms", "position")
    return body | {name: _number(dice, name) for name in names if dice.random() < 0.5}


def _experiment(dice: random.Random) -> dict[str, Any]:
    name = dice.choice((*EXPERIMENTS, f"new{dice.randrange(9)}"))
    change = dice.choice(("create", "create", "start", "weights", "stop-arm", "stop", "shadow", "what"))
    return {"experiment": name, "change": change, "payload": _payload(dice, change)}


def _payload(dice: random.Random, change: str) -> dict[str, Any]:
    value = dice.choice((*NUMBERS, *ODD))
    if change == "create":
        spec = ExperimentSpec.from_dict({"name": "new", "arms": {"usual": {}, "other": {"bundle": "other"}}}).to_dict()
        key = dice.choice((*spec, "arms.weight", "arms.explore", "guardrails", "metrics"))
        if "." not in key:
            return spec | {key: value}
        spec["arms"]["other"][key.partition(".")[2]] = value if key == "arms.weight" else {"temperature": value}
        return spec
    if change == "shadow":
        return {"arm": "other", "rankings": value, "latency_counts": dice.choice(([1] * 3, value))}
    return {"weights": {"usual": value, "other": 1}, "arm": dice.choice(ARMS), "reason": value, "incumbent": value}


_PARTS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "item": lambda dice: {"item": dice.choice(ITEMS)},
    "user": lambda dice: {"user": dice.choice((*USERS, *PSEUDONYMS))},
    "ranking": _ranking,
    "interaction": _interaction,
    "experiment": _experiment,
}
_WEIGHTS = (15, 5, 35, 35, 10)
