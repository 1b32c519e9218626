"""Logged features: stored with the ranking, and read by training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.event_table import sorted_events_to_table
from feedrank.engine.events.events import InteractionEvent, RankingEvent
from feedrank.engine.events.logged_features import LoggedRows
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.models.training.dataset import build_query_groups, from_rankings

NOW = 1_760_000_000.0
ITEMS = Vocabulary(["a", "b", "c"])


def ranking(number: int, features: Any) -> RankingEvent:
    return RankingEvent(f"r{number}", number, ("a", "b", "c")[: 2 + number % 2], "ann", features=features)


def test_logged_rows_are_found_by_fingerprint_and_position() -> None:
    matrices = [np.arange(8, dtype=np.float32).reshape(2, 4) + 100 * number for number in range(4)]
    features: list[Any] = [LoggedRows.encode("f", matrix).to_json() for matrix in matrices]
    damaged = [
        None,
        {**features[0], "data": "*"},
        {**features[0], "rows": 3},
        {**features[0], "data": "AAA="},
        {"rows": 2},
        LoggedRows.encode("other", matrices[0]).to_json(),
        LoggedRows.encode("f", matrices[0][:, :3]).to_json(),
    ]
    events = [ranking(2 * n, one) for n, one in enumerate([features[0], *damaged, features[1]])]
    log = sorted_events_to_table(events, ITEMS, with_logged_features=True)
    served = log.rankings.logged_features
    assert served is not None
    shown = np.array([1, 0, *range(2, 16), 17], np.int64)
    out = np.full((len(shown), 4), -1, np.float32)
    found = served.fill(out, shown, log.rankings.offsets, "f")
    assert found.tolist() == [True, True, *[False] * 14, True]
    np.testing.assert_array_equal(out[[0, 1, -1]], np.stack([matrices[0][1], matrices[0][0], matrices[1][1]]))
    assert (out[2:-1] == -1).all()
    assert not served.fill(out, shown, log.rankings.offsets, "unknown").any()


def test_a_log_without_logged_features_has_none() -> None:
    log = sorted_events_to_table([ranking(2, None)], ITEMS, with_logged_features=True)
    assert log.rankings.logged_features is not None
    assert not log.rankings.logged_features.fill(
        np.zeros((1, 4), np.float32), np.zeros(1, np.int64), log.rankings.offsets, "f"
    )
    assert sorted_events_to_table([ranking(2, None)], ITEMS).rankings.logged_features is None


@pytest.mark.parametrize("memory_mb", [100, 0])
def test_training_reads_the_logged_features(home: Path, memory_mb: int) -> None:
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    recommender = compose.build_recommender(paths, settings)
    for step in range(20):
        feed = recommender.recommend(f"feed {step}", NOW + step, RecommendationRequest(f"p{step % 7}", n=5))
        click = InteractionEvent(f"click {step}", 0, feed.items[step % 5], "click", feed.id, feed.user)
        recommender.record([replace(click, timestamp=feed.timestamp + 10)], NOW + step + 0.5)
    inputs = compose.load_training_inputs(paths, settings)
    builder = recommender.pipeline.featurizer
    examples = from_rankings(inputs.log, 0, len(inputs.log.rankings))
    with replace(settings.training, memory_mb=memory_mb).matrix_store() as store:
        learnt = store.build_query_groups(inputs.log, builder, examples).features()  # type: ignore[arg-type]
    events = [one for one in paths.journal().events("ranking") if isinstance(one, RankingEvent)]
    expected = [LoggedRows.encode(builder.fingerprint, rows).data for rows in np.split(learnt, len(events))]
    assert expected == [one.features["data"] for one in events]
    remade = build_query_groups(inputs.log, builder, examples).features()  # type: ignore[arg-type]
    differs = ~((learnt == remade) | (np.isnan(learnt) & np.isnan(remade)))
    changed = {name for name, column in zip(builder.names, differs.T, strict=True) if column.any()}
    # a feed of five was chosen from more candidates: listwise features can't be recomputed from five
    assert "candidates" in changed
    assert all(name.endswith("_z") or name in ("candidates", "recall_pct") for name in changed), changed
