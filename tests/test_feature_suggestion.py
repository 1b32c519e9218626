"""Suggesting declared features: the right kind for each field, nothing that leaks, and a config that trains at once."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import feedrank
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api.config import load_config
from feedrank.api.declared_toml import feature_table, without_features
from feedrank.engine.events.events import ItemEvent, RankingEvent, UserEvent
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.survey import field_survey
from feedrank.features.survey.field_survey import FieldSurvey
from feedrank.features.survey.field_type import common_type, type_of
from feedrank.features.survey.suggestion import FieldSuggestion, suggest
from feedrank.features.survey.survey_context import Context

START = 1_750_000_000_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
BRANDS, DEVICES, CITIES = [f"b{n}" for n in range(6)], ("phone", "desktop"), [f"city{n}" for n in range(150)]
CONFIG = """
[embedder]
model = "none"

[items]
transition_rank = 8
cooccurrence_rank = 4

[training]
folds = 2
min_rankings = 100

[ranker]
rounds = 20
patience = 20
threads = 1

[ranker.parameters]
min_data_in_leaf = 10
"""


def fields(**values: Any) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def shop(rankings: int = 400) -> Iterator[dict[str, Any]]:
    """A small shop: clicks follow the price alone; `clicks_total` and `clicked` know them, `late` comes at the end."""
    chance = random.Random(3)
    prices = [round(chance.lognormvariate(3, 1), 2) for _ in range(60)]
    middle = sorted(prices)[30]
    for n, price in enumerate(prices):
        yield {
            "event": "item", "id": f"item {n}", "item": f"i{n}", "timestamp": 0,
            "fields": fields(
                price=price, brand=BRANDS[n % 6], title=f"A thing of brand {BRANDS[n % 6]} number {n}", sku=f"S-{n:05}",
                stock=n % 3 > 0, tags=[BRANDS[n % 6], BRANDS[n % 5]], currency="EUR", made=START - n * 86_400_000,
                clicks_total=int(1000 / price), vector=[0.5, n / 60], brand_id=100 + n % 6,
            ),
        }  # fmt: skip
    for n in range(40):
        yield {
            "event": "user", "id": f"user {n}", "user": f"u{n}", "timestamp": 0,
            "fields": fields(age=20 + n % 30, likes=[BRANDS[n % 6]], country=("DE", "FR")[n % 2], city=CITIES[n]),
        }  # fmt: skip
    for k in range(rankings):
        at, items = START + k * 900_000, chance.sample(range(60), 8)
        clicked = [n for n in items if prices[n] < middle and chance.random() < 0.5]
        yield {
            "event": "ranking", "id": f"r{k}", "user": f"u{k % 40}", "timestamp": at,
            "items": [{"id": f"i{n}"} for n in items],
            "fields": fields(
                device=DEVICES[k % 2], agent=AGENT, zone=("Europe/Paris", "Asia/Tokyo")[k % 3 > 0], trace=f"t-{k}",
                came_from=("https://www.google.com/?q=1", "https://shop.example/")[k % 2],
                clicked=f"i{clicked[0] if clicked else items[0]}", query="brand thing",
            ),
        }  # fmt: skip
        for j, n in enumerate(clicked):
            yield {
                "event": "interaction", "id": f"c{k}-{n}", "ranking": f"r{k}", "user": f"u{k % 40}", "item": f"i{n}",
                "type": "click", "timestamp": at + 1_000 * (j + 1),
            }  # fmt: skip
    end = START + rankings * 900_000
    for n in range(60):
        yield {
            "event": "item", "id": f"late {n}", "item": f"i{n}", "timestamp": end + 1_000,
            "fields": fields(late=float(n)),
        }  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, shop())))
    (folder / "feedrank.toml").write_text(CONFIG)
    feedrank(folder, "import", folder / "log.jsonl")
    return folder


def suggested(found: str) -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in tomllib.loads(found)["features"]["declared"]}


def test_each_field_gets_its_kind_and_nothing_leaks(home: Path) -> None:
    text = feedrank(home, "features", "suggest")
    by_name = suggested(text)
    by_field: dict[str, set[str]] = {}
    for table in by_name.values():
        for source in (table.get("from", ""), table.get("zone", ""), *table.get("key", ())):
            by_field.setdefault(source, set()).add(table["kind"])
    assert by_field["item.price"] == {"number", "distance"}
    assert by_name["price"]["transform"] == by_name["price_fit"]["transform"] == "log1p"
    assert by_field["item.brand"] >= {"category", "interacted_with", "rate", "match"}
    assert by_field["item.brand_id"] >= {"category"}, "a code is no number"
    assert by_field["item.title"] == {"word_count", "match"}
    assert by_field["item.stock"] == {"boolean"}
    assert by_field["item.made"] == {"item_age"}
    assert by_field["item.tags"] >= {"list", "interacted_with", "rate"}
    assert by_field["request.device"] == {"category", "rate"}
    assert by_field["request.zone"] == {"local_time"}
    assert by_field["user.country"] == {"category", "rate"}
    assert by_field["user.age"] == {"number"}
    assert {table["part"] for table in by_name.values() if table["kind"] == "referer"} == {"medium"}
    left_out = text[text.index("# Left out:") :]
    for name, reason in {
        "item.sku": "an id", "item.currency": "constant", "item.clicks_total": "total of outcomes",
        "item.vector": "a vector", "item.late": "later than the", "request.trace": "an id",
        "request.clicked": "name an item of the ranking", "request.query": "the text signals read it",
        "request.agent": "constant",
    }.items():  # fmt: skip
        said = re.search(rf"- {re.escape(name)}: (.*(?:\n#   .*)*)", left_out)
        assert said is not None, name
        assert reason in " ".join(said[1].replace("#", "").split()), (name, said[1])
        assert name not in by_field


def test_the_suggestion_trains_at_once_and_pays(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "full.toml"
    config.write_text(CONFIG + feedrank(home, "features", "suggest"))
    declared = load_config(config).features.declared
    assert len(declared) > 15
    output = feedrank(home, "--config", config, "train", "--name", "suggested", "--promote")
    (line,) = [line for line in output.splitlines() if "missing values of declared features" in line]
    assert all(f"{feature.name} " in line for feature in declared)
    listed = json.loads(feedrank(home, "features", "--bundle", "current", "--family", "declared", "--json"))
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["price"]["missing_share"] == 0
    assert by_name["price"]["gain_share"] > 0.05, "clicks follow the price"
    again = feedrank(home, "--config", config, "features", "suggest")
    assert "[[features" not in again, "what the config declares is not suggested again"


def test_a_file_is_never_replaced_without_force(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    feedrank(home, "features", "suggest", "--output", path)
    written = path.read_text()
    path.write_text("mine")
    assert "exists" in feedrank(home, "features", "suggest", "--output", path, code=1)
    assert path.read_text() == "mine"
    feedrank(home, "features", "suggest", "--output", path, "--force")
    assert path.read_text() == written, "the same journal, the same suggestion"
    assert "none" in feedrank(tmp_path / "none", "features", "suggest", code=1)


def test_a_large_journal_is_sampled_and_says_so(home: Path) -> None:
    from feedrank.api.compose import feature_suggestion
    from feedrank.api.home_paths import HomePaths

    paths = HomePaths(home)
    report = feature_suggestion.suggest_features(paths, load_config(paths.config), 100, lambda *_: None)
    assert report.sampled == ("item", "interaction", "ranking")
    assert all(count <= 100 for count in report.read.values())
    assert all(one.summary.known_share is None for one in report.fields if one.summary.source == "item")


def suggestions(
    items: Sequence[Mapping[str, Any]], rankings: Sequence[RankingEvent] = (), clicked: Sequence[str] = (),
    context: Context | None = None, users: Sequence[UserEvent] = (),
) -> dict[str, FieldSuggestion]:  # fmt: skip
    survey = FieldSurvey()
    for n, of_item in enumerate(items):
        survey.add_item(ItemEvent(f"e{n}", 0, f"i{n}", of_item))
    for user in users:
        survey.add_user(user)
    for event in rankings:
        survey.add_ranking(event, clicked)
    return {one.summary.name: one for one in suggest(survey.summaries(), context or Context())}


def test_a_number_that_tells_the_clicks_is_left_out() -> None:
    items = [{"quality": float(n), "secret": float(n >= 50)} for n in range(100)]
    chance = random.Random(1)
    rankings = [
        RankingEvent(f"r{k}", START + k, tuple(f"i{n}" for n in chance.sample(range(100), 10)), "u") for k in range(100)
    ]
    found = suggestions(items, rankings, [f"i{n}" for n in range(50, 100)])
    assert "AUC 1.00" in found["item.secret"].left_out
    assert "AUC 1.00" in found["item.quality"].left_out
    assert not suggestions(items, rankings, [f"i{n}" for n in range(0, 100, 2)])["item.quality"].left_out


def test_late_fields_warn_and_changes_are_counted() -> None:
    survey = FieldSurvey()
    for n in range(10):
        survey.add_item(ItemEvent(f"a{n}", 0, f"i{n}", {"price": 5.0 + n}))
        survey.add_item(ItemEvent(f"b{n}", START + 500, f"i{n}", {"price": 6.0 + n, "grade": float(n)}))
    for k in range(10):
        survey.add_ranking(RankingEvent(f"r{k}", START + 100 * k, tuple(f"i{n}" for n in range(10)), "u"))
    by_name = {one.name: one for one in survey.summaries()}
    assert by_name["item.price"].changes == 1
    assert by_name["item.price"].known_share == 1
    assert by_name["item.grade"].known_share == 0.5
    assert "for 50% of the shown items" in suggest(survey.summaries(), Context())[0].warning


def test_users_with_the_values_of_items_are_matched() -> None:
    users = [UserEvent(f"e{n}", 0, f"u{n}", {"wants": [BRANDS[n % 6]]}) for n in range(30)]
    found = suggestions([{"brand": BRANDS[n % 6]} for n in range(60)], users=users)
    (match,) = [feature for feature in found["user.wants"].features if feature.kind == "match"]
    assert (match.from_, match.to) == ("item.brand", "user.wants")


def test_vectors_of_users_and_items_are_compared() -> None:
    users = [UserEvent(f"e{n}", 0, f"u{n}", {"taste": [0.5, 1.0 * n]}) for n in range(30)]
    found = suggestions([{"taste": [1.0, 0.5 * n]} for n in range(30)], users=users)
    (product,) = found["user.taste"].features
    assert (product.kind, product.from_, product.to, product.reduce) == (
        "vector", "item.taste", "user.taste", ("cosine",),
    )  # fmt: skip


@pytest.mark.parametrize("numbers", [3, 12])
def test_many_numbers_of_lists_are_read_by_one_feature(numbers: int) -> None:
    given = {f"f{n}": [1.0 + n, 2.5, None] for n in range(numbers)}
    events = [RankingEvent(f"r{k}", START, ("a", "b", "c"), "u", item_fields=given) for k in range(30)]
    found = suggestions([], events)
    kinds = [feature.kind for one in found.values() for feature in one.features]
    assert kinds == ["number"] * 3 if numbers == 3 else ["numbers"]
    assert found["list.f0"].summary.missing_share == pytest.approx(1 / 3)
    again = suggestions([], events, context=Context(declared={"list.*"}))
    assert not any(one.features for one in again.values())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_survey, "MAX_ENTITIES", 20)
    monkeypatch.setattr(field_survey, "MAX_VALUES", 30)
    survey = FieldSurvey()
    for n in range(1_000):
        survey.add_item(ItemEvent(f"e{n}", 0, f"i{n}", {"code": f"c{n}"}))
        survey.add_ranking(RankingEvent(f"r{n}", START, (f"i{n}",), "u", None, {"trace": f"t{n}", "n": float(n)}))
    by_name = {one.name: one for one in survey.summaries()}
    assert by_name["item.code"].entities == 20
    assert (by_name["request.trace"].distinct, by_name["request.trace"].has_more) == (30, True)
    assert len(survey._fields["request"]["n"].numbers) == 30


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "boolean"), ("yes", "boolean"), (3.5, "number"), ("12.5", "number"), ("007", "text"), ("", "empty"),
        ([], "empty"), (["a"], "list"), ([1.0, 2.0], "list of numbers"), ("2025-01-01T10:00:00Z", "time"),
        ("2025-01-01", "time without zone"), (AGENT, "user agent"), ("https://a.example/b", "web address"),
        ("Europe/Paris", "time zone"), ("+02:00", "time zone"), ("red/blue", "text"), ("Red/Blue", "text"),
    ],
)  # fmt: skip
def test_types_are_recognised_by_content(value: Any, kind: str) -> None:
    assert type_of(value) == kind


def test_a_few_odd_values_do_not_change_a_type() -> None:
    assert common_type({"number": 99, "text": 1}) == "number"
    assert common_type({"number": 60, "text": 40}) == "text"
    assert common_type({"user agent": 50, "number": 50}) == "mixed"
    assert common_type({"list": 5, "text": 95}) == "list"


NAMES = st.text("abcz_0-", min_size=1, max_size=6)


@given(st.lists(NAMES, unique=True, max_size=6), st.data(), st.booleans())
def test_dropping_tables_leaves_all_else_as_it_is(names: list[str], data: st.DataObject, has_tail: bool) -> None:
    parts = ["# my config\n[embedder]\nmodel = 'none' # fast\n\n"]
    for number, name in enumerate(names):
        if number % 2:
            parts.append(f"# why {name}\n")
        parts.append(feature_table(DeclaredFeature(name, "number", from_="item.x", clip=(0.0, 1.0))) + "\n")
    parts.append("# the index\n[index]\ntrees = 7\n" * has_tail)
    text, dropped = "".join(parts), data.draw(st.sets(st.sampled_from(names))) if names else set()
    found = without_features(text, dropped)
    assert found is not None
    tables = tomllib.loads(found).get("features", {}).get("declared", [])
    assert [table["name"] for table in tables] == [name for name in names if name not in dropped]
    assert all(f"# why {name}\n" not in found for name in dropped)
    assert "# my config\n[embedder]\nmodel = 'none' # fast\n" in found
    assert not has_tail or "# the index\n[index]\ntrees = 7\n" in found
    assert dropped or found == text


def test_tables_that_are_not_of_their_own_are_left_alone() -> None:
    text = '[features]\ndeclared = [{name = "a", kind = "random"}, {name = "b", kind = "random"}]\n'
    assert without_features(text, {"a"}) is None
