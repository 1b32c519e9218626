"""A small world whose right answers are known by construction: four genres, and people who each keep to one.

A genre's items stand in a ring, and everybody walks it one item at a time. So what a person wants next is the item
after their last one, and what they want at all are the items of their genre.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

GENRES = {
    "space": "rocket orbit planet astronaut comet galaxy moon telescope nebula satellite shuttle meteor star sun mars",
    "kitchen": "bread soup butter garlic onion oven recipe pepper flour salad cheese tomato sauce noodle stew",
    "ocean": "whale reef tide harbour sailor coral dolphin anchor lagoon shark island pearl seaweed current lighthouse",
    "music": "violin drum opera guitar melody choir trumpet jazz piano symphony cello rhythm concert ballad flute",
}
"""Genre -> the word that makes an item's title."""
RING = 15
PEOPLE = 60
STEPS = 9
START = 1_700_000_000_000
"""Epoch milliseconds of the first touch."""
HOUR = 3_600_000
END = START + (PEOPLE * (STEPS + 1)) * HOUR // 10
"""After everything that happened in the world."""

CONFIG = """
[items]
transition_rank = 16
cooccurrence_rank = 4

[index]
trees = 10

[training]
folds = 2
targets_per_user = 3
min_history = 3

[ranker]
rounds = 30
patience = 10
threads = 1

[ranker.parameters]
min_data_in_leaf = 5
"""


def item(genre: str, place: int) -> str:
    """The id of an item of the ring."""
    return f"{genre}-{place % RING}"


def genre_of(item_id: str) -> str:
    """The genre of an item."""
    return item_id.rpartition("-")[0]


def genre_liked_by(person: int) -> str:
    """The one genre that a person touches."""
    return list(GENRES)[person % len(GENRES)]


def start_of(person: int) -> int:
    """Where on the ring a person began."""
    return person // len(GENRES)


def wanted_next(person: int) -> str:
    """The item after the last one that a person touched."""
    return item(genre_liked_by(person), start_of(person) + STEPS)


def user(person: int) -> str:
    """The id of a person."""
    return f"p{person}"


def items() -> list[dict[str, Any]]:
    """One item event each."""
    return [
        {
            "event": "item",
            "id": f"i-{item(genre, place)}",
            "timestamp": START,
            "item": item(genre, place),
            "fields": [{"name": "title", "value": f"the {word} book"}, {"name": "category", "value": genre}],
        }
        for genre, words in GENRES.items()
        for place, word in enumerate(words.split())
    ]


def touches() -> list[dict[str, Any]]:
    """Everybody's walk, step by step: an interaction each, as MovieLens has them."""
    return [
        {
            "event": "interaction",
            "id": f"t-{person}-{step}",
            "timestamp": START + (step * PEOPLE + person) * HOUR // 10,
            "item": item(genre_liked_by(person), start_of(person) + step),
            "type": "rating",
            "user": user(person),
            "value": 4.0 + step % 2,
        }
        for step in range(STEPS)
        for person in range(PEOPLE)
    ]


def rankings(count: int = 800) -> list[dict[str, Any]]:
    """After the walks: lists of two items of each genre in any order, and a click on the first of the right one."""
    dice = random.Random(11)
    events: list[dict[str, Any]] = []
    for number in range(count):
        person = number % PEOPLE
        shown = [item(genre, place) for genre in GENRES for place in dice.sample(range(RING), 2)]
        dice.shuffle(shown)
        clicked = next(one for one in shown if genre_of(one) == genre_liked_by(person))
        at = END + number * HOUR // 10
        listed = [{"id": one} for one in shown]
        events += [
            {"event": "ranking", "id": f"r-{number}", "timestamp": at, "user": user(person), "items": listed},
            {
                "event": "interaction", "id": f"c-{number}", "timestamp": at + 5_000, "item": clicked, "type": "click",
                "user": user(person), "ranking": f"r-{number}",
            },
        ]  # fmt: skip
    return events


def write(path: Path, events: Iterable[dict[str, Any]], extra: Iterable[str] = ()) -> Path:
    """Events as JSONL, and any further lines as they are."""
    path.write_text("".join(f"{line}\n" for line in [*(json.dumps(event) for event in events), *extra]))
    return path
