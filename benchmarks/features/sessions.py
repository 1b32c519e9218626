"""Sessions of three clicks in which nobody is named: what leads their feeds, and whether clicked items come again."""

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
from benchmarks.features.shop_world import START_S
from feedrank.engine.events.events import InteractionEvent
from feedrank.engine.serving.request import RecommendationRequest

TOPICS, ITEMS_OF_TOPIC, USERS, SESSIONS = 10, 30, 400, 200


def bars() -> list[Bar]:
    """Share of feeds led by an item of the session's topic, and just-clicked items that are shown."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
        (home / "log.jsonl").write_text("\n".join(map(json.dumps, _log(np.random.default_rng(7)))))
        run(home, "import", str(home / "log.jsonl"))
        run(home, "train")
        recommender, dice = open_recommender(home), np.random.default_rng(8)
        near, again, at = 0, 0, START_S + 1_000_000.0
        for number in range(SESSIONS):
            topic = int(dice.integers(TOPICS))
            clicked = [f"t{topic} {item}" for item in dice.choice(ITEMS_OF_TOPIC, 3, replace=False).tolist()]
            for step, item in enumerate(clicked):
                at += 5
                event = InteractionEvent(f"s{number} {step}", round(at * 1_000), item, "click", session=f"s{number}")
                recommender.record([event], at)
            record = recommender.recommend(f"feed {number}", at + 1, RecommendationRequest(session=f"s{number}"))
            near += record.items[0].startswith(f"t{topic} ")
            again += len({*record.items} & {*clicked})
    return [
        Bar("sessions of three clicks: feeds led by something near them", near / SESSIONS, "share", 0.95, "higher"),
        Bar("the same: just-clicked items shown", again, "items", 0, "lower"),
    ]


def _log(dice: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield the clicks of users who keep to a topic for nine clicks of ten."""
    for topic in range(TOPICS):
        for item in range(ITEMS_OF_TOPIC):
            name = f"t{topic} {item}"
            yield {"event": "item", "id": name, "item": name, "timestamp": 0, "fields": []}
    for user in range(USERS):
        own = int(dice.integers(TOPICS))
        for step in range(12):
            topic = own if dice.random() < 0.9 else int(dice.integers(TOPICS))
            at = (START_S + user * 1_000 + step * 20) * 1_000
            yield {
                "event": "interaction", "id": f"u{user} {step}", "user": f"u{user}", "type": "click", "timestamp": at,
                "item": f"t{topic} {dice.integers(ITEMS_OF_TOPIC)}",
            }  # fmt: skip
