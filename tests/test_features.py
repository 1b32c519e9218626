"""Features describe themselves, custom families are added, and the check finds what a family must not do."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import custom_features
import numpy as np
import pytest
import toyworld
from conftest import feedrank

from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.engine.feature import Feature
from feedrank.features.builder import FeatureBuilder
from feedrank.features.catalog import all_features
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.families.extra import ExtraFamilyError, load_extra_families
from feedrank.features.families.registry import FAMILIES
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.sample_item_model import ItemModelParts, sample_item_model
from feedrank.features.state_spec import StateSpec
from feedrank.features.testing import check_feature_family
from feedrank.models.bundles import bundle
from feedrank.models.bundles.bundle import BundleError

COUNTERS = (
    CounterSpec("seen", "user x item", ("impression",)),
    CounterSpec("taste", "user x category", ("click",), ("impression",), (1.0, 72.0, float("inf"))),
)
PLAIN = ItemModelParts(late_interaction=False, cross_encoder=False)
OWN = "custom_features:title"


# --- the records


def test_every_family_describes_its_features() -> None:
    features = all_features(spec=StateSpec(counters=COUNTERS))
    assert list(dict.fromkeys(feature.family for feature in features)) == list(FAMILIES)
    assert max(Counter(feature.name for feature in features).values()) == 1
    for feature in features:
        assert feature.sentence[0].isupper()
        assert feature.sentence.endswith(".")
        assert not feature.sentence.endswith("..")
        assert not feature.missing.endswith(".")
        assert "  " not in feature.sentence
    by_name = {feature.name: feature for feature in features}
    assert by_name["ctr_24h"].sentence == (
        "Interactions per impression of the item, with a half-life of 24h, smoothed towards the rate of all items."
    )
    assert by_name["taste_all"].unit == "click per impression"
    assert by_name["bm25_z"].missing == "bm25 is missing"


def test_records_follow_the_settings() -> None:
    def names(**settings: Any) -> set[str]:
        return {feature.name for feature in all_features(**settings)}

    assert len(names()) == 141
    assert len(names(parts=PLAIN)) == 132
    two = names(spec=StateSpec((2.0, 100.0), counters=COUNTERS))
    assert {"ctr_2h", "popularity_4.16667d", "seen_7d", "taste_all"} <= two
    assert not {"ctr_24h", "ctr_24h_z"} & two
    assert names(settings=FeatureSettings(("bm25", "listwise"))) == {"bm25", "bm25_query", "bm25_z"}
    parts = ItemModelParts(("text", "smell"), ("ease",), ("price",))
    own = {feature.name: feature for feature in all_features(parts=parts)}
    assert {"smell_max", "ease_i2i_latest", "price", "price_distance"} <= own.keys()
    assert own["smell_max"].sentence.endswith("by vectors of the view smell.")


def test_a_trained_ranker_has_the_features_of_the_catalog(interactions_home: Path) -> None:
    builder = bundle.load(interactions_home / "bundles" / "current").builder
    assert list(builder.features) == all_features(parts=PLAIN)
    assert builder.names == tuple(feature.name for feature in builder.features)


def test_the_fingerprint_of_the_built_in_features_stays() -> None:
    """If this fails, every bundle is refused and logged features are not used: say so in the changelog."""
    model = sample_item_model(1)
    digests = {"text": "t", "late_interaction": "l", "cross_encoder": "x"}
    assert FeatureBuilder(replace(model, model_digests=digests), StateSpec()).fingerprint == "9ecf1df340bc3ae5"
    assert FeatureBuilder(sample_item_model(1, PLAIN), StateSpec()).fingerprint == "adec3837ede15626"
    spec = StateSpec(
        (2.0, 100.0), 7,
        (COUNTERS[0], CounterSpec("cat", "user x category", ("click",), ("impression",), (1.0, 72.0, float("inf")))),
    )  # fmt: skip
    assert FeatureBuilder(replace(model, model_digests=digests), spec).fingerprint == "08e9f982966e3d18"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "title length"}, "the character ' ', which LightGBM refuses"),
        ({"name": "a:b"}, "the character ':'"),
        ({"name": ""}, "name of the feature '' is ''"),
        ({"sentence": " "}, "sentence of the feature 'f' is ' '; expected a text"),
        ({"missing": None}, "missing of the feature 'f' is None"),
    ],
)
def test_an_incomplete_feature_record_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature(**{"name": "f", "family": "a", "sentence": "It.", "unit": "u", "missing": "never"} | change)


# --- the check of families


@pytest.mark.parametrize("name", FAMILIES)
def test_the_built_in_families_pass_the_check(name: str) -> None:
    check_feature_family(FAMILIES[name], spec=StateSpec(counters=COUNTERS))


def test_a_custom_family_passes_the_check() -> None:
    check_feature_family(custom_features.title)
    check_feature_family(OWN)
    check_feature_family(custom_features.title, sample_item_model(20, PLAIN), StateSpec((1.0,), 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_dict", "found a ndarray, expected a dict"),
        ("no_record", "found the key 'length', expected a Feature record"),
        ("wrong_shape", r"length of a batch of 13 requests: found dtype and shape .*\(\d+, 1\)"),
        ("wrong_dtype", "float64.*expected"),
        ("moody", "features of a batch without candidates: found length, expected length, width"),
        ("of_all_requests", "alone, not in a batch; a family must not mix the requests"),
        ("of_the_order", "must not mix the requests"),
        ("of_the_size", "in a batch of 598 requests"),
        ("of_chance", "must not be random"),
        ("infinite", "found an infinite value"),
        ("changes_its_input", "the family changed batch.impressions"),
        ("changes_columns", "changed the columns of other families"),
        ("two_families", "records of the families another, other, expected one"),
        ("one_name_twice", "two records named length"),
    ],
)
def test_the_check_finds_what_is_wrong_with_a_family(name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_feature_family(getattr(custom_features, name))


# --- custom families


def test_extra_columns_follow_the_built_in_ones() -> None:
    model, spec = sample_item_model(30), StateSpec()
    plain, builder = FeatureBuilder(model, spec), FeatureBuilder(model, spec, FeatureSettings(extra=(OWN,)))
    assert builder.names == (*plain.names, "title_length", "title_age")
    assert builder.features[-2] == custom_features.TITLE_LENGTH
    assert builder.fingerprint != plain.fingerprint
    assert [feature.name for feature in all_features(FeatureSettings(extra=(OWN,)))] == list(builder.names)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "no_such_module:f",
            "can't import the module.*'no_such_module:f'.*install it, or add its folder to PYTHON",
        ),
        ("readers_broken:f", "readers_broken:f"),
        ("custom_features:titel", "found no function 'titel' in custom_features.*title"),
        ("custom_features:TITLE_LENGTH", "found no function 'TITLE_LENGTH'"),
        ("custom_features:taken_name", "two features are named bm25, in the families bm25 and other"),
        ("custom_features:taken_family", "length in the family 'bm25', which is built in; choose another"),
        ("custom_features:no_record", "a column without a record: the key 'length'; use a Feature"),
        ("custom_features:no_dict", "returned an array of shape .*, expected a dict"),
        ("custom_features:wrong_shape", r"an array of shape \(0, 1\) for length, expected an array of shape \(0,\)"),
        ("custom_features:wrong_dtype", "returned float64 values for length, expected float32; use .astype"),
        ("custom_features:fails", "failed on a batch of 1 requests and 0 candidates: KeyError: 'price'"),
    ],
)
def test_an_extra_family_that_can_not_be_used_says_why(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_features(FeatureSettings(extra=(path,)))


def test_two_extra_families_need_distinct_names() -> None:
    with pytest.raises(ExtraFamilyError, match="family 'title', which is that of 'custom_features:title'"):
        all_features(FeatureSettings(extra=(OWN, "custom_features:other_title")))


def test_a_family_with_other_columns_for_other_batches_is_an_error() -> None:
    builder = FeatureBuilder(sample_item_model(3), StateSpec(), FeatureSettings(("user",), ("custom_features:moody",)))
    from feedrank.engine.types import ResolvedRequest
    from feedrank.features.state import BehaviouralState

    state = BehaviouralState(builder.item_model.catalogue, builder.spec)
    batch = state.read([ResolvedRequest(1e9)], [np.arange(3, dtype=np.int32)])
    with pytest.raises(ValueError, match="found other features than for a batch without candidates: width"):
        builder.matrix(batch)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("title",), """extra has 'title'; expected a function as "package.module:function\""""),
        (("a b:c",), "extra has 'a b:c'"),
        ((OWN, OWN), f"extra has {OWN} twice"),
    ],
)
def test_an_invalid_path_is_refused(extra: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSettings(extra=extra)


def test_a_module_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("import numpy as np\nnp.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExtraFamilyError, match=r"'half_written:f': AttributeError: .*no_such_name"):
        load_extra_families(["half_written:f"])


def test_a_custom_family_is_trained_and_explained(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedrank.api import compose, config
    from feedrank.api.home_paths import HomePaths

    text = toyworld.CONFIG + f'\n[features]\nextra = ["{OWN}"]\n'
    (home / "feedrank.toml").write_text(text)
    feedrank(home, "train", "--name", "own")
    folder = home / "bundles" / "own"
    assert bundle.read_manifest(folder)["features"]["extra"] == [OWN]
    listed = json.loads(feedrank(home, "features", "--bundle", "own", "--json"))
    for feature, entry in zip((custom_features.TITLE_LENGTH, custom_features.TITLE_AGE), listed[-2:], strict=True):
        assert asdict(feature).items() <= entry.items()

    paths = HomePaths(home)
    recommender = compose.build_recommender(paths, config.load_config(paths.config))
    client = create_app(Service(recommender, lambda: toyworld.END / 1000)).test_client()
    feed = client.post("/v1/recommend", json={"user": "p0", "n": 3}).json
    explained = client.get(f"/v1/rankings/{feed['ranking']}/explain").json
    shares = ("missing_share", "gain_share")
    plain = [{name: value for name, value in entry.items() if name not in shares} for entry in listed]
    assert explained["features"] == plain
    for item in explained["items"]:
        assert item["explanation"]["features"].keys() == {feature["name"] for feature in listed}
        title = recommender.catalogue.titles[recommender.catalogue.ids.row(item["id"])]
        assert item["explanation"]["features"]["title_length"] == len(title)

    # the bundle remembers its families, whatever the config says now
    (home / "feedrank.toml").write_text(toyworld.CONFIG)
    assert bundle.load(folder).builder.names[-2:] == ("title_length", "title_age")
    monkeypatch.setitem(sys.modules, "custom_features", None)
    with pytest.raises(BundleError, match=f"own was trained with an extra .*'{OWN}'.*PYTHONPATH"):
        bundle.load(folder)
    message = feedrank(home, "features", "--bundle", "own", code=1)
    assert len(message.strip().splitlines()) == 1


def test_a_wrong_path_is_refused_before_the_training(home: Path) -> None:
    (home / "feedrank.toml").write_text('[features]\nextra = ["no_such_module:f"]\n')
    message = feedrank(home, "train", code=1)
    assert "no_such_module:f" in message
    assert not list((home / "bundles").glob(".lambdarank*"))


# --- the command


def test_features_lists_what_the_config_gives(tmp_path: Path) -> None:
    shown = feedrank(tmp_path, "features")
    for feature in all_features():
        assert feature.name in shown
    assert "141 features" in shown
    assert "only exist with a model in [cross_encoder]" in shown
    listed = json.loads(feedrank(tmp_path, "features", "--json"))
    assert listed == [asdict(feature) for feature in all_features()]
    (tmp_path / "feedrank.toml").write_text(
        f'[items]\nease_items = 0\n[state]\nhalf_lives_h = [3]\n[features]\nextra = ["{OWN}"]\n'
    )
    names = {feature["name"] for feature in json.loads(feedrank(tmp_path, "features", "--json"))}
    assert {"ctr_3h", "title_length"} <= names
    assert not any(name.startswith(("ease_", "slist_")) for name in names)


def test_features_of_one_family(tmp_path: Path) -> None:
    listed = json.loads(feedrank(tmp_path, "features", "--family", "recency", "--json"))
    assert [feature["name"] for feature in listed] == [
        "item_age_h", "since_interaction_h", "since_published_h", "recent_impressions",
    ]  # fmt: skip
    assert "2 features\n" in feedrank(tmp_path, "features", "--family", "bm25")
    message = feedrank(tmp_path, "features", "--family", "colour", code=1)
    assert "found no features of the family 'colour'; there are recall, bm25" in message


def test_features_of_a_bundle(interactions_home: Path) -> None:
    listed = json.loads(feedrank(interactions_home, "features", "--bundle", "current", "--json"))
    shares = [(entry.pop("missing_share"), entry.pop("gain_share")) for entry in listed]
    assert listed == [asdict(feature) for feature in all_features(parts=PLAIN)]
    assert all(0 <= missing <= 1 for missing, _ in shares)
    assert sum(gain for _, gain in shares) == pytest.approx(1)
    assert "132 features" in feedrank(interactions_home, "features", "--bundle", "toy").splitlines()[-1]
    assert "none" in feedrank(interactions_home, "features", "--bundle", "none", code=1)
