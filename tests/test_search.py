"""Searches through a service without an embedder: words of all scripts, live items, given lists, fields, the ranker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import feedrank
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api import compose
from feedrank.api.admin import create_admin_services
from feedrank.api.compose.refresh import Refresher
from feedrank.api.compose.text_signals import TextEncoders
from feedrank.api.config import ConfigError, load_config
from feedrank.api.home_paths import HomePaths
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.engine.retrieval.retrievers import HybridRetriever
from feedrank.engine.types import Candidates, ResolvedRequest
from feedrank.models.bundles import bundle
from feedrank.models.training.ranker import IdentityRanker, QueryAwareRanker

START = 1_700_000_000_000
NOW = START / 1000 + 1_000
TITLES = {
    "zh": "机器学习入门", "ja": "京都の寺院めぐり", "ko": "서울에서 맛집을 찾다",
    "th": "อาหารไทยง่ายๆ", "hi": "हिन्दी की किताब", "fr": "Cafe\u0301 cre\u0300me", "de": "Straßenbahn fahren",
    "en": "Learning to cook", "cook": "Cook well", "c": "C++ basics",
}  # fmt: skip


@dataclass
class Shop:
    """A service and its refresher, which is not started."""

    paths: HomePaths
    client: FlaskClient
    refresher: Refresher

    @classmethod
    def open(cls, home: Path) -> Shop:
        paths = HomePaths(home)
        settings, opened = load_config(paths.config), bundle.load(paths.current_bundle)
        journal, recommender = paths.journal(), compose.build_recommender(paths, settings)
        texts = TextEncoders(paths, opened)
        refresher = Refresher(paths, settings, journal, recommender, opened, texts, clock=lambda: NOW)
        behind = create_admin_services(paths, settings, journal, refresher.check_items)
        return cls(paths, create_app(Service(recommender, lambda: NOW, admin=behind)).test_client(), refresher)

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json

    def found(self, query: str, **more: Any) -> list[str]:
        """The items that recall finds by the words of a query."""
        answer = self.post("/v1/recommend", {"query": query, "n": 50, **more})
        return [one["id"] for one in answer["items"]] if answer["source"] == "bm25" else []

    def send(self, item: str, **fields: str) -> None:
        event = _item_event(item, **fields)
        self.post("/v1/events", {name: event[name] for name in ("event", "item", "fields")}, 202)
        self.refresher.check_items()


def _item_event(item: str, **fields: str) -> dict[str, Any]:
    listed = [{"name": name, "value": value} for name, value in fields.items()]
    return {"event": "item", "id": f"i-{item}", "item": item, "timestamp": START, "fields": listed}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    log = [_item_event(item, title=title) for item, title in TITLES.items()]
    log += [
        {
            "event": "interaction",
            "id": f"c{n}",
            "timestamp": START + n,
            "item": item,
            "user": f"u{n % 4}",
            "type": "click",
        }
        for n, item in enumerate(list(TITLES) * 3)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    (tmp_path / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    feedrank(tmp_path, "import", tmp_path / "log.jsonl")
    feedrank(tmp_path, "index")
    return tmp_path


def test_items_are_found_by_their_words(home: Path) -> None:
    shop = Shop.open(home)
    asked = {
        "zh": "学习", "ja": "寺院", "ko": "맛집", "th": "อาหาร", "hi": "हिंदी", "fr": "cafe",
        "de": "STRASSENBAHN", "en": "learning", "c": "c++",
    }  # fmt: skip
    assert {item: shop.found(query)[:1] for item, query in asked.items()} == {item: [item] for item in asked}
    assert set(shop.found("cook")) == {"en", "cook"}
    assert shop.found("unheard-of") == []


def test_words_of_a_live_item_are_searchable_at_once(home: Path) -> None:
    shop = Shop.open(home)
    assert shop.found("zeppelin") == []
    shop.send("new", title="Zeppelin 飞艇")
    assert shop.found("zeppelin") == shop.found("飞艇") == ["new"]
    shop.send("other", title="Zeppelin old timer")
    assert set(shop.found("zeppelin")) == {"new", "other"}
    shop.send("en", title="Learning to sail")
    assert shop.found("sail") == ["en"]
    assert shop.found("cook") == ["cook"], "words of the old title find it no more"
    shop.send("new", title="Airship")
    shop.send("other", title="Airship")
    assert shop.found("zeppelin") == shop.found("飞艇") == [], "a word that no item has any more is as good as unknown"
    ranked = shop.post("/v1/recommend", {"query": "airship sail cook"})
    # a new start, and a replay, rank with the same bits
    again = Shop.open(home)
    again.refresher.check_items()
    assert again.post("/v1/recommend", {"query": "airship sail cook"})["items"] == ranked["items"]
    assert shop.post(f"/v1/rankings/{ranked['ranking']}/replay", {})["identical"]


def test_a_given_list_is_ranked_by_the_query(home: Path) -> None:
    shop = Shop.open(home)
    given = [{"id": item} for item in ("zh", "en", "nobody", "cook", "fr")]
    answer = shop.post("/v1/rank", {"items": given, "query": "cook"})
    assert [one["id"] for one in answer["items"]][:2] == ["cook", "en"], "the shorter title first"
    assert answer["items"][0]["score"] > answer["items"][1]["score"] > answer["items"][2]["score"]
    described = {"id": "fresh", "fields": {"title": "Quokka cook"}}
    answer = shop.post("/v1/rank", {"items": [*given, described], "query": "quokka"})
    assert answer["items"][0]["id"] == "fresh"
    answer = shop.post("/v1/rank", {"items": given})
    assert [one["id"] for one in answer["items"]] == [one["id"] for one in given], "nothing orders them"


def test_documents_and_queries_are_read_by_the_settings_of_the_bundle(home: Path) -> None:
    (home / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n[text]\nlanguage = "english"\n')
    assert Shop.open(home).found("cooked") == [], "the bundle was made without stemming"
    feedrank(home, "index")
    (home / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    shop = Shop.open(home)
    assert set(shop.found("cooked")) == {"en", "cook"}
    shop.send("new", title="Cooks")
    assert set(shop.found("cooking")) == {"en", "cook", "new"}


def test_fields_have_weights(home: Path) -> None:
    head = '[embedder]\nmodel = "none"\ndocument = ["title", "brand"]\n[text]\nfield_weights = {brand = 9.0}\n'
    (home / "feedrank.toml").write_text(head)
    items = {"a": {"title": "Fox", "brand": "Owl"}, "b": {"title": "Owl", "brand": "Fox"}}
    events = [_item_event(item, **fields) for item, fields in items.items()]
    (home / "more.jsonl").write_text("\n".join(map(json.dumps, events)))
    feedrank(home, "import", home / "more.jsonl")
    feedrank(home, "index")
    shop = Shop.open(home)
    assert (shop.found("fox"), shop.found("owl")) == (["b", "a"], ["a", "b"])
    shop.send("a", brand="Hen")
    assert (shop.found("hen"), shop.found("owl"), shop.found("fox")) == (["a"], ["b"], ["b", "a"])
    (home / "feedrank.toml").write_text("[text]\nfield_weights = {brand = 9.0}\n")
    with pytest.raises(ConfigError, match=r"settings of brand, which BM25 does not read; expected fields of embedder"):
        load_config(home / "feedrank.toml")


# --- recall and ranking with an embedder


class _Fixed:
    """A retriever with a fixed list."""

    name = "fixed"

    def __init__(self, *rows: int) -> None:
        self._rows = np.array(rows, np.int32)

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        return Candidates(self._rows[:k], -np.arange(len(self._rows[:k]), dtype=np.float32), self.name)


def test_words_and_embeddings_are_merged() -> None:
    vector = np.ones(2, np.float32)
    query = ResolvedRequest(0.0, query="x", query_vector=vector)
    found = HybridRetriever(_Fixed(5, 6, 7), _Fixed(8, 6, 9)).retrieve(query, 4)
    assert found.rows.tolist() == [6, 8, 5, 9], "what both have first, then by rank; the embedding first if level"
    assert found.source == "hybrid"
    assert (np.diff(found.scores) <= 0).all()
    assert HybridRetriever(_Fixed(), _Fixed(8, 6)).retrieve(query, 4).source == "fixed"
    assert HybridRetriever(_Fixed(5), _Fixed()).retrieve(query, 4).rows.tolist() == [5]
    assert HybridRetriever(_Fixed(5), _Fixed(8)).retrieve(ResolvedRequest(0.0, query="x"), 4).rows.tolist() == [5]
    assert not len(HybridRetriever(_Fixed(5), _Fixed(8)).retrieve(ResolvedRequest(0.0), 4).rows)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), min_size=1, max_size=50), st.sampled_from([0.01, 9]))
def test_level_candidates_of_a_query_are_in_the_order_of_the_ranker(rows: list[tuple[int, int]], unit: float) -> None:
    class Ranker:
        def score(self, features: np.ndarray) -> np.ndarray:
            return features[:, 1]

    features = np.array(rows, np.float32) * np.array([unit, 1], np.float32)
    scores = QueryAwareRanker(Ranker(), ("bm25_query", "other")).score(features)
    assert scores.dtype == np.float32
    assert len(np.unique(scores)) == len(rows)
    assert np.argsort(-scores, kind="stable").tolist() == np.lexsort((-features[:, 1], -features[:, 0])).tolist()


def test_a_query_orders_its_candidates() -> None:
    names = ("recall_score", "bm25_query", "query_cosine", "other")
    ranker = QueryAwareRanker(IdentityRanker(), names)
    nan = np.nan

    def order(*columns: list[float]) -> list[int]:
        return np.argsort(-ranker.score(np.array(columns, np.float32).T), kind="stable").tolist()

    nothing = [nan] * 3
    assert order(nothing, nothing, nothing, [1, 2, 3]) == [0, 1, 2], "without a query the ranker decides"
    assert order([3, 2, 1], nothing, nothing, [1, 2, 3]) == [0, 1, 2]
    assert order(nothing, [0, 1, 2], nothing, nothing) == [2, 1, 0]
    assert order(nothing, [0, 1, 1], nothing, nothing) == [1, 2, 0], "level ones go by the ranker"
    assert order(nothing, [0, 0, 1], [0.1, 0.9, 0.5], nothing) == [2, 1, 0], "words and embedding count alike"
    assert order([9, 0, 0], [1, 1, 2], nothing, nothing) == [2, 0, 1], "the query counts more than the user"
    assert order([0, 9, 0], [1, 1, 1], nothing, nothing)[0] == 1
    assert ranker.contributions(np.zeros((2, 4), np.float32)) is None
    with pytest.raises(ValueError, match="found a request with a query in a batch"):
        ranker.score_groups(np.zeros((2, 4), np.float32), np.array([0, 2]))
    two = np.full((4, 4), nan, np.float32)
    assert ranker.score_groups(two, np.array([0, 2, 4])).tolist() == [-1, -2, -1, -2]
