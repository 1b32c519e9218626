"""Who comes from Metarank: a config with all eighteen kinds of features, and a log in its format, through the product.

`feedrank import-config` and `feedrank import` read both; Metarank's route `/rank` says the values, with `explain=true`.
They are compared with a table that was worked out by hand.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bars import PROJECT, Bar, console
from benchmarks.concurrency import run

START_S = 1_750_000_000
"""2025-06-15 15:06:40 UTC."""
ASKED_S = START_S + 3_600
KINDS = 18
CONFIG = """
features:
  - {name: price, type: number, scope: item, source: item.price, refresh: 1h, ttl: 60d}
  - {name: in_stock, type: boolean, scope: item, field: item.in_stock}
  - {name: colour, type: string, scope: item, source: metadata.colour, encode: index, values: [red, brown]}
  - {name: sizes, type: vector, scope: item, field: item.sizes}
  - {name: title_length, type: word_count, scope: item, source: item.title}
  - {name: freshness, type: item_age, source: item.made}
  - {name: time, type: local_time, parse: time_of_day, source: ranking.localts}
  - {name: platform, type: ua, source: ranking.ua, field: platform}
  - {name: came_from, type: referer, source: ranking.referer, scope: user}
  - {name: upstream, type: relevancy}
  - {name: clicks, type: interaction_count, interaction: click, scope: item}
  - {name: recent_clicks, type: window_count, interaction: click, scope: item, bucket_size: 24h, windows: [1, 7]}
  - name: click_rate
    type: rate
    top: click
    bottom: impression
    bucket: 1d
    periods: [7]
    normalize:
      weight: 10
  - {name: profile, type: interacted_with, interaction: click, field: [item.colour], scope: session, duration: 24h}
  - name: title_match
    type: field_match
    rankingField: ranking.query
    itemField: item.title
    method: {type: term, language: generic}
  - {name: price_diff, type: diversity, source: item.price}
  - {name: position, type: position, position: 5}
  - {name: chance, type: random}
models:
  default:
    type: lambdamart
    backend: {type: lightgbm, iterations: 100, seed: 0}
    weights: {click: 1}
    features: [
      price, in_stock, colour, sizes, title_length, freshness, time, platform, came_from, upstream, clicks,
      recent_clicks, click_rate, profile, title_match, price_diff, position, chance,
    ]
"""
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
ITEMS: dict[str, dict[str, Any]] = {
    "lamp": {"price": 40, "in_stock": True, "colour": "red", "sizes": [3, 4], "title": "Small red lamp",
             "made": "2025-06-14T02:00:00+02:00"},
    "desk": {"price": 120, "in_stock": False, "colour": "brown", "sizes": [7], "title": "Oak desk", "made": 1749859200},
    "chair": {"price": 60, "colour": "red", "title": "A red chair for desks"},
}  # fmt: skip
ASKED = {"query": "red desk", "ua": PHONE, "referer": "https://www.google.com/", "localts": "2025-06-15T18:06:40+02:00"}
UPSTREAM = {"lamp": 2.0, "desk": 1.0, "chair": 0.5}
NONE = math.nan
TABLE: dict[str, tuple[float, float, float]] = {
    "price": (40, 120, 60),
    "in_stock": (1, 0, NONE),
    "colour": (0, 1, 0),
    "sizes_min": (3, 7, NONE),
    "sizes_max": (4, 7, NONE),
    "sizes_size": (2, 1, NONE),
    "sizes_mean": (3.5, 7, NONE),
    "title_length": (3, 2, 5),
    "freshness": (144_400 / 3_600, 144_400 / 3_600, NONE),  # since midnight of June 14th, UTC
    "time": (18 + 400 / 3_600,) * 3,
    "platform": (1, 1, 1),  # desktop and mobile were as frequent: in the order of the alphabet
    "came_from": (0, 0, 0),  # search, then social
    "upstream": (2, 1, 0.5),
    "clicks": (math.log1p(2), math.log1p(1), math.log1p(1)),
    "recent_clicks_24h": (math.log1p(2), math.log1p(1), 0),  # the click on the chair was three days before
    "recent_clicks_7d": (math.log1p(2), math.log1p(1), math.log1p(1)),
    "click_rate": (12 / 25.5, 11 / 25.5, 11 / 25.5),  # 4 clicks in 9 impressions: 10 clicks come with 22.5
    "profile": (math.log1p(1), 0, math.log1p(1)),  # this session clicked the lamp, which is red
    "title_match": (1 / 4, 1 / 3, 1 / 6),
    "price_diff": (-20, 60, 0),
}
"""Column -> its values for lamp, desk and chair, worked out by hand."""


def bars() -> list[Bar]:
    """Return the bars of Metarank's config and log."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        (config := Path(folder) / "metarank.yml").write_text(CONFIG)
        (log := Path(folder) / "events.jsonl").write_text("\n".join(map(json.dumps, _log())))
        imported = _import_config(home, config)
        run(home, "import", str(log))
        run(home, "index")
        found = _asked(home)
    missing = [name for name in TABLE if name not in next(iter(found.values()))]
    wrong = [
        f"{name} of {item}: {values.get(name)} instead of {TABLE[name][place]:.5g}"
        for place, (item, values) in enumerate(found.items())
        for name in TABLE
        if not _same(values.get(name), TABLE[name][place])
    ]
    if not all(0 <= values.get("chance", NONE) < 1 for values in found.values()):
        wrong.append("chance is no number from 0 to 1")
    for line in (*(f"no column {name}" for name in missing), *wrong):
        console.print(line)
    return [
        Bar(f"Metarank's {KINDS} kinds of features: those that are imported", imported, "kinds", KINDS, "higher"),
        Bar("their values that differ from a table worked out by hand", len(wrong), "values", 0, "lower"),
    ]


def _import_config(home: Path, config: Path) -> int:
    """Import the config; return how many of its features were turned into something."""
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "import-config", str(config)]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    console.print(done.stdout.strip())
    with (home / "feedrank.toml").open("a") as file:
        file.write('\n[embedder]\nmodel = "none"\n')  # no texts are embedded here
    return int(done.stdout.rpartition(": ")[2].split()[0])


def _log() -> Iterator[dict[str, Any]]:
    """Yield a log in Metarank's format: three items, three rankings of all of them, four clicks."""
    for item, fields in ITEMS.items():
        named = [{"name": name, "value": value} for name, value in fields.items()]
        yield _event("item", f"i {item}", START_S - 4 * 86_400, item=item, fields=named)
    yield from _ranking("r0", START_S - 3 * 86_400, "u2", "s0", {}, ["chair"])
    yield from _ranking("r1", START_S + 60, "u1", "s1", {"ua": PHONE, "referer": ASKED["referer"]}, ["lamp"])
    social = {"ua": DESKTOP, "referer": "https://www.facebook.com/"}
    yield from _ranking("r2", START_S + 120, "u2", "s2", social, ["desk", "lamp"])


def _ranking(
    name: str, at_s: int, user: str, session: str, fields: dict[str, str], clicked: list[str]
) -> Iterator[dict[str, Any]]:
    named = [{"name": field, "value": value} for field, value in fields.items()]
    shown = [{"id": item} for item in ITEMS]
    yield _event("ranking", name, at_s, user=user, session=session, fields=named, items=shown)
    for place, item in enumerate(clicked):
        yield _event(
            "interaction", f"{name} {item}", at_s + 10 + place, ranking=name, user=user, session=session, item=item,
            type="click", fields=[],
        )  # fmt: skip


def _event(kind: str, name: str, at_s: int, **parts: Any) -> dict[str, Any]:
    return {"event": kind, "id": name, "timestamp": str(at_s * 1_000), **parts}


def _asked(home: Path) -> dict[str, dict[str, float]]:
    """Return item -> feature -> value, as Metarank's route says them."""
    from feedrank.api import compose, config
    from feedrank.api.home_paths import HomePaths
    from feedrank.api.http.app import create_app
    from feedrank.api.http.service import Service

    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    client = create_app(Service(recommender, lambda: float(ASKED_S))).test_client()
    fields = [{"name": name, "value": value} for name, value in ASKED.items()]
    items = [{"id": item, "fields": [{"name": "relevancy", "value": UPSTREAM[item]}]} for item in ITEMS]
    body = {"user": "u1", "session": "s1", "fields": fields, "items": items}
    answer = client.post("/rank/default?explain=true", json=body)
    if answer.status_code != 200 or answer.json is None:
        raise RuntimeError(f"found the answer {answer.status_code} {answer.text}")
    of_items = {
        entry["item"]: {
            feature["name"]: NONE if feature["value"] is None else feature["value"] for feature in entry["features"]
        }
        for entry in answer.json["items"]
    }
    return {item: of_items[item] for item in ITEMS}


def _same(found: float | None, expected: float) -> bool:
    if found is None:
        return False
    return (math.isnan(found) and math.isnan(expected)) or math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-6)
