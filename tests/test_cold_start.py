"""Cold-start items: old rows keep their bits, and new items get the vectors that training would give them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.engine.events.arrived_events import arrived_events_to_table
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.retrieval.embedding_space import EmbeddingSpace, unit_rows
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever
from feedrank.engine.types import UNKNOWN_ROW, Matrix, ResolvedRequest
from feedrank.features.bm25 import Bm25Retriever, TermWeights
from feedrank.features.builder import FeatureBuilder
from feedrank.features.item_model import ItemModel, UserItemVectors
from feedrank.features.late_interaction import TokenVectors, quantize
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.items.cold_start import (
    CONTENT_VIEWS,
    ColdStartExtender,
    merge_catalogue,
    merge_item_fields,
    update_fields,
)
from feedrank.models.items.item_model import ItemSettings, fit_item_views
from feedrank.models.items.user_histories import UserHistories

N, WIDTH, USERS, START = 160, 12, 20, 1_700_000_000_000
DAY = 86_400_000
SPEC = StateSpec(half_lives_h=(1.0, 24.0, math.inf), history_length=20)
Items = dict[str, dict[str, FieldValue]]
WORDS = ("red", "green", "blue", "shoe", "hat", "coat")


def items_of(random: np.random.Generator, count: int, prefix: str = "i") -> Items:
    return {
        f"{prefix}{row}": {
            "title": " ".join(random.choice(WORDS, 3)),
            "category": [f"c{code}" for code in random.permutation(4)[: row % 3]],
            "published": float(START - int(random.integers(0, 1_000)) * DAY),
            "price": float(row),
        }
        for row in range(count)
    }


def tokens_of(random: np.random.Generator, count: int) -> TokenVectors:
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, 5, count))]).astype(np.int64)
    return TokenVectors(quantize(unit_rows(random.normal(size=(offsets[-1], 6)).astype(np.float32))), offsets)


def text_of(random: np.random.Generator, count: int) -> Matrix:
    return unit_rows((random.normal(size=(count, WIDTH)) + 0.7).astype(np.float32))


World = tuple[ItemModel, BehaviouralState, Matrix]


def fitted(width: int = WIDTH) -> World:
    """Fit an item model on random interactions, and a state of the same events. The last items have none."""
    random = np.random.default_rng(4)
    catalogue, text = Catalogue.from_items(items_of(random, N)), text_of(random, N)[:, :width]
    text[3] = 0  # an item without a text
    events: list[Event] = []
    for n in range(3_000):
        at, user = START + n * 60_000, f"u{random.integers(0, USERS)}"
        if n % 4 == 0:
            shown = tuple(f"i{row}" for row in random.permutation(N)[:6])
            events.append(RankingEvent(f"r{n}", at, shown, user))
        else:
            item, value = f"i{random.integers(0, N - 20)}", float(random.integers(1, 6))
            events.append(InteractionEvent(f"e{n}", at, item, "rating", None, user, value=value))
    log, state = events_to_table(events, catalogue.ids), BehaviouralState(catalogue, SPEC)
    state.advance(log)
    chosen = ItemSettings(cooccurrence_rank=6, transition_rank=6, ease_items=20, neighbours=15)
    item_views = fit_item_views(
        catalogue, text, TermWeights.fit(catalogue.documents()), UserHistories.from_log(log), chosen
    )
    return replace(item_views, token_vectors=tokens_of(random, N), model_digests={"text": "x"}), state, text


@pytest.fixture(scope="module")
def world() -> World:
    return fitted()


NEW: Items = {
    "新-ø": {"title": "red red unheard-of shoe", "category": ["c2", "新しい"], "published": float(START)},
    "plain": {},
    "n2": {"title": "coat", "category": "c9", "tags": ["t"], "price": 7.0},
}
NEW_EVENTS = [ItemEvent(f"item {item}", START, item, fields) for item, fields in NEW.items()]
VECTORS = text_of(np.random.default_rng(9), len(NEW))
TOKENS = tokens_of(np.random.default_rng(10), len(NEW))


def documents(items: Items) -> list[str]:
    return Catalogue.from_items(items).documents()


def extended(item_model: ItemModel, by: ColdStartExtender | None = None) -> ItemModel:
    return (by or ColdStartExtender(item_model)).extend(item_model, NEW, VECTORS, documents(NEW), TOKENS)


def parts(item_model: ItemModel, rows: Sequence[int]) -> Iterator[tuple[str, Any]]:
    """Yield every part of an item model, row by row."""
    catalogue, space, terms, tokens = (
        item_model.catalogue,
        item_model.space,
        item_model.term_weights,
        item_model.token_vectors,
    )
    chosen = np.array(rows, np.int64)
    flat: dict[str, tuple[np.ndarray, ...]] = {
        "categories": (catalogue.category_offsets, catalogue.category_codes),
        "terms": (terms.offsets, terms.term_codes, terms.weights, terms.term_counts),
    }
    flat |= {f"item-item {name}": tuple(table) for name, table in item_model.item_item.items()}
    flat |= {} if tokens is None else {"tokens": (tokens.offsets, tokens.values)}
    arrays = {"published": catalogue.published, "item side": space.item_side, "user side": space.user_side}
    for name, vectors in item_model.vectors.items():
        arrays |= {f"{name} user side": vectors.user_side, f"{name} item side": vectors.item_side}
    arrays |= dict(item_model.item_stats)
    yield "ids", catalogue.ids.names(chosen)
    for name in ("titles", "texts", "tags", "fields"):
        yield name, [getattr(catalogue, name)[row] for row in rows]
    for name, array in arrays.items():
        yield name, array[chosen]
    for name, (bounds, *values) in flat.items():
        for position, array in enumerate(values):
            yield f"{name} {position}", [array[bounds[row] : bounds[row + 1]].tobytes() for row in rows]


def same(a: ItemModel, b: ItemModel, rows: Sequence[int]) -> None:
    for (name, one), (_, other) in zip(parts(a, rows), parts(b, rows), strict=True):
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert one.tobytes() == other.tobytes(), name
        else:
            assert one == other, name


def cosines(a: ItemModel, b: ItemModel, rows: slice) -> dict[str, float]:
    """The smallest cosine between the vectors of two item models, by content view."""
    return {
        f"{name} {side}": float(np.einsum("nd,nd->n", a.vectors[name][side][rows], b.vectors[name][side][rows]).min())
        for name in CONTENT_VIEWS
        for side in (0, 1)
    }


def first_items(item_model: ItemModel, m: int) -> ItemModel:
    """Cut an item model to its first m items, without the item-item matrices."""
    space, terms, end = item_model.space, item_model.term_weights, int(item_model.term_weights.offsets[m])
    return ItemModel(
        catalogue=Catalogue.from_items(dict(list(item_model.catalogue.to_items().items())[:m])),
        space=EmbeddingSpace(space.blocks, space.item_side[:m], space.user_side[:m], space.decay, space.history_length),
        vectors={
            name: UserItemVectors(block.user_side[:m], block.item_side[:m])
            for name, block in item_model.vectors.items()
        },
        item_item={},
        term_weights=replace(
            terms,
            term_codes=terms.term_codes[:end],
            weights=terms.weights[:end],
            term_counts=terms.term_counts[:end],
            offsets=terms.offsets[: m + 1],
        ),
        item_stats={name: column[:m] for name, column in item_model.item_stats.items()},
    )


# --- old items


def test_old_rows_keep_their_bits_and_new_rows_follow(world: World) -> None:
    item_model, _, _ = world
    before = list(parts(item_model, range(N)))
    grown = extended(item_model)
    same(grown, item_model, range(N))
    assert str(before) == str(list(parts(item_model, range(N))))  # the old model is unchanged
    assert list(grown.catalogue.ids)[N:] == list(NEW)
    assert grown.model_digests == item_model.model_digests
    assert grown.vectors["text"].item_side is grown.vectors["text"].user_side
    for name, vectors in grown.vectors.items():
        if name not in CONTENT_VIEWS:
            assert not vectors.user_side[N:].any()
            assert not vectors.item_side[N:].any()
    assert all(np.all(np.diff(table.offsets[N:]) == 0) for table in grown.item_item.values())
    assert grown.token_vectors is not None
    assert grown.token_vectors.values[int(grown.token_vectors.offsets[N]) :].tobytes() == TOKENS.values.tobytes()
    statistics = {name: column[N:].tolist() for name, column in grown.item_stats.items()}
    assert statistics["interaction_count"] == [0, 0, 0]
    assert statistics["mean_value"] == pytest.approx([float(item_model.item_stats["mean_value"][N - 1])] * 3, abs=1e-5)
    assert str(statistics["published"]) == str([float(np.float32(START / DAY)), math.nan, math.nan])


def test_features_of_old_items_keep_their_bits(world: World) -> None:
    item_model, state, _ = world
    grown = extended(item_model)
    old, new = FeatureBuilder(item_model, SPEC), FeatureBuilder(grown, SPEC)
    assert (new.fingerprint, new.names) == (old.fingerprint, old.names)
    random = np.random.default_rng(3)
    requests, candidates = [], []
    for user in range(UNKNOWN_ROW, USERS):
        history, times = state.history(user)
        query = "red shoe" if user % 2 else ""
        vector = text_of(random, 1)[0] if query else None
        requests.append(ResolvedRequest(START / 1000 + 10**6, user, history, times, history, query, vector))
        candidates.append(random.integers(UNKNOWN_ROW, N, 30).astype(np.int32))
    batch = state.read(requests, candidates)
    state.advance(arrived_events_to_table(NEW_EVENTS, ItemArrivals(state.items, state.item_fields), Vocabulary()))
    assert list(state.items) == list(grown.catalogue.ids)
    larger = state.read(requests, candidates)
    # how usual a category is, is counted over the catalogue: the shares of the bundle go on where it grows
    new.category_shares = np.concatenate([old.category_shares, new.category_shares[len(old.category_shares) :]])
    expected = old.matrix(batch)
    for found in (new.matrix(batch), new.matrix(larger)):
        differ = [
            name for position, name in enumerate(old.names)
            if not np.array_equal(found[:, position], expected[:, position], equal_nan=True)
        ]  # fmt: skip
        assert differ == []
    # and cold-start items have features like any other
    whole = new.matrix(state.read(requests[1:2], [np.arange(N, N + 3)]))
    assert np.isfinite(whole[:, [new.names.index(name) for name in ("recall_score", "bm25", "content_decay1")]]).all()


def test_extending_by_nothing(world: World) -> None:
    item_model, _, _ = world
    assert ColdStartExtender(item_model).extend(item_model, {}, np.zeros((0, WIDTH), np.float32), []) is item_model


def test_extending_one_by_one_equals_extending_at_once(world: World) -> None:
    item_model, _, _ = world
    extender, grown = ColdStartExtender(item_model), item_model
    for position, (item, fields) in enumerate(NEW.items()):
        bounds = TOKENS.offsets[position : position + 2]
        tokens = TokenVectors(TOKENS.values[bounds[0] : bounds[1]], bounds - bounds[0])
        grown = extender.extend(
            grown, {item: fields}, VECTORS[position : position + 1], documents({item: fields}), tokens
        )
    same(grown, extended(item_model), range(N + len(NEW)))
    assert list(grown.catalogue.categories) == list(extended(item_model).catalogue.categories)


def test_an_older_item_model_never_changes(world: World) -> None:
    """Models extended from the same one share memory, and all keep their values."""
    item_model, _, _ = world
    extender = ColdStartExtender(item_model)
    ours = extended(item_model, extender)
    before = str(list(parts(ours, range(N + 3))))
    theirs = extender.extend(item_model, {"other": {"title": "hat hat"}}, VECTORS[:1], ["hat hat"])
    later = extender.extend(ours, {"later": {"title": "blue"}}, VECTORS[1:2], ["blue"])
    extender.extend(later, {"i0": {"title": "green"}, "last": {}}, VECTORS[:2], ["green", ""])
    assert str(list(parts(ours, range(N + 3)))) == before
    same(later, ours, range(N + 3))
    same(theirs, item_model, range(N))
    assert theirs.catalogue.titles[N:] == ("hat hat",)


# --- new items


def test_held_out_items_get_the_vectors_that_training_gave_them(world: World) -> None:
    item_model, _, text = world
    m, items = N - 20, item_model.catalogue.to_items()
    base = first_items(item_model, m)
    rest = {item: items[item] for item in list(items)[m:]}
    grown = ColdStartExtender(base).extend(base, rest, text[m:], documents(rest))
    assert min(cosines(grown, item_model, slice(m, N)).values()) > 0.998
    assert np.allclose(grown.space.item_side[m:, :WIDTH], item_model.space.item_side[m:, :WIDTH], atol=1e-6)
    assert np.allclose(np.linalg.norm(grown.vectors["content"].item_side[m:], axis=1), 1)


def test_a_copy_of_an_item_without_interactions_gets_its_vectors(world: World) -> None:
    item_model, _, text = world
    twin = {"twin": item_model.catalogue.to_items()[f"i{N - 1}"]}
    grown = ColdStartExtender(item_model).extend(item_model, twin, text[-1:], documents(twin))
    for vectors in (grown.vectors[name] for name in CONTENT_VIEWS):
        assert np.allclose(vectors.item_side[N], vectors.item_side[N - 1], atol=1e-3)
    terms = grown.term_weights
    own, others = (slice(int(terms.offsets[row]), int(terms.offsets[row + 1])) for row in (N, N - 1))
    assert terms.term_codes[own].tolist() == terms.term_codes[others].tolist()
    assert np.allclose(terms.weights[own], terms.weights[others], rtol=1e-6)


def test_an_item_without_a_text_has_no_text_vectors(world: World) -> None:
    item_model, _, _ = world
    fields: Items = {"bare": {"category": "c1"}, "empty": {}}
    grown = ColdStartExtender(item_model).extend(item_model, fields, np.zeros((2, 0), np.float32), ["", ""])
    assert not grown.space.item_side[N:].any()
    assert not grown.vectors["text"].item_side[N:].any()
    assert not grown.vectors["content"].item_side[N + 1].any()
    like = item_model.vectors["content"].item_side  # the one old item without a text is of no category
    assert not like[3].any()
    assert np.linalg.norm(grown.vectors["content"].item_side[N]) == pytest.approx(1)


def test_without_text_categories_give_the_content_vectors() -> None:
    item_model, _, _ = fitted(width=0)
    grown = ColdStartExtender(item_model).extend(item_model, NEW, np.zeros((3, 0), np.float32), documents(NEW))
    assert grown.vectors["text"].item_side.shape == (N + 3, 0)
    twin = next(row for row in range(N) if item_model.catalogue.category_names(row) == ["c2"])
    assert np.allclose(grown.vectors["content"].item_side[N], item_model.vectors["content"].item_side[twin], atol=1e-2)


def test_bm25_terms_of_a_cold_start_item_computed_by_hand(world: World) -> None:
    item_model, _, _ = world
    term_weights = extended(item_model).term_weights
    analysed = [set(document.replace(".", "").split()) for document in item_model.catalogue.documents()]
    lengths = [len(document.split()) for document in item_model.catalogue.documents()]
    n, mean = len(analysed), sum(lengths) / sum(length > 0 for length in lengths)
    document = documents(NEW)[0]
    assert document == "red red unheard-of shoe. c2 新しい"
    expected = {}
    for term, count in {"red": 2, "unheardof": 1, "unheard": 1, "of": 1, "shoe": 1, "c2": 1, "新し": 1}.items():
        holding = max(sum(term in one for one in analysed), 1)  # a new word counts as if one item had it
        idf = math.log(1 + (n - holding + 0.5) / (holding + 0.5))
        # eight words: red red unheard of shoe c2, and the two bigrams of a script without spaces
        expected[term] = idf * count * 2.5 / (count + 1.5 * (0.25 + 0.75 * 8 / mean))
    part = slice(int(term_weights.offsets[N]), int(term_weights.offsets[N + 1]))
    found = dict(
        zip(term_weights.terms.names(term_weights.term_codes[part]), term_weights.weights[part].tolist(), strict=True)
    )
    assert list(found) == ["red", "unheardof", "unheard", "of", "shoe", "c2", "新し", "新", "しい", "し", "い"]
    assert {term: found[term] for term in expected} == pytest.approx(expected, rel=1e-6)
    assert term_weights.term_counts[part].tolist() == [2] + [1] * 10
    assert term_weights.offsets[N + 1] == term_weights.offsets[N + 2]  # of an item without words
    request = ResolvedRequest(0.0, query="red")
    assert N in Bm25Retriever(extended(item_model).catalogue, term_weights).retrieve(request, N + 3).rows


def test_a_cold_start_item_is_found_by_text(world: World) -> None:
    item_model, _, _ = world
    grown = extended(item_model)
    exact = ExactIndex(grown.space.item_side, "dot")
    retriever = EmbeddingRetriever(grown.catalogue, grown.space, exact)
    for position in range(len(NEW)):
        found = retriever.retrieve(ResolvedRequest(0.0, query="x", query_vector=VECTORS[position]), 5)
        assert (found.rows[0], found.scores[0]) == (N + position, pytest.approx(1, abs=1e-4))
    # and it leads to what is like it
    request = ResolvedRequest(0.0, history=np.array([N], np.int32), history_at=np.zeros(1))
    assert len(retriever.retrieve(request, 5).rows) == 5


def test_new_categories_come_after_the_old_ones(world: World) -> None:
    item_model, _, _ = world
    new, old = extended(item_model).catalogue, list(item_model.catalogue.categories)
    assert list(new.categories) == [*old, "新しい", "c9"]
    assert "新しい" not in item_model.catalogue.categories
    assert new.ids.row("新-ø") == N
    assert new.category_names(N) == ["c2", "新しい"]
    assert new.rows_in_categories(new.categories.rows(["c9", "新しい"])).tolist() == [N, N + 2]
    assert new.to_items()["n2"] == {"title": "coat", "category": ["c9"], "tags": ["t"], "price": 7.0}


@pytest.mark.parametrize(
    ("text", "documents", "tokens", "reason"),
    [
        (VECTORS[:2], ["", "", ""], None, "'text vectors': 2"),
        (VECTORS[:, :5], ["", "", ""], None, f"5 dimensions, expected 3 of each and {WIDTH}"),
        (VECTORS, [""], None, "'documents': 1"),
        (VECTORS, ["", "", ""], tokens_of(np.random.default_rng(1), 2), "'token vectors': 2"),
        (VECTORS, ["", "", ""], TokenVectors(np.zeros((0, 6), np.float32), np.zeros(4, np.int64)), "expected int8"),
    ],
)
def test_inputs_of_different_lengths_are_refused(
    world: World, text: Matrix, documents: list[str], tokens: TokenVectors | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ColdStartExtender(world[0]).extend(world[0], NEW, text, documents, tokens)


# --- known items that change


def test_a_known_item_whose_text_changes(world: World) -> None:
    item_model, _, text = world
    items: Items = {"i7": {"title": "green hat", "category": ["c1", "c7"]}, "new": {"title": "coat"}, "i2": {}}
    merged = merge_item_fields(item_model.catalogue, items)
    assert merged["i7"]["price"] == 7.0
    vectors = np.concatenate([VECTORS[:2], text[2:3]])
    grown = ColdStartExtender(item_model).extend(item_model, items, vectors, documents(merged), TOKENS)
    same(grown, item_model, [row for row in range(N) if row not in (2, 7)])
    catalogue, terms, tokens = grown.catalogue, grown.term_weights, grown.token_vectors
    assert (catalogue.titles[7], catalogue.category_names(7)) == ("green hat", ["c1", "c7"])
    assert (catalogue.titles[2], catalogue.ids.row("new")) == (item_model.catalogue.titles[2], N)
    assert terms.terms.names(terms.term_codes[terms.offsets[7] : terms.offsets[8]]) == ["green", "hat", "c1", "c7"]
    assert tokens is not None
    assert (
        tokens.values[tokens.offsets[7] : tokens.offsets[8]].tobytes() == TOKENS.values[: TOKENS.offsets[1]].tobytes()
    )
    view = grown.space.block("text")
    assert np.allclose(grown.space.item_side[7, view.slice], VECTORS[0] * np.sqrt(view.weight))
    assert np.array_equal(grown.space.item_side[7, view.stop :], item_model.space.item_side[7, view.stop :])
    for name in ("cooccurrence", "transition"):
        assert np.array_equal(grown.vectors[name].user_side[:N], item_model.vectors[name].user_side)
    assert np.allclose(grown.vectors["content"].item_side[2], item_model.vectors["content"].item_side[2], atol=1e-3)
    for name in ("interaction_count", "mean_value"):
        assert np.array_equal(grown.item_stats[name][:N], item_model.item_stats[name])


def test_a_known_item_whose_text_stays(world: World) -> None:
    item_model, _, _ = world
    grown = update_fields(item_model, {"i5": {"price": 3.5, "published": float(START)}})
    same(grown, item_model, [row for row in range(N) if row != 5])
    assert grown.catalogue.fields[5] == {"price": 3.5}
    assert grown.item_stats["published"][5] == np.float32(START / DAY)
    assert grown.vectors is item_model.vectors
    assert grown.catalogue.documents()[5] == item_model.catalogue.documents()[5]
    with pytest.raises(ValueError, match=f"{N} rows for {N + 1} items"):
        update_fields(item_model, {"new": {}})


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["", "a", "ø b"]),
        "text": st.sampled_from(["", "words"]),
        "category": st.sampled_from(["", "x", ["y", "x"], ["z"], []]),
        "tags": st.sampled_from([["t"], [], "u"]),
        "published": st.sampled_from(["", float(START), 1.0, "2024-05-01T00:00:00Z"]),
        "price": st.floats(0, 9),
    },
)
CHANGED = st.lists(st.tuples(st.sampled_from(["a", "b", "ç", "新"]), FIELDS), max_size=8)


@settings(deadline=None, max_examples=60)
@given(before=CHANGED, after=CHANGED)
def test_merged_catalogues_equal_one_built_from_all_events(
    before: list[tuple[str, dict[str, FieldValue]]], after: list[tuple[str, dict[str, FieldValue]]]
) -> None:
    events = [ItemEvent(str(n), n, item, fields) for n, (item, fields) in enumerate(before + after)]
    old = Catalogue.from_events(events[: len(before)])
    merged = old
    for item, fields in after:
        merged = merge_catalogue(merged, {item: fields})
    whole = Catalogue.from_events(events)
    assert merged.to_items() == whole.to_items()
    assert list(merged.ids) == list(whole.ids)
    assert list(merged.categories)[: len(old.categories)] == list(old.categories)
    assert merged.documents() == whole.documents()
