"""Contexts that should turn the order: one half of the items is wanted on phones, the other on desktops."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import Bar
from benchmarks.concurrency import run
from benchmarks.features.shop import open_recommender
from benchmarks.features.shop_world import DEVICES, START_S
from feedrank.engine.serving.request import RecommendationRequest

ITEMS, USERS, RANKINGS, SIZE, ASKED = 200, 150, 4_000, 10, 200
CONFIG = """
[embedder]
model = "none"

[[features.declared]]
name = "device"
kind = "category"
from = "request.device"

[[features.declared]]
name = "form"
kind = "category"
from = "item.form"

[[features.declared]]
name = "form_on_device"
kind = "rate"
key = ["item.form", "request.device"]
half_lives_h = [inf]
"""


def bars() -> list[Bar]:
    """Share of lists whose order turns with the device."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "feedrank.toml").write_text(CONFIG)
        (home / "log.jsonl").write_text("\n".join(map(json.dumps, _log(np.random.default_rng(5)))))
        run(home, "import", str(home / "log.jsonl"))
        run(home, "train")
        recommender, dice = open_recommender(home), np.random.default_rng(6)
        turned = 0
        for number in range(ASKED):
            items = dice.choice(ITEMS, SIZE, replace=False)
            names, at = tuple(f"i{item}" for item in items.tolist()), START_S + (RANKINGS + number) * 60.0
            wanted = []
            for device in DEVICES:
                request = RecommendationRequest(f"u{number % USERS}", items=names, n=SIZE, context={"device": device})
                record = recommender.recommend(f"{number} {device}", at, request, log=False)
                places = {name: place for place, name in enumerate(record.items)}
                halves = [[places[f"i{item}"] for item in items.tolist() if item % 2 == half] for half in range(2)]
                wanted.append([float(np.mean(half)) if half else 0.0 for half in halves])
            (phones_first, desktops_last), (phones_last, desktops_first) = wanted
            turned += phones_first < desktops_last and desktops_first < phones_last
    return [Bar("two opposite contexts: lists whose order turns", turned / ASKED, "share", 0.95, "higher")]


def _log(dice: np.random.Generator) -> Iterator[dict[str, Any]]:
    for item in range(ITEMS):
        fields = [{"name": "form", "value": ("small", "large")[item % 2]}]
        yield {"event": "item", "id": f"i{item}", "item": f"i{item}", "timestamp": 0, "fields": fields}
    for number in range(RANKINGS):
        at, device = (START_S + number * 60) * 1_000, int(dice.integers(2))
        items, user = dice.choice(ITEMS, SIZE, replace=False), f"u{dice.integers(USERS)}"
        yield {
            "event": "ranking", "id": f"r{number}", "user": user, "timestamp": at,
            "items": [{"id": f"i{item}"} for item in items.tolist()],
            "fields": [{"name": "device", "value": DEVICES[device]}],
        }  # fmt: skip
        for item in items[dice.random(SIZE) < np.where(items % 2 == device, 0.3, 0.05)].tolist():
            yield {
                "event": "interaction", "id": f"r{number} {item}", "ranking": f"r{number}", "user": user,
                "item": f"i{item}", "type": "click", "timestamp": at + 1_000,
            }  # fmt: skip
