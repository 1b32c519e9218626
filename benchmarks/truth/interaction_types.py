"""Interaction types on logs whose right answer is known: impressions are no clicks, and hidden items stay hidden."""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from benchmarks.bars import DATA, PROJECT, Bar, console

UBI = DATA / "ubi_esci_synthetic" / "ubi_queries_events.ndjson.gz"
UBI_POSITIVE_ACTIONS = ("click", "item_click", "add_to_cart", "purchase")
LAST_LIST_POSITIVES = 122
"""Positives of the sample if only the last list of each query counts; three queries have two lists."""
RANKINGS, LENGTH = 1_000, 10
START = 1_750_000_000_000
"""Epoch milliseconds of the first ranking."""
FEEDS, HIDERS = 20, 12


def bars() -> list[Bar]:
    """Return the bars of interaction types."""
    return [*_ubi(), *_impressions(), *_hides()]


def _ubi() -> list[Bar]:
    """OpenSearch's sample: shown items with a click, and not those that only have an impression event."""
    if not UBI.exists():
        console.print(f"no {UBI}: the UBI sample is not measured")
        return []
    with _home() as home:
        _run(home, "import", "--format", "ubi", UBI)
        inputs = _inputs(home)
        n_shown, positives = len(inputs.log.rankings.items), int((_labels(inputs) > 0).sum())
    right = _clicked_in_ubi_file()
    console.print(f"UBI sample: {positives} of {n_shown:,} shown items are positive, {right} by the file itself")
    return [
        Bar(f"UBI sample: positives of {n_shown:,} shown items", positives, "", LAST_LIST_POSITIVES, "lower"),
        Bar(f"the same: difference to the {right} of the file, every list counted", abs(positives - right), "", 0,
            "lower"),
    ]  # fmt: skip


def _clicked_in_ubi_file() -> int:
    """Count the shown items with a click or a conversion of their query, straight from the file.

    Three queries have two lists each. A count that keeps the last list of a query finds four fewer.
    """
    lists: list[tuple[str, list[str]]] = []
    clicked: set[tuple[str, str]] = set()
    with gzip.open(UBI, "rt") as file:
        for line in file:
            if line.startswith('{"index"'):
                continue
            body = json.loads(line)
            target = (body.get("event_attributes") or {}).get("object") or {}
            if body.get("action_name") in UBI_POSITIVE_ACTIONS:
                clicked.add((body.get("query_id"), str(target.get("object_id"))))
            elif "action_name" not in body and body.get("query_response_hit_ids"):
                lists.append((body["query_id"], [str(hit) for hit in body["query_response_hit_ids"]]))
    return sum((query, hit) in clicked for query, hits in lists for hit in hits)


def _impressions() -> list[Bar]:
    """An impression event for each shown item, which names its ranking, and one click in each ranking."""
    with _home() as home:
        _import(home, _items(120) + list(_rankings_with_impressions()))
        inputs = _inputs(home)
        labels = _labels(inputs)
        n_in_histories = len(_histories(inputs).items)
        counted = _state(inputs).popularity(0.0).sum()
    console.print(f"{RANKINGS:,} rankings with impression events: {int((labels > 0).sum()):,} positives")
    return [
        Bar(f"{RANKINGS:,} rankings of {LENGTH} with an impression event per item and {RANKINGS:,} clicks: difference"
            " of the positives to the clicks", abs(float((labels > 0).sum()) - RANKINGS), "", 0, "lower"),
        Bar("the same: items in histories that were only seen", float(n_in_histories - RANKINGS), "", 0, "lower"),
        Bar("the same: interactions that popularity counts beside the clicks", float(counted - RANKINGS), "", 0,
            "lower"),
    ]  # fmt: skip


def _hides() -> list[Bar]:
    """Users hide items of their taste: live, after a restart, and in a model that was trained on the hides."""
    sys.path.append(str(PROJECT / "tests"))
    import toyworld

    from feedrank.api import compose
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.events.events import InteractionEvent

    hides = [
        {"event": "interaction", "id": f"hide {user} {n}", "timestamp": toyworld.END + 1_000 * n, "type": "hide",
         "user": toyworld.user_id(user), "item": item}
        for user in range(HIDERS) for n, item in enumerate(_hidden_of(user))
    ]  # fmt: skip
    only_hidden = [{"event": "item", "id": f"bad {n}", "timestamp": 0, "item": f"bad-{n}",
                    "fields": [{"name": "title", "value": f"the bad book {n}"}]} for n in range(5)]  # fmt: skip
    hides += [
        {"event": "interaction", "id": f"bad {user} {n}", "timestamp": toyworld.END + 2_000, "type": "dislike",
         "user": toyworld.user_id(user), "item": f"bad-{n}"}
        for user in range(20, 40) for n in range(5)
    ]  # fmt: skip
    with _home(toyworld.CONFIG) as home:
        _import(home, toyworld.items() + only_hidden + toyworld.interactions())
        _run(home, "train")
        paths = HomePaths(home)
        recommender = compose.build_recommender(paths, load_config(paths.config))
        now = time.time()
        live = [InteractionEvent(body["id"], body["timestamp"], body["item"], body["type"], None, body["user"])
                for body in hides]  # fmt: skip
        recommender.record(live, now)
        shares = {"live": _share(recommender, now)}
        shares["after a restart"] = _share(compose.build_recommender(paths, load_config(paths.config)), now + 1_000)
        popularity = recommender.snapshot.state.popularity(now)[_rows(recommender, [f"bad-{n}" for n in range(5)])]  # type: ignore[attr-defined]
        _run(home, "train")
        trained = compose.build_recommender(paths, load_config(paths.config))
        shares["trained on the hides"] = _share(trained, now + 2_000)
        builder: Any = trained.pipeline.featurizer
        model, bad = builder.item_model, _rows(trained, [f"bad-{n}" for n in range(5)])
        table = model.item_item["cooccurrence"]
        entries = int(np.diff(table.offsets)[bad].sum() + np.isin(table.columns, bad).sum())
        counts = float(np.expm1(model.item_stats["interaction_count"][bad]).sum())
    return [
        *(Bar(f"log with `hide`, {when}: hidden items among that user's next {FEEDS} feeds", share, "", 0, "lower")
          for when, share in shares.items()),
        Bar("popularity of items that were only disliked", float(popularity.sum()), "", 0, "lower"),
        Bar("their interactions and co-occurrences in the item model", counts + entries, "", 0, "lower"),
    ]  # fmt: skip


def _hidden_of(user: int) -> list[str]:
    """Three items of the user's taste: the expected next one, and two that follow it."""
    import toyworld

    genre, first = toyworld.genre_of_user(user), toyworld.start_position(user) + toyworld.INTERACTIONS_PER_USER
    return [toyworld.item(genre, first + step) for step in range(3)]


def _share(recommender: Any, now: float) -> float:
    """The share of hidden items in the next feeds of the users who hid them."""
    from feedrank.engine.serving.request import FilterSpec, RecommendationRequest

    found = shown = 0
    for user in range(HIDERS):
        hidden = set(_hidden_of(user))
        for step in range(FEEDS):
            request = RecommendationRequest(f"p{user}", n=10, filters=FilterSpec(include_seen=step % 2 == 0))
            items = recommender.recommend(str(uuid.uuid4()), now + 100 + step, request).items
            found, shown = found + len(hidden & set(items)), shown + len(items)
    return found / shown


def _rankings_with_impressions() -> Iterator[dict[str, Any]]:
    dice = random.Random(3)
    for r in range(RANKINGS):
        at, user = START + 60_000 * r, f"u{r % 50}"
        shown = [f"i{row}" for row in dice.sample(range(120), LENGTH)]
        clicked = dice.choice(shown)
        yield {"event": "ranking", "id": f"r{r}", "timestamp": at, "user": user, "items": [{"id": i} for i in shown]}
        for item in shown:
            yield _interaction(f"s{r} {item}", at + 1_000, user, item, "impression", f"r{r}")
        yield _interaction(f"c{r}", at + 5_000, user, clicked, "click", f"r{r}")


def _interaction(name: str, at: int, user: str, item: str, kind: str, ranking: str) -> dict[str, Any]:
    return {"event": "interaction", "id": name, "timestamp": at, "user": user, "item": item, "type": kind,
            "ranking": ranking}  # fmt: skip


def _items(count: int) -> list[dict[str, Any]]:
    return [{"event": "item", "id": f"item {n}", "timestamp": 0, "item": f"i{n}",
             "fields": [{"name": "title", "value": f"thing {n}"}]} for n in range(count)]  # fmt: skip


@contextmanager
def _home(config: str = '[embedder]\nmodel = "none"\n') -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "feedrank.toml").write_text(config)
        yield Path(folder)


def _import(home: Path, events: Iterable[dict[str, Any]]) -> None:
    path = home / "events.jsonl"
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    _run(home, "import", path)


def _run(home: Path, *arguments: object) -> None:
    from feedrank.api.cli import main

    result = CliRunner().invoke(main, ["--home", str(home), *map(str, arguments)], catch_exceptions=False)
    if result.exit_code:
        raise RuntimeError(f"feedrank {' '.join(map(str, arguments))} failed: {result.output}")


def _inputs(home: Path) -> Any:
    from feedrank.api import compose
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths

    paths = HomePaths(home)
    return compose.load_training_inputs(paths, load_config(paths.config))


def _labels(inputs: Any) -> Any:
    from feedrank.models.training.labels import impression_labels

    return impression_labels(inputs.log)


def _histories(inputs: Any) -> Any:
    from feedrank.models.items.user_histories import UserHistories

    return UserHistories.from_log(inputs.log)


def _state(inputs: Any) -> Any:
    from feedrank.features.state import BehaviouralState

    state = BehaviouralState(inputs.item_inputs.catalogue)
    state.advance(inputs.log)
    return state


def _rows(recommender: Any, items: list[str]) -> Any:
    return recommender.catalogue.ids.rows(items)
