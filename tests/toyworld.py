"""A small world whose right answers are known by construction: four genres, and users who each keep to one.

The items of a genre form a ring, and the history of each user follows it one item at a time. The expected next item of
a user is the one after the last of the history; the relevant items are those of the genre.
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
USERS = 60
INTERACTIONS_PER_USER = 9
START = 1_700_000_000_000
"""Epoch milliseconds of the first interaction."""
HOUR = 3_600_000
END = START + (USERS * (INTERACTIONS_PER_USER + 1)) * HOUR // 10
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


def item(genre: str, position: int) -> str:
    """The id of an item of the ring."""
    return f"{genre}-{position % RING}"


def genre_of(item_id: str) -> str:
    """The genre of an item."""
    return item_id.rpartition("-")[0]


def genre_of_user(user_index: int) -> str:
    """The one genre of a user's history."""
    return list(GENRES)[user_index % len(GENRES)]


def start_position(user_index: int) -> int:
    """The ring position of a user's first item."""
    return user_index // len(GENRES)


def expected_next_item(user_index: int) -> str:
    """The item after the last one of a user's history."""
    return item(genre_of_user(user_index), start_position(user_index) + INTERACTIONS_PER_USER)


def user_id(index: int) -> str:
    """The id of a user."""
    return f"p{index}"


def items() -> list[dict[str, Any]]:
    """One item event each."""
    return [
        {
            "event": "item",
            "id": f"i-{item(genre, position)}",
            "timestamp": START,
            "item": item(genre, position),
            "fields": [{"name": "title", "value": f"the {word} book"}, {"name": "category", "value": genre}],
        }
        for genre, words in GENRES.items()
        for position, word in enumerate(words.split())
    ]


def interactions() -> list[dict[str, Any]]:
    """The histories of all users as interaction events, step by step, with values as in MovieLens."""
    return [
        {
            "event": "interaction",
            "id": f"t-{user_index}-{step}",
            "timestamp": START + (step * USERS + user_index) * HOUR // 10,
            "item": item(genre_of_user(user_index), start_position(user_index) + step),
            "type": "rating",
            "user": user_id(user_index),
            "value": 4.0 + step % 2,
        }
        for step in range(INTERACTIONS_PER_USER)
        for user_index in range(USERS)
    ]


def rankings(count: int = 800, first: int = 0, prefer_new: bool = False) -> list[dict[str, Any]]:
    """Rankings after all histories: two items of each genre at random, and a click on the first of the user's genre.

    first: number of the first ranking; a log goes on from there. prefer_new: the click is on the one of the user's
    genre that the user has clicked longest ago, or never, which a ranker can learn and recall does not know.
    """
    dice = random.Random(11)
    events: list[dict[str, Any]] = []
    last_clicked: dict[tuple[int, str], int] = {}
    for number in range(first + count):
        user_index = number % USERS
        listed_ids = [item(genre, position) for genre in GENRES for position in dice.sample(range(RING), 2)]
        dice.shuffle(listed_ids)
        own = [one for one in listed_ids if genre_of(one) == genre_of_user(user_index)]
        clicked = min(own, key=lambda one: last_clicked.get((user_index, one), -1)) if prefer_new else own[0]
        last_clicked[user_index, clicked] = number
        at = END + number * HOUR // 10
        listed = [{"id": one} for one in listed_ids]
        events += [
            {"event": "ranking", "id": f"r-{number}", "timestamp": at, "user": user_id(user_index), "items": listed},
            {
                "event": "interaction", "id": f"c-{number}", "timestamp": at + 5_000, "item": clicked, "type": "click",
                "user": user_id(user_index), "ranking": f"r-{number}",
            },
        ]  # fmt: skip
    return events[2 * first :]


def write(path: Path, events: Iterable[dict[str, Any]], extra: Iterable[str] = ()) -> Path:
    """Write events as JSONL, and further lines unchanged."""
    path.write_text("".join(f"{line}\n" for line in [*(json.dumps(event) for event in events), *extra]))
    return path
