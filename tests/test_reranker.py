"""Cross-encoder reranking: scores from the cache, for the top k of the first stage, or none; and precomputed scores."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank

from benchmarks import checkpoints
from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.events import InteractionEvent
from feedrank.engine.serving.background import LatestFirstQueue
from feedrank.engine.serving.deadline import LatencyBudget, LatencyEstimator
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.reranking import CHUNK_SIZE, CrossEncoderReranker, request_text
from feedrank.engine.types import Batch, ResolvedRequest, Rows, Scores
from feedrank.models.text.score_cache import SqliteScoreCache
from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRankSettings
from feedrank.models.training.reranker_training import RerankerTraining

NAMES = ("signal", "ce_score", "ce_gap")


class CountingScorer:
    """A scorer that returns the row of an item, and records its calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def score(self, texts: Sequence[str], rows: Rows) -> Scores:
        self.asked += list(zip(texts, rows.tolist(), strict=True))
        return rows.astype(np.float32)


class RawFeaturizer:
    """A featurizer of one signal (the row) and the cross-encoder scores."""

    names, fingerprint = NAMES, "f"

    def matrix(self, batch: Batch) -> Any:
        out = np.full((len(batch.rows), 3), np.nan, np.float32)
        out[:, 0] = batch.rows
        self.set_cross_encoder_features(out, batch)
        return out

    def set_cross_encoder_features(self, matrix: Any, batch: Batch) -> None:
        matrix[:, 1] = batch.cross_encoder_scores


class FirstColumnRanker:
    """A ranker by the first column."""

    def score(self, features: Any) -> Scores:
        return np.asarray(features[:, 0], np.float32)


def batch_of(rows: list[int]) -> Batch:
    n = len(rows)
    return Batch(
        at=np.zeros(1),
        rows=np.array(rows, np.int32),
        offsets=np.array([0, n]),
        history=np.array([[1]], np.int32),
        history_at=np.zeros((1, 1)),
        interaction_count=np.ones(1, np.int64),
        impressions=np.zeros(n, np.float32),
        item_age=np.zeros(n, np.float32),
        since_interaction=np.zeros(n, np.float32),
        counters=np.zeros((n, 1), np.float32),
    )


def test_a_request_with_a_deadline_checks_the_time_between_batches(tmp_path: Path) -> None:
    """The machine is busy: scoring takes four times the estimate."""
    titles = [f"title {n}" for n in range(100)]
    request = ResolvedRequest(at=0.0, history=np.array([1], np.int32), history_at=np.zeros(1))
    now, costs = [0.0], LatencyEstimator()
    for _ in range(60):
        costs.observe("cross_encoder", 0.001)

    class SlowScorer(CountingScorer):
        def score(self, texts: Any, rows: Any) -> Scores:
            now[0] += 0.004 * len(rows)
            return super().score(texts, rows)

    def scored(seconds: float, name: str) -> tuple[int, list[str]]:
        now[0] = 0.0
        second = CrossEncoderReranker(
            FirstColumnRanker(), SlowScorer(), SqliteScoreCache(tmp_path / name, "m", titles, 100), titles, top_k=30
        )
        watch = LatencyBudget(lambda: now[0], seconds, costs)
        _, scores = second.matrix(request, batch_of(list(range(100))), RawFeaturizer(), watch)
        return int(np.count_nonzero(~np.isnan(scores))), watch.skipped

    assert scored(float("inf"), "a") == (30, [])
    count, skipped = scored(0.04, "b")
    assert 0 < count < 30
    assert skipped == ["cross_encoder"]
    assert now[0] <= 0.04 + 0.004 * CHUNK_SIZE
    assert scored(60.0, "c") == (30, [])


def test_scores_come_from_the_cache_then_the_model_for_the_top_k(tmp_path: Path) -> None:
    titles = [f"title {n}" for n in range(10)]
    scorer, cache = CountingScorer(), SqliteScoreCache(tmp_path / "scores.db", "m", titles, 100)
    second = CrossEncoderReranker(FirstColumnRanker(), scorer, cache, titles, top_k=3)
    request = ResolvedRequest(at=0.0, history=np.array([4, 7], np.int32), history_at=np.zeros(2))
    text = "title 4; title 7"
    cache.add(text, np.array([9, 2], np.int32), np.array([0.5, 0.25], np.float32))
    found, scores = second.matrix(request, batch_of([1, 2, 5, 8, 9]), RawFeaturizer())
    assert scorer.asked == [(text, 8), (text, 5)], "of the best three, 9 is known"
    np.testing.assert_array_equal(found[:, 1], np.array([np.nan, 0.25, 5, 8, 0.5], np.float32))
    np.testing.assert_array_equal(scores, found[:, 1])
    again, _ = second.matrix(request, batch_of([1, 2, 5, 8, 9]), RawFeaturizer())
    np.testing.assert_array_equal(again, found)
    assert len(scorer.asked) == 2, "what was scored is known now"
    assert second.precompute(request, np.array([1, 2, 3], np.int32)) == 2
    assert not np.isnan(second.matrix(request, batch_of([1, 2, 3]), RawFeaturizer())[1]).any()
    anonymous = ResolvedRequest(at=0.0)
    assert np.isnan(second.matrix(anonymous, batch_of([1, 2]), RawFeaturizer())[1]).all(), (
        "without words nothing is asked"
    )
    assert second.precompute(anonymous, np.array([1], np.int32)) == 0


def test_the_query_text_of_a_request() -> None:
    titles = ["a", "", "c", "d"]
    assert request_text("words", np.array([0], np.int32), titles) == "words"
    assert request_text("", np.array([3, 1, 0, 2], np.int32), titles) == "d; a"
    assert request_text("", np.array([-1], np.int32), titles) == ""


# --- the cache


def test_the_cache_is_bounded_and_keyed_by_content(tmp_path: Path) -> None:
    path, rows = tmp_path / "cache" / "scores.db", np.array([0, 1, -1], np.int32)
    cache = SqliteScoreCache(path, "m", ["x", "y"], max_texts=50)
    for n in range(400):
        cache.add(f"text {n}", rows, np.array([n, np.nan, 1.0], np.float32))
    cache.close()
    again = SqliteScoreCache(path, "m", ["y", "x"], max_texts=50)  # another order of items: found by content
    np.testing.assert_array_equal(again.scores("text 399", rows), np.array([np.nan, 399, np.nan], np.float32))
    assert np.isnan(again.scores("text 0", rows)).all(), "the oldest are gone"
    assert again._connection is not None
    (count,) = again._connection.execute("SELECT count(*) FROM scores").fetchone()
    assert 50 <= count < 50 * 1.1 + 130  # it is counted once in a while
    assert np.isnan(SqliteScoreCache(path, "other model", ["y", "x"], 50).scores("text 399", rows)).all()
    assert (again.hits, again.misses) == (1, 5)
    unkept = SqliteScoreCache(tmp_path / "none.db", "m", ["x"], max_texts=0)
    unkept.add("t", rows[:1], np.ones(1, np.float32))
    assert unkept.scores("t", rows[:1]) == 1
    assert not (tmp_path / "none.db").exists()


# --- precomputed scores


def test_the_queue_serves_the_latest_first_and_drops_the_oldest() -> None:
    gate, done = threading.Event(), []

    def work(user: str) -> None:
        gate.wait(10)
        if user == "bad":
            raise ValueError(user)
        done.append(user)

    queue = LatestFirstQueue(work, max_waiting=3)
    queue.submit("first", "first")
    while queue.waiting:
        time.sleep(0.001)
    for user in ("a", "b", "bad", "a", "c", "d"):
        queue.submit(user, user)
    gate.set()
    assert queue.wait(10)
    assert done == ["first", "d", "c", "a"]
    assert (queue.completed, queue.dropped, queue.failed) == (4, 2, 0)
    queue.submit("bad", "bad")
    assert queue.wait(10)
    assert queue.failed == 1
    queue.submit("after", "after")
    assert queue.wait(10)
    assert done[-1] == "after"
    queue.stop()


# --- training


def test_training_masks_scores_as_serving_does() -> None:
    def part(seed: int) -> QueryGroups:
        signal = np.random.default_rng(seed).random((200, 20)).astype(np.float32)
        matrix = np.full((4_000, 3), np.nan, np.float32)
        matrix[:, 0] = signal.ravel()
        labels = (signal > 0.9).astype(np.float32).ravel()
        rows = np.tile(np.arange(20, dtype=np.int32), 200)
        served = np.zeros(4_000, np.bool_)
        served[:20] = True
        matrix[:10, 1] = 77.0
        return QueryGroups(matrix, labels, np.arange(0, 4_001, 20), None, rows, ("text",) * 200, served)

    scorer = CountingScorer()
    settings = LambdaRankSettings(rounds=20, parameters={"min_data_in_leaf": 5, "num_threads": 1})
    training = RerankerTraining(scorer, top_k=6, precomputed_share=0.25)
    first, train, validation = training.train([part(1), part(2)], part(3), NAMES, "f", settings, lambda *_: None)
    assert set(first.importance()) == set(NAMES)
    assert first.importance()["ce_score"] == first.importance()["ce_gap"] == 0, "the first phase has no scores"
    for group_set in (*train, validation):
        scores = group_set.features()[:, 1].reshape(200, 20)
        known = (~np.isnan(scores)).sum(axis=1)
        assert set(known[1:].tolist()) == {6, 20}, "the best six, or all that was made ahead"
        assert 0.15 < (known[1:] == 20).mean() < 0.35
        assert (scores[0, :10] == 77).all(), "what was served stays as it was, gaps and all"
        assert np.isnan(scores[0, 10:]).all()
        behind = group_set.features()[:, 2].reshape(200, 20)
        assert (np.nanmax(behind, axis=1) == 0).all()
    live = training.score_top_k(part(4), first)
    assert ((~np.isnan(live.features()[20:, 1])).reshape(199, 20).sum(axis=1) == 6).all()


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.cross_encoder(tmp_path_factory.mktemp("cross") / "model")


def test_a_click_precomputes_the_scores_of_the_next_feed(home: Path, cross: Path) -> None:
    with (home / "feedrank.toml").open("a") as file:
        file.write(f'[cross_encoder]\nmodel = "{cross}"\ntop_k = 4\nthreads = 1\n')
    feedrank(home, "train", "--name", "two")
    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    assert recommender.prefetch_queue is not None
    column = recommender.pipeline.featurizer.names.index("ce_score")

    def scored(user: str) -> int:
        record = recommender.recommend(
            f"r {user} {time.time()}", toyworld.END / 1000 + 100, RecommendationRequest(user, n=100)
        )
        assert record.features is not None
        rows = record.features.decode(len(recommender.pipeline.featurizer.names))
        assert rows is not None
        return int((~np.isnan(rows[:, column])).sum())

    assert scored("p3") == 4
    click = InteractionEvent("c", toyworld.END, toyworld.item("music", 3), "click", user="p3")
    recommender.record([click], toyworld.END / 1000 + 50)
    assert recommender.prefetch_queue.wait(30)
    assert recommender.prefetch_queue.completed == 1
    assert scored("p3") > 40, "all that the next feed chooses from"
    recommender.record([replace(click, id="d", user=None)], toyworld.END / 1000 + 60)
    assert recommender.prefetch_queue.completed == 1, "a click without a user has no feed to precompute"
    recommender.prefetch_queue.stop()


def test_ablation_reports_the_gain_of_each_signal(home: Path, cross: Path, tmp_path: Path) -> None:
    with (home / "feedrank.toml").open("a") as file:
        file.write(f'[cross_encoder]\nmodel = "{cross}"\ntop_k = 4\nthreads = 1\n')
    alike = [
        {**event, "id": f"{event['id']}-alike", "timestamp": toyworld.END,
         "fields": [{"name": "title", "value": f"a {toyworld.genre_of(event['item'])} book"}]}
        for event in toyworld.items()
    ]  # fmt: skip
    feedrank(home, "import", toyworld.write(tmp_path / "items.jsonl", alike))
    output = feedrank(home, "evaluate", "--protocol", "last-item", "--ablate", "--json", tmp_path / "r.json")
    for words in ("bm25", "embedding", "cross-encoder", "behaviour", "gain", "milliseconds per request"):
        assert words in output
    found = json.loads((tmp_path / "r.json").read_text())["costs"]["journal: ablation"]
    by = {row["signal"]: row for row in found["rows"]}
    assert set(by) == {"bm25", "embedding", "cross-encoder", "behaviour"}
    assert by["behaviour"]["low"] > 0.03, "titles tell the genre, and only behaviour the next item"
    assert all(by[signal]["low"] <= 0 for signal in ("bm25", "embedding", "cross-encoder"))
    for row in found["rows"]:
        assert row["gain"] == pytest.approx(found["all"] - row["without"], abs=1e-6)
        assert row["low"] <= row["gain"] <= row["high"]
    assert found["ms"]["cross-encoder, first-stage top k"] > 0
