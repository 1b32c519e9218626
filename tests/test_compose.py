"""The composition root: a bundle serves with the settings it was built with, whatever the config says now."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pytest
import toyworld

from feedrank.api import compose, config
from feedrank.api.config import Config, EmbedderConfig, IndexConfig
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.codec import parse
from feedrank.engine.retrieval.indexes import AnnoyIndex, ExactIndex
from feedrank.engine.retrieval.pca_index import PcaRefineIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.types import Matrix, Rows, Scores, Vector
from feedrank.models.bundles import bundle
from feedrank.models.training.ranker import IdentityRanker


class ReversedIndex:
    """A custom index: the exact order, reversed."""

    def __init__(self, vectors: Matrix, metric: str) -> None:
        self._exact = ExactIndex(vectors, "dot")
        assert metric == "dot"

    def search(self, vector: Vector, k: int) -> tuple[Rows, Scores]:
        """The k worst rows, worst first."""
        rows, scores = self._exact.search(-vector, k)
        return rows, -scores


def feed(home: Path, settings: Config, n: int = 3, query: str = "", user: str | None = "p0") -> list[str]:
    """The items of a feed on these settings."""
    return list(
        compose.build_recommender(HomePaths(home), settings)
        .recommend(str(uuid.uuid4()), 2e9, RecommendationRequest(user, query=query, n=n))
        .items
    )


def test_a_custom_index(home: Path) -> None:
    paths = HomePaths(home)
    settings = replace(config.load_config(paths.config), index=IndexConfig(kind=f"{__name__}:ReversedIndex"))
    opened = bundle.load(paths.current_bundle)
    exact = ExactIndex(opened.item_model.space.item_side, "dot")
    index = compose.build_vector_index(opened, settings.index)
    assert index is not None
    user_vector = opened.item_model.space.user_vector(np.array([0], np.int32))
    assert index.search(user_vector, 60)[0].tolist() == exact.search(user_vector, 60)[0].tolist()[::-1]
    assert len(feed(home, settings)) == 3


@pytest.mark.parametrize("kind", ["annoy", "exact"])
def test_the_metric_is_that_of_the_bundle(home: Path, kind: str) -> None:
    paths = HomePaths(home)
    loaded = config.load_config(paths.config)
    usual = feed(home, loaded, 20)
    changed = replace(loaded, index=IndexConfig(kind=kind, metric="euclidean"))
    assert feed(home, changed, 20) == usual


def test_a_query_is_encoded_by_the_model_of_the_items(home: Path) -> None:
    settings = replace(config.load_config(HomePaths(home).config), embedder=EmbedderConfig(model="/no/such/model"))
    found = feed(home, settings, query="guitar and violin music", user=None)
    assert {toyworld.genre_of(item) for item in found} == {"music"}


def test_recall_order_keeps_the_order_it_is_given() -> None:
    scores = IdentityRanker().score(np.full((4, 2), np.nan, np.float32))
    assert np.argsort(-scores, kind="stable").tolist() == [0, 1, 2, 3]
    assert scores.dtype == np.float32
    assert len(IdentityRanker().score(np.empty((0, 2), np.float32))) == 0


def test_items_newer_than_the_bundle_wait_for_the_next_bundle(home: Path) -> None:
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    recommender = compose.build_recommender(paths, settings)
    late = {"event": "item", "id": "late", "timestamp": toyworld.END, "item": "new",
            "fields": [{"name": "title", "value": "the rover book"}]}  # fmt: skip
    click = {"event": "interaction", "id": "c", "timestamp": toyworld.END, "item": "new", "type": "click", "user": "p0"}
    assert recommender.record([parse(late), parse(click)], toyworld.END / 1000 + 5) == [True, True]
    assert "new" not in recommender.recommend("r1", 2e9, RecommendationRequest("p0", n=100)).items
    inputs = compose.load_training_inputs(paths, settings)
    compose.save_bundle(paths, settings, "next", bundle.BundleParts(compose.fit_without_ranker(inputs, settings)), {})
    assert "new" not in feed(home, settings, 100), "p0 has interacted with it"
    assert "new" in feed(home, settings, 100, user="p4")


def test_training_without_a_journal_creates_none(tmp_path: Path) -> None:
    home = HomePaths(tmp_path / "mistyped")
    with pytest.raises(ValueError, match=r"no journal at .*feedrank import"):
        compose.load_training_inputs(home, Config())
    assert not home.folder.exists()


def test_a_journal_without_items_says_what_to_do(tmp_path: Path) -> None:
    home = HomePaths(tmp_path)
    home.journal().close()
    with pytest.raises(ValueError, match=r"no items in .*feedrank import"):
        compose.load_training_inputs(home, Config())


def test_the_index_that_recall_uses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedrank.engine.retrieval.pca_index.BRUTE_FORCE_UP_TO", 10)
    paths = HomePaths(home)
    settings, opened = config.load_config(paths.config), bundle.load(paths.current_bundle)
    assert isinstance(opened.exact_index, PcaRefineIndex)

    def chosen(**index_settings: Any) -> tuple[Any, Any]:
        index = IndexConfig(**index_settings)
        found = replace(settings, index=index)
        retriever = compose.build_recommender(paths, found).pipeline.retriever
        embedding = next(one for one in retriever._retrievers if isinstance(one, EmbeddingRetriever))
        return type(embedding._index), type(embedding._exact_index)

    assert chosen() == (NoneType, PcaRefineIndex)
    assert chosen(exact_below=10) == (AnnoyIndex, PcaRefineIndex)
    assert chosen(kind="exact") == (NoneType, ExactIndex)
    assert chosen(kind=f"{__name__}:ReversedIndex") == (ReversedIndex, PcaRefineIndex)
