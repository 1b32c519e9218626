"""Declared features: each kind worked out by hand on a small log, values as of each moment, live equal to replay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import feedrank

from feedrank.api.config import ConfigError, load_config
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Batch, ResolvedRequest
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.term_statistics import fit_term_statistics
from feedrank.features.declared.value_vocabulary import fit_vocabularies
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.sample_item_model import sample_item_model
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec

START = 1_750_000_000  # 2025-06-15 15:06:40 UTC, a Sunday
ITEMS = {
    "a": {"price": 10.0, "brand": "acme", "tags": ["red", "big"], "title": "Red running shoes", "stock": True},
    "b": {"price": 100.0, "brand": "bolt", "tags": ["blue"], "title": "Blue shoes for running fast", "stock": False},
    "c": {"price": "20", "brand": "acme", "tags": [], "title": "A hat", "published": (START - 7_200) * 1_000},
    "d": {},
}
ROWS = {item: row for row, item in enumerate(ITEMS)}


def ms(seconds: float) -> int:
    return round((START + seconds) * 1_000)


def item_event(item: str, seconds: float | None = None, **fields: Any) -> ItemEvent:
    values = {name: value if isinstance(value, str | bool | list) else float(value) for name, value in fields.items()}
    return ItemEvent(f"{item} {seconds}", 0 if seconds is None else ms(seconds), item, values)


def ranking(name: str, seconds: float, user: str | None, items: str = "abcd", **fields: Any) -> RankingEvent:
    return RankingEvent(name, ms(seconds), tuple(items), user, None, fields)


def click(of: str, seconds: float, user: str | None, item: str, kind: str = "click") -> InteractionEvent:
    return InteractionEvent(f"{of} {item} {seconds}", ms(seconds), item, kind, of, user)


CATALOGUE = [item_event(item, **fields) for item, fields in ITEMS.items()]
LOG: list[Event] = [
    *CATALOGUE,
    UserEvent("u", 0, "ann", {"country": "DE", "likes": ["acme", "red"], "search": "fast running"}),
    ranking("r0", 0, "ann", device="phone"),
    click("r0", 10, "ann", "a"),
    ranking("r1", 60, "bob", device="desktop"),
    click("r1", 70, "bob", "b"),
    click("r1", 80, "bob", "a"),
    ranking("r2", 120, "ann", device="phone"),
    click("r2", 130, "ann", "c"),
]


def computed(
    features: Sequence[DeclaredFeature], events: Sequence[Event] = LOG, user: str | None = "ann", seconds: float = 180,
    fields: Mapping[str, Any] | None = None, items: str = "abcd",
) -> dict[str, list[float]]:  # fmt: skip
    """Column -> values of a request after a log, by a replay; a live state must give the same bits."""
    catalogue, spec = (
        Catalogue.from_events(e for e in events if isinstance(e, ItemEvent)),
        StateSpec(declared=tuple(features)),
    )
    state, users = BehaviouralState(catalogue, spec), Vocabulary()
    assert state.forms is not None
    asked = RankingEvent("asked", ms(seconds), tuple(items), user, None, dict(fields or {}))
    log = events_to_table([*events, asked], catalogue.ids, users, True, FieldCollector(state.forms, True))
    assert log.fields is not None
    vocabularies = fit_vocabularies(features, log.fields.value_counts)
    rows = catalogue.ids.rows(list(items))
    queries = PointInTimeQueries(
        np.array([len(log.event_order) - 1]), np.array([START + seconds]), users.rows([user or ""]),
        np.array([0, len(rows)]), rows, np.array([len(log.interactions) + len(log.rankings) - 1]),
    )  # fmt: skip
    replayed = BehaviouralState(catalogue, spec).replay_log(log, queries)
    for event in events:  # one by one, as a service has them
        state.advance(events_to_table([event], catalogue.ids, users, True, FieldCollector(state.forms)))
    history, times = state.history(users.row(user))
    request = ResolvedRequest(
        START + seconds, users.row(user), history, times, fields=dict(fields or {}), item_fields={}
    )
    live = state.read([request], [rows])
    statistics = fit_term_statistics(features, log.fields)
    model = replace(
        sample_item_model(len(catalogue)), catalogue=catalogue, vocabularies=vocabularies, term_statistics=statistics
    )
    builder = FeatureBuilder(model, spec, FeatureSettings(families=("recall",), declared=tuple(features)))
    columns = declared_columns(builder, replayed)
    for name, column in declared_columns(builder, live).items():
        np.testing.assert_array_equal(column, columns[name], err_msg=name)
    return {name: [round(value, 5) for value in column.tolist()] for name, column in columns.items()}


def declared_columns(builder: FeatureBuilder, batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    names = {feature.name for feature in builder.features if feature.family == "declared"}
    return {name: column for name, column in builder.columns(batch).items() if name in names}


def one(kind: Any, **keys: Any) -> DeclaredFeature:
    return DeclaredFeature(
        "x", kind, **{("from_" if name == "of_field" else name): value for name, value in keys.items()}
    )


def values(feature: DeclaredFeature, **more: Any) -> list[float]:
    (column,) = computed([feature], **more).values()
    return column


nan = math.nan


def same(found: Sequence[float], expected: Sequence[float]) -> bool:
    return bool(np.allclose(found, expected, atol=2e-5, equal_nan=True))


def test_numbers_of_items_users_and_requests() -> None:
    assert same(values(one("number", from_="item.price")), [10, 100, 20, nan])
    assert same(values(one("number", from_="item.price", transform="log1p")), np.log1p([10, 100, 20, nan]).tolist())
    assert same(values(one("number", from_="item.price", clip=(15, 50))), [15, 50, 20, nan])
    assert same(values(one("number", from_="request.age"), fields={"age": 31}), [31] * 4)
    assert same(values(one("number", from_="user.age")), [nan] * 4)
    assert same(values(one("boolean", from_="item.stock")), [1, 0, nan, nan])
    assert same(values(one("word_count", from_="item.title")), [3, 5, 2, nan])


def test_times() -> None:
    assert same(values(one("item_age")), [nan, nan, (7_200 + 180) / 3_600, nan])
    hour = (15 * 3_600 + 6 * 60 + 40 + 180) / 3_600
    assert same(values(one("local_time", part="hour")), [hour] * 4)
    assert same(values(one("local_time", part="hour", zone="Europe/Paris")), [hour + 2] * 4)
    asked = one("local_time", part="hour", zone="request.zone")
    assert same(values(asked, fields={"zone": "-05:00"}), [hour - 5] * 4)
    assert same(values(asked, fields={"zone": "Asia/Kolkata"}), [hour + 5.5] * 4)
    assert same(values(asked, fields={"zone": "Nowhere/At-all"}), [nan] * 4)
    parts = {"weekday": 6, "is_weekend": 1, "day": 15, "month": 6, "year": 2025, "second": 40}
    for part, expected in parts.items():
        assert same(values(one("local_time", part=part)), [expected] * 4), part
    assert same(values(one("local_time", part="weekday", zone="Asia/Tokyo"), seconds=0), [0] * 4)


def test_categories_have_the_codes_of_their_frequency_and_unseen_values_none() -> None:
    assert same(values(one("category", from_="item.brand")), [0, 1, 0, nan])
    assert same(values(one("category", from_="item.brand", max_values=1)), [0, nan, 0, nan])
    assert same(values(one("category", from_="request.device"), fields={"device": "tablet"}), [2] * 4)
    flags = computed([one("list", from_="item.tags")])
    assert {name: column[:2] for name, column in flags.items()} == {"x_big": [1, 0], "x_blue": [0, 1], "x_red": [1, 0]}
    assert np.isnan([column[2:] for column in flags.values()]).all()


def test_all_numbers_of_a_request_are_columns_of_their_names() -> None:
    feature = DeclaredFeature("x", "numbers", from_="request.*")
    columns = computed([feature], fields={"f1": 2, "f 2": "0.5", "word": "none"})
    assert {name: column[0] for name, column in columns.items()} == {"x_f1": 2, "x_f_2": 0.5}
    capped = DeclaredFeature("x", "numbers", from_="request.*", max_values=1)
    assert list(computed([capped], fields={"b": 1, "a": 2})) == ["x_a"]


def test_user_agents_and_referers() -> None:
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
    for kind, part, text in (
        ("user_agent", "platform", phone),
        ("user_agent", "os", phone),
        ("user_agent", "browser", phone),
        ("referer", "medium", "https://www.google.co.uk/search?q=shoes"),
        ("referer", "host", "https://blog.example.org/a"),
    ):
        feature = DeclaredFeature("x", kind, from_="request.text", part=part)  # type: ignore[arg-type]
        assert same(values(feature, fields={"text": text}), [0] * 4), part
        assert same(values(feature, fields={}), [nan] * 4), part


def test_counts_and_rates_by_one_and_two_keys() -> None:
    forever = (math.inf,)
    assert same(values(one("count", half_lives_h=forever)), np.log1p([2, 1, 1, 0]).tolist())
    assert same(values(one("count", key=("user",), half_lives_h=forever)), np.log1p([2] * 4).tolist())
    assert same(values(one("count", key=("item.brand",), half_lives_h=forever)), np.log1p([3, 1, 3, 0]).tolist())
    by_device = one("count", key=("item.brand", "request.device"), half_lives_h=forever)
    assert same(values(by_device, fields={"device": "phone"}), np.log1p([2, 0, 2, 0]).tolist())
    assert same(values(by_device, fields={}), [0] * 4)
    # three rankings of four items, four clicks
    rate = one("rate", half_lives_h=forever, smoothing=2.0)
    assert same(values(rate), [(n + 2 * 4 / 12) / (3 + 2) for n in (2, 1, 1, 0)])
    by_country = one("rate", key=("item", "user.country"), half_lives_h=forever, smoothing=0.0)
    assert same(values(by_country), [1 / 2, 0, 1 / 2, 0])
    assert same(values(by_country, user="bob"), [nan] * 4)
    # a half-life of one hour, as of 180 s: clicks at 10 s and 80 s
    decayed = math.log1p(2 ** (-170 / 3_600) + 2 ** (-100 / 3_600))
    assert same(values(one("count", half_lives_h=(1.0,)))[:1], [decayed])
    shown = one("count", of=("impression",), key=("request.device",), half_lives_h=forever)
    assert same(values(shown, fields={"device": "phone"}), [math.log1p(8)] * 4)


def test_interacted_with_is_the_share_of_the_users_interactions_with_the_same_value() -> None:
    feature = one("interacted_with", from_="item.brand", half_lives_h=(math.inf,))
    assert same(values(feature), [1, 0, 1, 0])
    assert same(values(feature, user="bob"), [1 / 2, 1 / 2, 1 / 2, 0])
    assert same(values(feature, user="eve"), [nan] * 4)
    tags = one("interacted_with", from_="item.tags", half_lives_h=(math.inf,))
    assert same(values(tags, user="bob"), [1, 1 / 2, 0, 0]), "two shared tags of one item count twice"


def test_distances() -> None:
    recent = one("distance", from_="item.price", to="user.recent(item.price)")
    assert same(values(recent), [5, 85, 5, nan]), "ann clicked items of 10 and 20"
    logs = one("distance", from_="item.price", to="user.recent(item.price)", transform="log1p", signed=True)
    mean = (math.log1p(10) + math.log1p(20)) / 2
    assert same(values(logs), [math.log1p(10) - mean, math.log1p(100) - mean, math.log1p(20) - mean, nan])
    budget = one("distance", from_="item.price", to="request.budget")
    assert same(values(budget, fields={"budget": 30}), [20, 70, 10, nan])


def test_matches() -> None:
    assert same(values(one("match", from_="user.likes", to="item.brand")), [1 / 2, 0, 1 / 2, nan])
    terms = one("match", from_="user.search", to="item.title", method="term")
    assert same(values(terms), [1 / 4, 2 / 5, 0, nan])
    grams = one("match", from_="request.text", to="item.title", method="ngram")
    assert same(values(grams, fields={"text": "hat"}), [0, 0, 1 / 3, nan]), "'a h', ' ha' and 'hat'"


def test_standings_within_the_request() -> None:
    columns = computed([one("number", from_="item.price", within=("z", "rank"))])
    prices = np.array([10.0, 100, 20])
    assert same(columns["x_z"], [*((prices - prices.mean()) / prices.std()), nan])
    assert same(columns["x_rank"], [2 / 3, 0, 1 / 3, nan])


def test_random_numbers_depend_on_the_moment_the_item_and_the_seed() -> None:
    first, again = values(one("random")), values(one("random"))
    assert first == again
    assert len({*first, *values(one("random", seed=1)), *values(one("random"), seconds=181)}) == 12
    assert all(0 <= value < 1 for value in first)


def test_a_value_holds_from_its_moment_on() -> None:
    price = one("number", from_="item.price")
    later = [*LOG, item_event("a", 200, price=7), item_event("a", 400, price=9)]
    assert same(values(price, events=later, seconds=500)[:1], [9])
    catalogue = Catalogue.from_events(event for event in later if isinstance(event, ItemEvent))
    spec = StateSpec(declared=(price,))
    state = BehaviouralState(catalogue, spec)
    assert state.forms is not None
    asked = [ranking(f"q{seconds}", seconds, "ann") for seconds in (150, 199, 200, 300, 399, 450)]
    log = events_to_table([*later, *asked], catalogue.ids, None, True, FieldCollector(state.forms))
    at = log.event_positions()[len(log.interactions) + 3 :]
    queries = PointInTimeQueries(
        at, np.array([event.timestamp / 1_000 for event in asked]), np.full(6, 0, np.int32),
        np.arange(7), np.zeros(6, np.int32),
    )  # fmt: skip
    for chunk in (1, 2, 1_000):
        batches = list(BehaviouralState(catalogue, spec).replay_chunks(log, queries, chunk))
        found = np.concatenate([batch.fields.item_numbers[:, 0] for batch in batches if batch.fields is not None])
        assert found.tolist() == [10, 10, 7, 7, 7, 9], chunk


def test_an_older_value_that_comes_later_changes_nothing() -> None:
    price = one("number", from_="item.price")
    late = replace(item_event("a", 50, price=3), received=ms(160))
    newer = item_event("a", 100, price=5)
    assert same(values(price, events=[*LOG, newer, late])[:1], [5])
    assert same(values(price, events=[*LOG, late])[:1], [3])


def test_state_is_saved_restored_and_erased() -> None:
    features = (one("number", from_="user.age"), replace(one("count", key=("user", "item.brand")), name="y"))
    catalogue, spec = Catalogue.from_events(CATALOGUE), StateSpec(declared=features)
    state, users = BehaviouralState(catalogue, spec), Vocabulary()
    assert state.forms is not None
    events = [*LOG, UserEvent("age", ms(140), "ann", {"age": 40.0})]
    state.advance(events_to_table(events, catalogue.ids, users, True, FieldCollector(state.forms)))
    other = BehaviouralState(catalogue, spec)
    other.restore({name: array.copy() for name, array in state.arrays().items()})
    request = ResolvedRequest(START + 200.0, users.row("ann"))
    rows = np.arange(4, dtype=np.int32)

    def read(of: BehaviouralState) -> tuple[list[float], list[float]]:
        fields = of.read([request], [rows]).fields
        assert fields is not None
        return fields.user_numbers[0].tolist(), fields.counts[:, 0, 0, 0].round(3).tolist()

    assert read(state) == read(other)
    assert read(state)[0] == [40.0]
    assert max(read(state)[1]) > 1.9
    state.erase_user(users.row("ann"))
    numbers, counts = read(state)
    assert np.isnan(numbers).all()
    assert counts == [0.0] * 4
    with pytest.raises(ValueError, match="of another version"):
        BehaviouralState(catalogue, spec).restore(BehaviouralState(catalogue, StateSpec()).arrays())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('name = "x"\nkind = "number"', "no `from`"),
        ('name = "x"\nkind = "number"\nfrom = "price"', "expected a field such as item.price"),
        (
            'name = "x"\nkind = "number"\nfrom = "item.price"\nof = ["buy"]',
            "found of, which the kind number does not read",
        ),
        ('name = "x y"\nkind = "random"', "without spaces"),
        ('name = "x"\nkind = "rate"\nkey = ["item", "user", "item.brand"]', "expected one or two parts"),
        ('name = "x"\nkind = "rate"\nkey = ["list.price"]', "expected item, user, session"),
        ('name = "x"\nkind = "local_time"\npart = "aeon"', "expected one of hour"),
        ('name = "x"\nkind = "colour"', "kind"),
        ('name = "x"\nkind = "number"\nfrom = "item.price"\nclip = [2.0, 1.0]', "the smaller one first"),
        ('name = "x"\nkind = "distance"\nfrom = "item.price"\nto = "user.mean(item.price)"', "user.recent"),
    ],
)
def test_a_wrong_declaration_is_an_error_that_names_it(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "feedrank.toml"
    path.write_text(f"[[features.declared]]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_two_features_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = '[[features.declared]]\nname = "x"\nkind = "random"\n'
    (tmp_path / "feedrank.toml").write_text(table * 2)
    assert "x twice" in feedrank(tmp_path, "features", code=1)
