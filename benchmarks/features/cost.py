"""What thirty declared features cost: time added to a live request of 100 candidates, and rows a second in training.

Both homes hold the same simulated shop; requests and replays of the two take turns.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.bars import Bar, console
from benchmarks.concurrency import run
from benchmarks.features.shop import SIZE, open_recommender
from benchmarks.features.shop_world import Shop
from feedrank.api import compose
from feedrank.api.config import load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles import bundle
from feedrank.models.training.dataset import feature_chunks, from_rankings

RANKINGS, REQUESTS, REPLAYS = 4_000, 400, 5
PLAIN = '[embedder]\nmodel = "none"\n'


def declarations() -> str:
    """Return the config of thirty features of all sorts."""
    recent = 'to = "user.recent(item.price)"'
    features = [f'kind = "number"\nfrom = "item.price"\nclip = [{n}.0, 1000.0]' for n in range(4)]
    features += [f'kind = "distance"\nfrom = "item.price"\n{recent}\nclip = [{n}.0, 999.0]' for n in range(3)]
    features += [f'kind = "number"\nfrom = "item.quality"\nclip = [-{n}.0, 9.0]' for n in range(3)]
    fields = ("item.brand", "item.category", "request.device", "request.moment")
    features += [f'kind = "category"\nfrom = "{name}"' for name in fields]
    features += [f'kind = "local_time"\npart = "{part}"' for part in ("hour", "weekday", "is_weekend")]
    features += [f'kind = "interacted_with"\nfrom = "{name}"' for name in ("item.brand", "item.category")]
    rates = (
        ["item.brand"], ["user", "item.brand"], ["user", "item.category"], ["item.category", "request.device"],
        ["item.category", "request.moment"], ["item", "request.device"],
    )  # fmt: skip
    features += [f'kind = "rate"\nkey = {json.dumps(key)}' for key in rates]
    features += [f'kind = "count"\nkey = {json.dumps(key)}' for key in (["item.brand"], ["user"], ["user", "item"])]
    features += ['kind = "match"\nfrom = "request.moment"\nto = "item.brand"', 'kind = "random"']
    assert len(features) == 30
    tables = (f'\n[[features.declared]]\nname = "x{n}"\n{feature}\n' for n, feature in enumerate(features))
    return PLAIN + "".join(tables)


def bars() -> list[Bar]:
    """Milliseconds added to a request, and the ratio of rows a second."""
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder) / name for name in ("plain", "declared")]
        for home, config in zip(homes, (PLAIN, declarations()), strict=True):
            shop = Shop(seed=2)
            home.mkdir()
            (home / "feedrank.toml").write_text(config)
            with (home / "log.jsonl").open("w") as file:
                for event in shop.item_events():
                    file.write(json.dumps(event) + "\n")
                for events, _, _ in shop.rankings(RANKINGS, SIZE):
                    file.writelines(json.dumps(event) + "\n" for event in events)
            run(home, "import", str(home / "log.jsonl"))
            run(home, "index")
        return [_added(homes, shop), _throughput(homes)]


def _added(homes: list[Path], shop: Shop) -> Bar:
    recommenders, taken = [open_recommender(home) for home in homes], np.empty((REQUESTS, 2))
    for number in range(-20, REQUESTS):
        user, items, device, at_s = shop.request(RANKINGS + max(number, 0), 100)
        names = tuple(f"i{item}" for item in items.tolist())
        request = RecommendationRequest(f"u{user}", items=names, context=shop.context(device, at_s))
        for which in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter()
            recommenders[which].recommend(f"asked {number}", at_s, request, log=False)
            taken[number, which] = time.perf_counter() - started
    plain, declared = 1_000 * np.median(taken, axis=0)
    console.print(f"100 candidates: {plain:.2f} ms, with 30 declared features {declared:.2f} ms")
    return Bar(
        "30 declared features: added to a request of 100 candidates, p50", float(declared - plain), "ms", 1, "lower"
    )


def _throughput(homes: list[Path]) -> Bar:
    parts, rates = [], np.empty((REPLAYS, 2))
    for home in homes:
        paths = HomePaths(home)
        log = compose.load_training_inputs(paths, load_config(paths.config)).log
        parts.append((log, bundle.load(paths.current_bundle).builder, from_rankings(log, 0, len(log.rankings))))
    for turn in range(-1, REPLAYS):
        for which in (0, 1) if turn % 2 else (1, 0):
            log, builder, groups = parts[which]
            started = time.perf_counter()
            rows = sum(len(chunk.matrix) for chunk in feature_chunks(log, builder, groups))
            rates[turn, which] = rows / (time.perf_counter() - started)
    plain, declared = np.median(rates, axis=0)
    console.print(f"rows a second: {plain:,.0f}, with 30 declared features {declared:,.0f}")
    return Bar(
        "the same: rows a second of the training matrix, over without", float(declared / plain), "x", 0.6, "higher"
    )
