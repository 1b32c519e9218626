"""The fields that a list brings for its items become features: learnt, served, logged and replayed alike."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import feedrank

from feedrank.api import compose, config
from feedrank.api.compose.replay import replay
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.item_fields import columns_of
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.training.dataset import build_query_groups, from_rankings

NOW = 1_760_000_000.0
CONFIG = """
[embedder]
model = "none"
[features]
families = ["recall"]
[ranker]
rounds = 40
threads = 1
[[features.declared]]
name = "price"
kind = "number"
from = "list.price"
within = ["z"]
[[features.declared]]
name = "seller"
kind = "category"
from = "list.seller"
"""
PRICES = {"a": 9.5, "b": 3.0, "c": 7.0, "new": 1.0, "other": 20.0}


@pytest.fixture(scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose lists are labelled: the cheapest item of a list is the right one, and every list has new prices."""
    home, dice = tmp_path_factory.mktemp("cheap"), random.Random(3)
    lines = []
    for number in range(80):
        prices = {item: round(dice.uniform(1, 20), 2) for item in dice.sample("abcdefgh", 5)}
        items = [
            {"id": item, "label": int(price == min(prices.values())), "fields": {"price": price, "seller": item[0]}}
            for item, price in prices.items()
        ]
        lines.append({"event": "ranking", "id": f"r{number}", "timestamp": 1_750_000_000_000 + number, "items": items})
    (home / "lists.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (home / "feedrank.toml").write_text(CONFIG)
    feedrank(home, "import", home / "lists.jsonl")
    feedrank(home, "train", "--name", "cheap")
    return home


def recommender_of(home: Path) -> tuple[HomePaths, config.Config, Recommender]:
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    return paths, settings, compose.build_recommender(paths, settings)


def request_for(*items: str, n: int = 10) -> RecommendationRequest:
    fields = columns_of([{"price": PRICES[item], "seller": item[0]} for item in items])
    return RecommendationRequest(items=items, n=n, item_fields=fields)


@pytest.mark.parametrize("n", [10, 2])
def test_prices_of_the_list_order_known_and_unknown_items(cheap: Path, n: int) -> None:
    paths, settings, recommender = recommender_of(cheap)
    given = ("a", "new", "b", "other", "c")
    served = recommender.recommend(f"list of {n}", NOW + n, request_for(*given, n=n))
    assert served.items[:2] == ("new", "b")
    assert len(served.items) == min(n, 5)
    names = recommender.pipeline.featurizer.names
    assert served.features is not None
    rows = served.features.decode(len(names))
    assert rows is not None
    assert rows[:, names.index("price")].tolist() == pytest.approx([PRICES[item] for item in served.items])
    assert not np.isnan(rows[:, names.index("price_z")]).any()
    assert rows[served.items.index("b"), names.index("seller")] >= 0
    logged = paths.journal().find(served.id)
    assert isinstance(logged, RankingEvent)
    again = served.from_event(logged)
    assert again.request == served.request
    replayed, difference = replay(paths, settings, paths.journal(), again)
    assert difference is None
    assert replayed.features == served.features


def test_without_the_fields_the_items_are_level(cheap: Path) -> None:
    *_, recommender = recommender_of(cheap)
    served = recommender.recommend("bare", NOW + 50, RecommendationRequest(items=("a", "b", "c")), log=False)
    assert len(set(served.scores)) == 1


def test_training_makes_the_rows_that_were_served(cheap: Path) -> None:
    paths, settings, recommender = recommender_of(cheap)
    served = recommender.recommend("whole", NOW + 100, request_for("c", "a", "b"))
    inputs = compose.load_training_inputs(paths, settings)
    builder, last = recommender.pipeline.featurizer, len(inputs.log.rankings) - 1
    examples = from_rankings(inputs.log, last, last + 1)
    learnt = build_query_groups(inputs.log, builder, examples).features()  # type: ignore[arg-type]
    assert served.features is not None
    rows = served.features.decode(len(builder.names))
    assert rows is not None
    declared = [builder.names.index(name) for name in ("price", "price_z", "seller")]
    np.testing.assert_array_equal(learnt[:, declared], rows[:, declared])
