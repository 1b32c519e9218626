"""What interaction types mean: for labels, histories, popularity, item models and feeds, live and replayed."""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from click.testing import CliRunner
from conftest import feedrank

from feedrank.api import compose, config
from feedrank.api.cli import main
from feedrank.api.config import Config, ConfigError, load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.arrived_events import arrived_events_to_table
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import events_to_table, sorted_events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.events.interaction_types import (
    IN_TRANSITIONS,
    USUAL_NAMES,
    InteractionType,
    InteractionTypes,
    check_any_positive,
    unlisted_types,
    unlisted_warning,
)
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.serving.request import FilterSpec, RecommendationRequest
from feedrank.engine.types import ResolvedRequest
from feedrank.features.bm25 import TermWeights
from feedrank.features.dislikes import MAX_MARKS
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.bundles import bundle
from feedrank.models.items.item_model import fit_item_views
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import build_query_groups, from_rankings
from feedrank.models.training.labels import impression_labels

ITEMS = [f"i{row}" for row in range(6)]
USERS = [f"u{row}" for row in range(4)]
CATALOGUE = Catalogue.from_items({item: {"category": f"c{row % 2}"} for row, item in enumerate(ITEMS)})
OVERRIDES = InteractionTypes(
    types={
        "view": InteractionType(history=False),
        "play": InteractionType(popularity=False, transitions=False),
        "read": InteractionType("neutral", history=True),
        "rating": InteractionType(min_value=3.0, below="negative"),
        "meh": InteractionType(weight=-0.5),
    }
)
KINDS = ("click", "view", "play", "read", "rating", "hide", "meh", "impression", "view_item_list", "skip", "our own")
START = 1_700_000_000
NOW = toyworld.END / 1000 + 1_000


# --- the settings


def test_two_spellings_of_one_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"types\.add_to_cart and types\.Add-to-cart are one type"):
        InteractionTypes(types={"add_to_cart": InteractionType(weight=3.0), "Add-to-cart": InteractionType(weight=5.0)})


def test_a_dislike_ends_after_any_number_of_others() -> None:
    n_items = MAX_MARKS + 100
    catalogue = Catalogue.from_items({f"i{row}": {} for row in range(n_items)})
    hides: list[Event] = [InteractionEvent(f"h{row}", row, f"i{row}", "hide", user="u") for row in range(n_items)]
    state, users = BehaviouralState(catalogue), Vocabulary()
    state.advance(events_to_table(hides, catalogue.ids, users))
    assert len(state.disliked(0)) == n_items
    state.advance(events_to_table([InteractionEvent("c", n_items, "i0", "click", user="u")], catalogue.ids, users))
    assert 0 not in state.disliked(0)
    assert len(state.disliked(0)) == n_items - 1


def test_a_usual_name_has_one_meaning() -> None:
    names = [name for names in USUAL_NAMES.values() for name in names]
    keys = ["".join(name.split("_")) for name in names]
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    types = InteractionTypes()
    for meaning, usual in USUAL_NAMES.items():
        for name in usual:
            assert types.of(name).meaning == types.of(name.replace("_", " ").title()).meaning == meaning
            assert types.is_listed(name.replace("_", "-").upper())
    assert types.of("our own").meaning == "neutral"
    assert InteractionTypes("positive").of("our own").enters == 15


def test_what_a_type_means_follows_from_its_table_its_weight_and_its_name() -> None:
    types = InteractionTypes(
        types={"Add to cart": InteractionType(weight=3.0), "click": InteractionType(weight=-1.0),
               "own": InteractionType(), "hide": InteractionType("positive")}
    )  # fmt: skip
    found = {name: (types.of(name).meaning, types.of(name).weight) for name in ("add_to_cart", "click", "own", "hide")}
    assert found == {
        "add_to_cart": ("positive", 3.0), "click": ("negative", -1.0), "own": ("positive", 1.0),
        "hide": ("positive", 1.0),
    }  # fmt: skip
    assert InteractionTypes.from_dict(json.loads(json.dumps(types.to_dict()))) == types


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"meaning": "positive", "weight": -1.0}, "types.x has the weight -1 and is positive, expected at least 0"),
        ({"meaning": "negative", "weight": 1.0}, "expected at most 0"),
        ({"meaning": "impression", "weight": 1.0}, "is impression, expected 0"),
        ({"meaning": "positive", "weight": math.nan}, "has the weight nan"),
        ({"meaning": "negative", "history": True}, "is negative and has history = true, expected false"),
        ({"meaning": "impression", "cooccurrence": True}, "impression and has cooccurrence = true"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InteractionTypes(types={"x": InteractionType(**wrong)})


def test_the_config_says_what_types_mean(tmp_path: Path) -> None:
    path = tmp_path / "feedrank.toml"
    path.write_text(
        '[interactions]\nunlisted = "positive"\n[interactions.types]\nhide = { weight = -2 }\n'
        '[interactions.types."Add to cart"]\nhistory = false\nmin_value = 2\nbelow = "negative"\n'
    )
    loaded = load_config(path)
    assert loaded.interactions.of("hide").weight == -2.0
    assert loaded.interactions.of("add_to_cart").below == "negative"
    assert loaded.training_settings.state.interactions == loaded.interactions
    for text, message in (
        ("[labels]\nweights = {purchase = 5, hide = -2}", "labels.weights is now the weight of each type in "
         r"\[interactions.types\]: purchase = \{weight = 5\}, hide = \{weight = -2\}"),
        ("[labels]\ndefault_weight = 0.0", r"labels.default_weight is now unlisted in \[interactions\]"),
        ("[interactions.types.hide]\nweigth = 1",
         r"unknown key .*weigth; did you mean interactions.types.hide.weight\? The keys .* meaning"),
        ("[interactions.types.hide]\nmeaning = 'bad'", "interactions.types.hide.meaning"),
        ("[interactions.types.hide]\nmeaning = 'negative'\nweight = 1", "types.hide has the weight 1 and is negative"),
        ("[interactions]\nunlisted = 'good'", "interactions.unlisted"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)


def test_unlisted_types_are_reported_with_what_to_write() -> None:
    counts = {"click": 5, "our own": 2, "theirs": 30, "skip": 1, "never": 0}
    assert unlisted_types(counts, InteractionTypes()) == {"theirs": 30, "our own": 2}
    message = unlisted_warning(counts, InteractionTypes())
    assert message.startswith(
        "32 interactions are ignored, as nothing says what their types mean: theirs (30), our own"
    )
    assert '[interactions.types] theirs = { meaning = "positive" }' in message
    assert '"our own" = {' in unlisted_warning({"our own": 1}, InteractionTypes())
    assert not unlisted_warning(counts, InteractionTypes("positive"))
    assert not unlisted_warning({"click": 1}, InteractionTypes())
    check_any_positive(counts, InteractionTypes())
    check_any_positive({}, InteractionTypes())
    with pytest.raises(
        ValueError, match=r"no positive .* 7 of the types impression \(4, impression\), own \(3, neutral\)"
    ):
        check_any_positive({"impression": 4, "own": 3}, InteractionTypes())


# --- the state, the histories and the candidates against a slow reference


def random_events(seed: int, length: int = 260) -> list[Event]:
    random = np.random.default_rng(seed)
    events: list[Event] = []
    at = START * 1000
    for n in range(length):
        at += int(random.integers(0, 900_000))
        user = None if random.random() < 0.1 else USERS[random.integers(len(USERS))]
        shown = [ITEMS[row] for row in random.permutation(len(ITEMS))]
        if random.random() < 0.2:
            events.append(RankingEvent(f"r{n}", at, tuple(shown[:3]), user))
            continue
        kind = KINDS[random.integers(len(KINDS))]
        named = f"r{random.integers(n + 1)}" if random.random() < 0.3 else None
        value = float(random.integers(1, 6)) if kind == "rating" else None
        events.append(InteractionEvent(f"e{n}", at, shown[0], kind, named, user, value=value))
    return events


class Reference:
    """What the docs say of interaction types, event by event, with `OVERRIDES`."""

    def __init__(self) -> None:
        self.history: dict[str, list[str]] = defaultdict(list)
        self.disliked: dict[str, list[str]] = defaultdict(list)
        self.popularity, self.dislikes, self.impressions = Counter[str](), Counter[str](), Counter[str]()
        self._shown: list[tuple[str, str, int]] = []

    def add(self, event: Event) -> None:
        if isinstance(event, RankingEvent):
            self.impressions.update(event.items)
            self._shown += [(event.user, item, event.timestamp) for item in event.items if event.user]
        elif isinstance(event, InteractionEvent):
            self._add(event, event.user or "", event.item)

    def _add(self, event: InteractionEvent, user: str, item: str) -> None:
        kind = "low rating" if event.type == "rating" and (event.value or 0) < 3 else event.type
        if kind in ("impression", "view_item_list") and event.ranking is None:
            recent = any(entry[:2] == (user, item) and event.timestamp - entry[2] <= 1_800_000 for entry in self._shown)
            if not recent:
                self.impressions[item] += 1
                self._shown += [(user, item, event.timestamp)] if user else []
        if kind in ("hide", "meh", "low rating"):
            self.dislikes[item] += 1
            if user:
                self.disliked[user] = [item, *(one for one in self.disliked[user] if one != item)]
        if kind in ("click", "view", "play", "read", "rating") and user:
            self.disliked[user] = [one for one in self.disliked[user] if one != item]
            if kind != "view":
                self.history[user].insert(0, item)
        self.popularity[item] += kind in ("click", "view", "rating")


@pytest.mark.parametrize("seed", range(3))
def test_the_state_equals_a_slow_reference(seed: int) -> None:
    spec = StateSpec((math.inf, 24.0), interactions=OVERRIDES)
    events, users, reference = random_events(seed), Vocabulary(USERS), Reference()
    state = BehaviouralState(CATALOGUE, spec)
    log = replace(events_to_table(events, CATALOGUE.ids, users), meanings=OVERRIDES)
    histories = UserHistories.from_log(log).in_history
    index_of = {int(interaction): index for index, interaction in enumerate(histories.interaction)}
    interaction = 0
    for event in events:
        if isinstance(event, InteractionEvent):
            if (index := index_of.get(interaction)) is not None:  # what training would leave out of the candidates
                found = {ITEMS[row] for row in histories.disliked_before(index, interaction)}
                assert found == set(reference.disliked[event.user or ""])
            interaction += 1
        reference.add(event)
        state.advance(events_to_table([event], CATALOGUE.ids, users))
        for row, user in enumerate(USERS):
            assert [ITEMS[item] for item in state.disliked(row)] == reference.disliked[user]
    for user, row in zip(USERS, range(len(USERS)), strict=True):
        assert [ITEMS[item] for item in state.history(row)[0]] == reference.history[user]
        past = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
        assert [ITEMS[item] for item in past[::-1]] == reference.history[user]
    request = ResolvedRequest(START + 10**9, 0)
    batch = state.read([request], [np.arange(len(ITEMS), dtype=np.int32)])
    for name, expected in (("interactions", reference.popularity), ("impressions", reference.impressions)):
        column = batch.counters[:, spec.counter_column("item", name, math.inf)]
        assert dict(zip(ITEMS, column.tolist(), strict=True)) == {item: expected[item] for item in ITEMS}
    assert batch.dislikes[:, 0].tolist() == [reference.dislikes[item] for item in ITEMS]
    assert set(batch.dislikes[:, 2].tolist()) == {sum(reference.dislikes.values())}
    assert [ITEMS[row] for row in batch.disliked[0] if row >= 0] == reference.disliked["u0"]
    assert state.popularity(0.0).tolist() == [reference.popularity[item] for item in ITEMS]


def test_a_larger_catalogue_keeps_the_dislikes() -> None:
    state, users = BehaviouralState(CATALOGUE, StateSpec(interactions=OVERRIDES)), Vocabulary(USERS)
    state.advance(events_to_table(random_events(5), CATALOGUE.ids, users))
    rows, requests = [np.arange(len(ITEMS), dtype=np.int32)], [ResolvedRequest(NOW, user) for user in range(len(USERS))]
    before = [(state.disliked(user).tolist(), state.read([request], rows)) for user, request in enumerate(requests)]
    new = [ItemEvent(f"item {n}", START, f"new {n}") for n in range(200)]
    state.advance(arrived_events_to_table(new, ItemArrivals(state.items, state.item_fields), users))
    for user, (disliked, old) in enumerate(before):
        assert state.disliked(user).tolist() == disliked
        now = state.read([requests[user]], rows)
        assert np.array_equal(old.dislikes, now.dislikes)
        assert np.array_equal(old.disliked_at, now.disliked_at, equal_nan=True)
    state.erase_user(0)
    assert not len(state.disliked(0))


def test_neutral_negative_and_impression_events_leave_the_item_model_as_it_was() -> None:
    events = [event for event in random_events(1, 400) if isinstance(event, InteractionEvent)]
    kept = ("click", "view", "play", "rating")

    def model(events: list[Event], meanings: InteractionTypes) -> Any:
        log = replace(events_to_table(events, CATALOGUE.ids, Vocabulary(USERS)), meanings=meanings)
        text = np.zeros((len(CATALOGUE), 0), np.float32)
        return fit_item_views(CATALOGUE, text, TermWeights.fit(CATALOGUE.documents()), UserHistories.from_log(log))

    whole = model(list(events), InteractionTypes())
    positive = model([event for event in events if event.type in (*kept, "read")], InteractionTypes())
    assert whole.space.item_side.tobytes() == positive.space.item_side.tobytes()
    assert {name: column.tolist() for name, column in whole.item_stats.items()}.__repr__() == {
        name: column.tolist() for name, column in positive.item_stats.items()
    }.__repr__()
    without_plays = [event for event in events if event.type in ("click", "view", "rating")]
    some = InteractionTypes(types={"play": InteractionType(transitions=False)})
    played = [event for event in events if event.type in kept]
    found, expected = model(played, some), model(list(without_plays), InteractionTypes())
    for name in ("transition", "transition_next"):
        assert found.item_item[name].values.tobytes() == expected.item_item[name].values.tobytes()
    assert found.item_stats["interaction_count"].sum() > expected.item_stats["interaction_count"].sum()
    log = replace(events_to_table(played, CATALOGUE.ids), meanings=some)
    assert len(UserHistories.from_log(log).entering(IN_TRANSITIONS).items) < len(UserHistories.from_log(log).items)


# --- labels and training


def rankings_with_impressions(n: int, click: bool = True) -> list[Event]:
    """Rankings of three with an impression event for each shown item, and a click on the first each."""
    events: list[Event] = []
    for r in range(n):
        shown, at, user = tuple(ITEMS[(r + k) % 6] for k in range(3)), (START + 60 * r) * 1000, USERS[r % 4]
        events.append(RankingEvent(f"r{r}", at, shown, user))
        events += [InteractionEvent(f"s{r} {k}", at + 1, item, "impression", f"r{r}", user)
                   for k, item in enumerate(shown)]  # fmt: skip
        events += [InteractionEvent(f"c{r}", at + 2, shown[0], "click", f"r{r}", user)] if click else []
    return events


def test_impression_events_give_no_labels_and_count_no_impression_twice() -> None:
    events = rankings_with_impressions(40)
    log = events_to_table(events, CATALOGUE.ids, Vocabulary(USERS))
    assert impression_labels(log).sum() == 40
    spec, once = StateSpec(), BehaviouralState(CATALOGUE)
    state = BehaviouralState(CATALOGUE, spec)
    state.advance(log)
    once.advance(events_to_table([one for one in events if getattr(one, "type", "") != "impression"], CATALOGUE.ids,
                                 Vocabulary(USERS)))  # fmt: skip
    rows = [np.arange(len(ITEMS), dtype=np.int32)]
    for user in range(len(USERS)):
        found, expected = (one.read([ResolvedRequest(NOW, user)], rows) for one in (state, once))
        for name in ("counters", "impressions", "item_age", "since_interaction", "dislikes"):
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name
        assert state.history(user)[0].tolist() == once.history(user)[0].tolist()
    assert len(UserHistories.from_log(log).items) == 40


def test_training_without_a_positive_type_ends_with_the_types_found(tmp_path: Path) -> None:
    (tmp_path / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    events = toyworld.items() + [
        {**event, "type": ("impression", "our own")[n % 2]} for n, event in enumerate(toyworld.interactions())
    ]
    feedrank(tmp_path, "import", toyworld.write(tmp_path / "log.jsonl", events))
    for command in ("train", "evaluate", "retrain"):
        result = CliRunner().invoke(main, ["--home", str(tmp_path), command])
        assert result.exit_code == 1
        assert "warning: 270 interactions are ignored" in result.stderr
        assert "no positive interaction among 540 of the types" in result.stderr
        assert "impression (270, impression)" in result.stderr
        assert "our own (270, neutral)" in result.stderr


# --- the live service


def feeds(recommender: Any, user: str, count: int, **filters: Any) -> set[str]:
    """The items of the user's next feeds, which are logged."""
    shown: set[str] = set()
    for _ in range(count):
        request = RecommendationRequest(user, n=60, filters=FilterSpec(include_seen=True, **filters))
        at = recommender.snapshot.high_watermark_ms / 1000 + 1
        shown |= set(recommender.recommend(str(uuid.uuid4()), at, request).items)
    return shown


def event(name: str, item: str, kind: str, user: str = "p0") -> InteractionEvent:
    return InteractionEvent(name, round(NOW * 1000) + 500_000, item, kind, user=user)


def test_a_hidden_item_stays_out_of_the_feeds_until_it_is_liked(home: Path) -> None:
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    recommender = compose.build_recommender(paths, settings)
    hidden = list(recommender.recommend("first", NOW, RecommendationRequest("p0")).items[:3])
    popularity = recommender.snapshot.state.popularity(NOW)  # type: ignore[attr-defined]
    recommender.record([event(f"h {item}", item, "hide") for item in hidden], NOW + 600)
    recommender.record([event(f"o {item}", item, "impression", "p1") for item in hidden], NOW + 600)
    assert not feeds(recommender, "p0", 20) & set(hidden)
    assert feeds(recommender, "p0", 1, include_disliked=True) & set(hidden)
    assert feeds(recommender, "p4", 1) & set(hidden), "they stay in the feeds of others"
    assert np.array_equal(recommender.snapshot.state.popularity(NOW), popularity)  # type: ignore[attr-defined]
    batch = recommender.recommend_batch(NOW + 700, [RecommendationRequest("p0", filters=FilterSpec(True))])
    assert not set(batch[0].items) & set(hidden)
    restarted = compose.build_recommender(paths, settings)
    assert not feeds(restarted, "p0", 20) & set(hidden)
    restarted.record([event("like", hidden[0], "like")], NOW + 800)
    assert hidden[0] in feeds(restarted, "p0", 2)
    assert not feeds(restarted, "p0", 2) & set(hidden[1:])


def test_feature_rows_with_dislikes_are_those_of_a_replay(home: Path) -> None:
    paths = HomePaths(home)
    settings = config.load_config(paths.config)
    recommender = compose.build_recommender(paths, settings)
    kinds = ("hide", "click", "impression", "dislike", "skip", "our own")
    for step in range(40):
        filters = FilterSpec(include_seen=True, include_disliked=step % 3 == 0)
        feed = recommender.recommend(
            f"f{step}", NOW + step, RecommendationRequest(f"p{step % 5}", n=60, filters=filters)
        )
        for n in range(2):
            item = feed.items[(7 * step + n) % len(feed.items)]
            happened = InteractionEvent(f"e{step} {n}", feed.timestamp + n, item, kinds[(step + n) % 6],
                                        feed.id if step % 2 else None, feed.user)  # fmt: skip
            recommender.record([happened], NOW + step + 0.5)
    inputs = compose.load_training_inputs(paths, settings)
    builder: Any = recommender.pipeline.featurizer
    examples = from_rankings(inputs.log, 0, len(inputs.log.rankings))
    replayed = build_query_groups(inputs.log, builder, examples).features()
    logged = build_query_groups(inputs.log, builder, examples, use_logged_features=True).features()
    own = [column for column, name in enumerate(builder.names) if not name.endswith("_z") and name != "candidates"]
    assert np.array_equal(replayed[:, own], logged[:, own], equal_nan=True)
    used = [column for column, feature in enumerate(builder.features) if feature.family == "dislikes"]
    varied = [builder.names[column] for column in used if len(np.unique(replayed[:, column])) > 1]
    assert {"since_disliked_h", "disliked_category_share", "disliked_cooccurrence_max"} <= set(varied)
    assert {"item_dislikes_all", "item_dislike_share_7d"} <= set(varied)


def test_a_bundle_keeps_the_meanings_and_serving_says_where_they_differ(home: Path, capsys: Any) -> None:
    paths = HomePaths(home)
    meanings = bundle.load(paths.current_bundle).builder.spec.interactions
    assert meanings == InteractionTypes()
    feedrank(home, "import", toyworld.write(home / "own.jsonl", [
        {"event": "interaction", "id": "own", "timestamp": toyworld.END, "item": "space-1", "type": "our own",
         "user": "p0"}]))  # fmt: skip
    capsys.readouterr()
    other = replace(Config(), interactions=InteractionTypes("positive"))
    compose.build_recommender(paths, other)
    message = capsys.readouterr().err
    assert "the bundle toy has other [interactions] than the config" in message
    assert "1 interactions are ignored, as nothing says what their types mean: our own (1)" in message


def _labels(log: EventTable) -> float:
    return float(impression_labels(log).sum())


def test_meanings_given_with_the_events_reach_the_labels() -> None:
    events = [RankingEvent("r", 0, ("i0", "i1"), "u"), InteractionEvent("a", 1, "i0", "own", "r"),
              InteractionEvent("b", 2, "i1", "click", "r")]  # fmt: skip
    assert _labels(sorted_events_to_table(events, CATALOGUE.ids)) == 1
    assert _labels(sorted_events_to_table(events, CATALOGUE.ids, meanings=InteractionTypes("positive"))) == 2
