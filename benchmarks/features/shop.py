"""Rank correlation with the truth of a simulated shop, and rows before and after a change of prices.

The service's own recommender ranks lists that it never saw; LightGBM with the true parts of the utility as columns,
trained on the same clicks, is the ceiling.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.bars import Bar, console
from benchmarks.concurrency import run
from benchmarks.features.shop_world import CONFIG, PRICE_DROP, Shop
from feedrank.api import compose
from feedrank.api.compose.replay import replay
from feedrank.api.config import Config, load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.recommender import Recommender
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.bundles import bundle
from feedrank.models.training.dataset import feature_chunks, from_rankings

RANKINGS, SIZE, ASKED, CANDIDATES = 10_000, 12, 500, 30


def bars() -> list[Bar]:
    """Rank correlations, and rows that differ between live and replay."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_correlations(Path(folder) / "shop"), *_price_drop(Path(folder) / "drop")]


def write_home(home: Path, shop: Shop, rankings: int, config: str = CONFIG) -> tuple[NDArray[np.float64], list[int]]:
    """Import a shop's log into a new home and train; return the parts and the clicks of all rows."""
    home.mkdir()
    (home / "feedrank.toml").write_text(config)
    parts, clicks = [], []
    with (home / "log.jsonl").open("w") as file:
        for event in shop.item_events():
            file.write(json.dumps(event) + "\n")
        for events, of_list, clicked in shop.rankings(rankings, SIZE):
            file.writelines(json.dumps(event) + "\n" for event in events)
            parts.append(of_list)
            clicks += clicked
    run(home, "import", str(home / "log.jsonl"))
    run(home, "train")
    return np.concatenate(parts), clicks


def open_recommender(home: Path) -> Recommender:
    """Return the recommender of a home, as a service has it."""
    paths = HomePaths(home)
    return compose.build_recommender(paths, load_config(paths.config))


def _correlations(home: Path) -> list[Bar]:
    shop = Shop()
    parts, clicks = write_home(home, shop, RANKINGS)
    parameters = {"objective": "lambdarank", "verbosity": -1, "min_data_in_leaf": 50, "learning_rate": 0.05, "seed": 0}
    data = lgb.Dataset(parts, clicks, group=[SIZE] * (len(clicks) // SIZE))
    ceiling = lgb.train(parameters, data, 150)
    recommender = open_recommender(home)
    found, best, fit, best_fit = [], [], [], []
    for number in range(ASKED):
        user, items, device, at_s = shop.request(RANKINGS + number, CANDIDATES)
        names = tuple(f"i{item}" for item in items.tolist())
        request = RecommendationRequest(f"u{user}", items=names, n=CANDIDATES, context=shop.context(device, at_s))
        record = recommender.recommend(f"asked {number}", at_s, request, log=False)
        score_of = dict(zip(record.items, record.scores, strict=True))
        scores, truth = [score_of[name] for name in names], shop.parts(user, items, device, at_s)
        found.append(spearmanr(scores, truth.sum(axis=1))[0])
        fit.append(spearmanr(scores, truth[:, 1])[0])
        ideal = ceiling.predict(truth)
        best.append(spearmanr(ideal, truth.sum(axis=1))[0])
        best_fit.append(spearmanr(ideal, truth[:, 1])[0])
    console.print(
        f"rank correlation with the truth: {np.mean(found):.3f}; LightGBM with the true columns: {np.mean(best):.3f}"
    )
    console.print(f"with price fit alone: {np.mean(fit):.3f}; LightGBM with the true columns: {np.mean(best_fit):.3f}")
    return [
        Bar("shop: rank correlation with the truth, over that of LightGBM with the true columns",
            float(np.mean(found) / np.mean(best)), "x", 0.9, "higher"),
        Bar("shop: rank correlation with price fit", float(np.mean(fit)), "", 0.6, "higher"),
    ]  # fmt: skip


def _price_drop(home: Path) -> list[Bar]:
    """Serve rankings before and after all prices drop, and count values that differ from a replay."""
    shop = Shop(seed=1)
    write_home(home, shop, 1_500)
    paths = HomePaths(home)
    settings, journal = load_config(paths.config), paths.journal()
    recommender, ids = open_recommender(home), []
    for number in range(200):
        user, items, device, at_s = shop.request(1_500 + number, SIZE)
        if number == 100:
            changed = [
                parse(shop.item_event(item, round(at_s * 1_000), float(np.exp(shop.log_price[item])) * PRICE_DROP))
                for item in range(shop.n_items)
            ]
            recommender.record(changed, at_s)
        names = tuple(f"i{item}" for item in items.tolist())
        request = RecommendationRequest(f"u{user}", items=names, n=SIZE, context=shop.context(device, at_s))
        ids.append(f"live {number}")
        recommender.recommend(ids[-1], at_s, request)
    different_rankings = sum(_replay_differs(paths, settings, journal, name) for name in ids)
    log = compose.load_training_inputs(paths, settings).log
    groups, differing = from_rankings(log, len(log.rankings) - len(ids), len(log.rankings)), 0
    builder = bundle.load(paths.current_bundle).builder
    assert groups.impression_index is not None
    assert log.rankings.logged_features is not None
    for chunk in feature_chunks(log, builder, groups):
        served = chunk.matrix.copy()
        shown = groups.impression_index[chunk.row_range]
        logged = log.rankings.logged_features.fill(served, shown, log.rankings.offsets, builder.fingerprint)
        assert logged.all()
        differing += int((~((served == chunk.matrix) | (np.isnan(served) & np.isnan(chunk.matrix)))).sum())
    console.print(f"{len(groups.labels):,} rows of {len(builder.names)} features, served before and after the drop")
    return [
        Bar("shop, all prices dropped in the middle: served values that differ from a replay", differing, "values", 0,
            "lower"),
        Bar("the same: rankings that a replay makes otherwise", different_rankings, "rankings", 0, "lower"),
    ]  # fmt: skip


def _replay_differs(paths: HomePaths, settings: Config, journal: Journal, name: str) -> bool:
    event = journal.find(name)
    assert isinstance(event, RankingEvent)
    return replay(paths, settings, journal, RankingRecord.from_event(event))[1] is not None
