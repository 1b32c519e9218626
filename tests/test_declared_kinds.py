"""Further kinds of declared features worked out by hand: vectors, windows, latest interactions, BM25, diversity."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_declared_features import CATALOGUE, LOG, START, click, computed, item_event, one, ranking, same, values

from feedrank.api.config import ConfigError, load_config
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, UserEvent
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import ResolvedRequest
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec

nan = math.nan
VECTORS: list[Event] = [
    item_event("a", sizes=[3.0, 4.0], taste=[1.0, 0.0]),
    item_event("b", sizes=7.0, taste=[3.0, 4.0]),
    item_event("c", sizes=["x"], taste=[1.0, 2.0, 3.0]),
    item_event("d", sizes=[]),
    UserEvent("v", 0, "ann", {"taste": [1.0, 2.0]}),
]


def test_a_vector_is_reduced_to_columns() -> None:
    feature = one(
        "vector", from_="item.sizes", dimensions=2,
        reduce=("first", "last", "min", "max", "mean", "sum", "norm", "size", "values"),
    )  # fmt: skip
    found = computed([feature], events=VECTORS)
    assert list(found) == [
        "x_first", "x_last", "x_min", "x_max", "x_mean", "x_sum", "x_norm", "x_size", "x_0", "x_1",
    ]  # fmt: skip
    of_a, of_b = ([column[row] for column in found.values()] for row in (0, 1))
    assert same(of_a, [3, 4, 3, 4, 3.5, 7, 5, 2, 3, 4])
    assert same(of_b, [7, 7, 7, 7, 7, 7, 7, 1, 7, nan])
    assert same(found["x_size"], [2, 1, 1, 0]), "an entry that is no number is one of the list all the same"
    assert same(found["x_sum"], [7, 7, nan, nan])


def test_two_vectors_are_multiplied() -> None:
    feature = one("vector", from_="item.taste", to="user.taste", reduce=("dot", "cosine"))
    found = computed([feature], events=VECTORS)
    assert same(found["x_dot"], [1, 11, nan, nan]), "three numbers do not fit two"
    assert same(found["x_cosine"], [1 / math.sqrt(5), 11 / (5 * math.sqrt(5)), nan, nan])


def test_another_field_stands_in_for_a_missing_value() -> None:
    price = one("number", from_="request.price", fallback="item.price")
    assert same(values(price), [10, 100, 20, nan])
    assert same(values(price, fields={"price": 5}), [5] * 4)
    brand = one("category", from_="request.brand", fallback="item.brand", values=("bolt", "acme"))
    assert same(values(brand), [1, 0, 1, nan])
    assert same(values(brand, fields={"brand": "bolt"}), [0] * 4)
    stock = one("boolean", from_="item.stock", fallback="request.stock")
    assert same(values(stock, fields={"stock": True}), [1, 0, 1, 1])


def test_listed_values_have_the_codes_of_their_order() -> None:
    assert same(values(one("category", from_="item.brand", values=("bolt", "none"))), [nan, 0, nan, nan])
    flags = computed([one("list", from_="item.tags", values=("red", "green"))])
    assert flags["x_red"][:2] == [1, 0]
    assert flags["x_green"][:2] == [0, 0]


def test_windows_count_the_bucket_that_has_begun_and_those_before_it() -> None:
    # buckets of 100 s: clicks on `a` at 10 and 80 s, asked at 180 s; START is a multiple of 100
    hour = 3_600
    bucket = 100 / hour
    window = one("count", windows_h=(100 / hour, 300 / hour), bucket_h=bucket)
    found = computed([window], seconds=180)
    names = list(found)
    assert names == ["x_0.0277778h", "x_0.0833333h"]
    assert same(found[names[0]], np.log1p([2, 1, 1, 0]).tolist()), "100 s: from 0 s on"
    found = computed([window], seconds=230)
    assert same(found[names[0]], np.log1p([0, 0, 1, 0]).tolist()), "from 100 s on: c at 130 s"
    assert same(found[names[1]], np.log1p([2, 1, 1, 0]).tolist())
    assert same(computed([window], seconds=400)[names[1]], np.log1p([0, 0, 1, 0]).tolist())
    assert same(computed([window], seconds=10_000)[names[1]], [0] * 4)


def test_rates_in_windows_and_the_prior_in_events_of_the_numerator() -> None:
    day = 24.0
    rate = one("rate", windows_h=(day,), bucket_h=1.0, smoothing=0.0)
    assert same(values(rate), [2 / 3, 1 / 3, 1 / 3, 0])
    # 4 clicks in 12 impressions: 10 clicks come with 30 impressions
    prior = one("rate", windows_h=(day,), bucket_h=1.0, prior_of=10.0)
    assert same(values(prior), [(2 + 10) / (3 + 30), (1 + 10) / (3 + 30), (1 + 10) / (3 + 30), 10 / (3 + 30)])
    brand = one("rate", windows_h=(day,), bucket_h=1.0, smoothing=0.0, key=("item.brand",))
    assert same(values(brand), [3 / 6, 1 / 3, 3 / 6, nan])


def test_all_events_are_one_count_without_a_key() -> None:
    assert same(values(one("count", key=(), half_lives_h=(math.inf,))), np.log1p([4] * 4).tolist())
    assert same(values(one("count", key=(), windows_h=(1.0,))), np.log1p([4] * 4).tolist())


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.sampled_from("abcd")), max_size=40),
    st.integers(1, 3),
    st.integers(0, 3_000),
)
def test_windows_equal_plain_counts(clicks: list[tuple[int, str]], width: int, later: int) -> None:
    bucket_s, start = 200, START - START % 200
    clicks = sorted(clicks)
    asked = (clicks[-1][0] if clicks else 0) + later
    events = [
        *CATALOGUE, *(click("r", second - (START - start), "ann", item) for second, item in clicks),
    ]  # fmt: skip
    feature = one("count", windows_h=(width * bucket_s / 3_600,), bucket_h=bucket_s / 3_600)
    expected = defaultdict(int)
    for second, item in clicks:
        expected[item] += asked // bucket_s - second // bucket_s <= width
    found = values(feature, events=events, seconds=asked - (START - start))
    assert same(found, [math.log1p(expected[item]) for item in "abcd"])


def test_interacted_with_the_latest_items_and_those_of_a_window() -> None:
    # bob clicked b at 70 s and a at 80 s; tags: a red and big, b blue
    shared = one("interacted_with", from_="item.tags", latest=2)
    assert same(values(shared, user="bob"), [2 / 2, 1 / 2, 0, 0])
    assert same(values(one("interacted_with", from_="item.tags", latest=1), user="bob"), [2, 0, 0, 0])
    window = one("interacted_with", from_="item.brand", windows_h=(105 / 3_600, 1.0), share=False)
    found = computed([window], user="bob")  # asked at 180 s
    assert same(found["x_0.0291667h"], [math.log1p(1), 0, math.log1p(1), 0])
    assert same(found["x_1h"], [math.log1p(1)] * 3 + [0])
    assert same(values(shared, user="eve"), [nan] * 4)
    renamed = [*LOG, item_event("a", 100, brand="bolt")]
    latest, counted = one("interacted_with", from_="item.brand", latest=9), one("interacted_with", from_="item.brand")
    assert same(values(latest, events=renamed, user="bob"), [1, 1, 0, 0]), "the present values count"
    assert values(counted, events=renamed, user="bob")[2] > 0, "the values of the time count"


def test_bm25_of_an_item_field() -> None:
    # titles: a has 3 words, b 5, c 2; running: 2 of 3, shoes: 2 of 3, fast: 1 of 3; the mean length is 10 / 3
    def weight(length: int, holding: int) -> float:
        idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
        return idf * 2.5 / (1 + 1.5 * (0.25 + 0.75 * length / (10 / 3)))

    feature = one("match", from_="request.query", to="item.title", method="bm25")
    assert same(values(feature, fields={"query": "fast running"}), [weight(3, 2), weight(5, 2) + weight(5, 1), 0, nan])
    assert same(values(feature, fields={}), [nan] * 4)
    assert same(values(feature, fields={"query": "shoe"}), [0, 0, 0, nan])
    stemmed = one("match", from_="request.query", to="item.title", method="bm25", language="english")
    assert values(stemmed, fields={"query": "shoe"})[0] > 0


def test_matches_of_runs_of_letters_and_stems() -> None:
    pairs = one("match", from_="request.text", to="item.title", method="ngram", n=2)
    assert same(values(pairs, fields={"text": "hat"}), [0, 0, 2 / 4, nan]), "ha, at; 'a ', ' h', ha, at"
    stems = one("match", from_="request.text", to="item.title", method="term", language="english")
    assert values(stems, fields={"text": "shoe"})[0] > 0


def test_diversity_is_the_distance_to_the_candidates_of_the_request() -> None:
    prices = one("diversity", from_="item.price", method="number")
    assert same(values(prices), [-10, 80, 0, nan]), "the median of 10, 100 and 20 is 20"
    assert same(values(prices, items="ab"), [-45, 45])
    assert same(values(one("diversity", from_="item.brand")), [2 / 3, 1 / 3, 2 / 3, nan])
    assert same(values(one("diversity", from_="item.tags")), [2 / 3, 1 / 3, nan, nan])
    assert same(values(prices, items="dcba"), [nan, 0, 80, -10]), "the order does not matter"


def test_a_local_time_of_the_request_says_its_own_zone() -> None:
    for part, expected in {"hour": 10.25, "weekday": 4, "day": 3, "month": 12, "year": 2021}.items():
        feature = one("local_time", from_="request.localts", part=part)
        assert same(values(feature, fields={"localts": "2021-12-03T10:15:00+01:00"}), [expected] * 4), part
        assert same(values(feature, fields={"localts": "noon"}), [nan] * 4), part
    assert same(values(one("local_time", part="timestamp")), [float(np.float32(START + 180))] * 4)


def test_bots_and_the_place_between_least_and_greatest() -> None:
    bot = one("user_agent", from_="request.ua", part="bot", values=("bot", "person"))
    for agent, expected in (("Googlebot/2.1 (+http://www.google.com/bot.html)", 0), ("Mozilla/5.0 (X11; Linux)", 1)):
        assert same(values(bot, fields={"ua": agent}), [expected] * 4), agent
    found = computed([one("number", from_="item.price", within=("minmax",))])
    assert same(found["x_minmax"], [0, 1, 10 / 90, nan])


def test_windows_and_latest_interactions_are_saved_and_erased() -> None:
    features = (
        one("count", key=("user",), windows_h=(1.0,)),
        DeclaredFeature("y", "interacted_with", from_="item.brand", latest=3),
    )
    catalogue, spec = Catalogue.from_events(CATALOGUE), StateSpec(declared=features)  # type: ignore[arg-type]
    state, users = BehaviouralState(catalogue, spec), Vocabulary()
    assert state.forms is not None
    state.advance(events_to_table(LOG, catalogue.ids, users, True, FieldCollector(state.forms)))
    other = BehaviouralState(catalogue, spec)
    other.restore({name: array.copy() for name, array in state.arrays().items()})

    def counts(of: BehaviouralState) -> list[list[float]]:
        request = ResolvedRequest(START + 200.0, users.row("ann"))
        fields = of.read([request], [np.arange(4, dtype=np.int32)]).fields
        assert fields is not None
        return [fields.counts[:, c, 0, 0].tolist() for c in range(2)]

    assert counts(state) == counts(other) == [[2] * 4, [2, 0, 2, 0]]
    state.erase_user(users.row("ann"))
    assert counts(state) == [[0] * 4, [0] * 4]
    assert counts(other) == [[2] * 4, [2, 0, 2, 0]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('kind = "count"\nwindows_h = [1.0, 2000.0]', "buckets per key; expected at most"),
        ('kind = "count"\nwindows_h = [1.0]\nhalf_lives_h = [3.0]', "declare one feature with each"),
        ('kind = "count"\nbucket_h = 1.0', "bucket_h without windows_h"),
        ('kind = "rate"\nprior_of = 3.0\nsmoothing = 2.0', "one of the two"),
        ('kind = "vector"\nfrom = "item.v"\nreduce = ["dot"]', "products need `to`"),
        ('kind = "vector"\nfrom = "item.v"\nto = "user.v"', "expected dot or cosine"),
        ('kind = "vector"\nfrom = "item.v"\nreduce = ["values"]', "expected a number above 0"),
        ('kind = "match"\nfrom = "request.q"\nto = "item.t"\nlanguage = "klingon"', "expected one of arabic"),
        ('kind = "number"\nfrom = "item.price"\nfallback = "price"', "expected a field such as item.price"),
        ('kind = "category"\nfrom = "item.b"\nvalues = ["a", "a"]', "a twice"),
        ('kind = "interacted_with"\nfrom = "item.b"\nlatest = 100000', "at most 1000"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "feedrank.toml"
    path.write_text(f'[[features.declared]]\nname = "x"\n{table}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_an_event_that_comes_late_enters_its_own_bucket() -> None:
    feature = one("count", windows_h=(200 / 3_600,), bucket_h=100 / 3_600)
    late = [*LOG[:4], ranking("r", 300, "ann"), click("r", 310, "ann", "a"), click("r", 120, "bob", "a")]
    assert same(values(feature, events=late, seconds=320)[:1], [math.log1p(2)])
    assert same(values(feature, events=late, seconds=400)[:1], [math.log1p(1)])


def test_an_age_counts_from_a_time_in_seconds_or_the_time_of_the_event() -> None:
    seconds = [*LOG, item_event("a", 30, made=float(START - 3_600)), item_event("b", 30, made=str(START - 7_200))]
    assert same(values(one("item_age", from_="item.made"), events=seconds), [1.05, 2.05, nan, nan])
    assert same(values(one("item_age", from_="item.timestamp"), events=seconds), [150 / 3_600] * 2 + [nan] * 2)
