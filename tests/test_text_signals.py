"""Each kind of text model: its public format loads, its scores equal those of the library, and it serves feeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyworld
from conftest import feedrank

from benchmarks import checkpoints
from feedrank.api import compose, config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.types import QueryVectors
from feedrank.features.bm25 import Bm25Retriever, TermWeights
from feedrank.features.late_interaction import MAX_HISTORY_ITEMS, TokenVectors, maxsim_scores, quantize
from feedrank.models.text.cross_encoder_export import CrossEncoderSettings, export_cached
from feedrank.models.text.cross_encoder_model import CrossEncoderModel
from feedrank.models.text.embedder import EmbedderSettings, SentenceEmbedder
from feedrank.models.text.model_weights import WeightsNotFoundError
from feedrank.models.text.token_encoder import LateInteractionSettings, TokenEncoder, is_colbert

TEXTS = ["the rocket book about the moon", "bread and soup", "a violin, a drum and a guitar!", "whale"]
QUERIES = ["what is the moon", "who made the bread"]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("checkpoints")
    question, context = checkpoints.dpr(folder / "dpr")
    return {
        "bert": checkpoints.bert(folder / "bert"),
        "roberta": checkpoints.roberta(folder / "roberta"),
        "question": question,
        "context": context,
        "colbert": checkpoints.colbert(folder / "colbert"),
        "cross": checkpoints.cross_encoder(folder / "cross"),
        "cross-roberta": checkpoints.roberta_cross_encoder(folder / "cross-roberta"),
    }


def hidden(folder: Path, texts: list[str]) -> tuple[Any, Any]:
    """Token states by transformers alone, and the mask."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(str(folder))(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(str(folder)).eval()(**tokens).last_hidden_state
    return states.numpy(), tokens["attention_mask"].numpy()[:, :, None]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", [None, "mean", "cls"])
def test_a_plain_checkpoint_is_pooled(model_folders: dict[str, Any], kind: str, pooling: str | None) -> None:
    embedder = SentenceEmbedder(EmbedderSettings(str(model_folders[kind]), pooling=pooling))
    states, mask = hidden(model_folders[kind], TEXTS)
    expected = states[:, 0] if pooling == "cls" else (states * mask).sum(axis=1) / mask.sum(axis=1)
    np.testing.assert_allclose(embedder.encode(TEXTS), unit_rows(expected), atol=CLOSE)
    np.testing.assert_allclose(embedder.encode_query(TEXTS[0]), unit_rows(expected)[0], atol=CLOSE)


def test_a_dpr_pair_has_a_tower_for_each_side(model_folders: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

    def pooled(kind: Any, folder: Path, texts: list[str]) -> Any:
        tokens = AutoTokenizer.from_pretrained(str(folder))(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            return kind.from_pretrained(str(folder)).eval()(**tokens).pooler_output.numpy()

    embedder = SentenceEmbedder(
        EmbedderSettings(str(model_folders["context"]), query_model=str(model_folders["question"])), tmp_path
    )
    items = pooled(DPRContextEncoder, model_folders["context"], TEXTS)
    np.testing.assert_allclose(embedder.encode(TEXTS), items, atol=CLOSE)
    np.testing.assert_allclose(embedder.encode(TEXTS), items, atol=CLOSE)  # now by the cache
    query_vectors = pooled(DPRQuestionEncoder, model_folders["question"], QUERIES)
    found = np.stack([embedder.encode_query(query) for query in QUERIES])
    np.testing.assert_allclose(found @ embedder.encode(TEXTS).T, query_vectors @ items.T, atol=CLOSE)
    assert np.linalg.norm(items, axis=1).std() > 0, "lengths carry meaning and are kept"


def test_prompts_and_lengths(model_folders: dict[str, Any], tmp_path: Path) -> None:
    plain = SentenceEmbedder(EmbedderSettings(str(model_folders["bert"])), tmp_path)
    prompted = SentenceEmbedder(
        EmbedderSettings(str(model_folders["bert"]), query_prompt="what is ", item_prompt="a book ", normalise=False),
        tmp_path,
    )
    states, mask = hidden(model_folders["bert"], ["a book whale", "what is whale"])
    expected = (states * mask).sum(axis=1) / mask.sum(axis=1)
    np.testing.assert_allclose(prompted.encode(["whale"])[0], expected[0], atol=CLOSE)
    np.testing.assert_allclose(prompted.encode_query("whale"), expected[1], atol=CLOSE)
    assert not np.allclose(plain.encode(["whale"]), prompted.encode(["whale"])), "each has a cache of its own"
    assert plain.digest != prompted.digest


def test_a_static_model_and_a_router(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = checkpoints._wordpieces()
    towers = [StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8) for _ in range(2)]
    SentenceTransformer(modules=[towers[0]], device="cpu").save_pretrained(str(tmp_path / "static"))
    embedder = SentenceEmbedder(EmbedderSettings(str(tmp_path / "static")))
    direct = SentenceTransformer(str(tmp_path / "static")).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode(TEXTS), direct, atol=CLOSE)
    router = Router.for_query_document(query_modules=[towers[0]], document_modules=[towers[1]])
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(tmp_path / "router"))
    split = SentenceEmbedder(EmbedderSettings(str(tmp_path / "router")))
    model = SentenceTransformer(str(tmp_path / "router"))
    np.testing.assert_allclose(split.encode_query(TEXTS[0]), unit_rows(model.encode_query([TEXTS[0]]))[0], atol=CLOSE)
    np.testing.assert_allclose(split.encode(TEXTS), unit_rows(model.encode_document(TEXTS)), atol=CLOSE)
    assert not np.allclose(split.encode_query(TEXTS[0]), split.encode(TEXTS)[0])


# --- late interaction


def maxsim(query: Any, tokens: Any) -> float:
    return float((query @ tokens.T).max(axis=1).mean())


def test_stanfords_colbert_scores_as_the_library_does(model_folders: dict[str, Any], tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    assert is_colbert(model_folders["colbert"])
    assert not is_colbert(model_folders["bert"])
    settings = LateInteractionSettings(str(model_folders["colbert"]), precision="float32", item_tokens=0)
    encoder = TokenEncoder(settings, tmp_path)
    tokens = encoder.encode_items(TEXTS)
    model = MultiVectorEncoder(str(model_folders["colbert"]))
    documents = [np.asarray(one) for one in model.encode_document(TEXTS)]
    rows = np.arange(len(TEXTS), dtype=np.int32)
    for query in QUERIES:
        asking = np.asarray(model.encode_query([query])[0])
        found = tokens.scores(tokens.encode_query(encoder.encode_query(query)), rows)
        np.testing.assert_allclose(found, [maxsim(asking, one) for one in documents], atol=CLOSE)
        direct = model.similarity(model.encode_query([query]), model.encode_document(TEXTS)).numpy()[0]
        assert np.argsort(-found).tolist() == np.argsort(-direct).tolist()
    again = TokenEncoder(settings, tmp_path).encode_items(TEXTS)
    np.testing.assert_array_equal(again.values, tokens.values)


@pytest.mark.parametrize("named", [True, False])
def test_pylates_colbert_scores_as_pylate_has_it(named: bool, tmp_path: Path) -> None:
    """By transformers alone: a token for the side after [CLS], masks up to the query's length, no punctuation."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    folder = checkpoints.pylate(tmp_path / "pylate", named)
    assert is_colbert(folder)
    tokenizer, model = AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder)).eval()
    dense = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"].numpy()

    def vectors(text: str, side: str, length: int, skipped: str) -> Any:
        start, *rest = tokenizer(text)["input_ids"]
        ids = [start, tokenizer.convert_tokens_to_ids(side), *rest]
        padded = ids + [tokenizer.mask_token_id] * (length - len(ids))
        attended = torch.tensor([[1] * len(ids) + [0] * (len(padded) - len(ids))])
        with torch.inference_mode():
            states = model(torch.tensor([padded]), attention_mask=attended).last_hidden_state[0].numpy()
        kept = ~np.isin(padded, tokenizer.convert_tokens_to_ids(list(skipped)))
        return unit_rows(states[kept] @ dense.T)

    encoder = TokenEncoder(LateInteractionSettings(str(folder), precision="float32", item_tokens=0))
    tokens = encoder.encode_items(TEXTS)
    documents = [vectors(text, "[D] ", 0, ".,!?") for text in TEXTS]
    for query in QUERIES:
        asking = vectors(query, "[Q] ", 12, "")
        found = tokens.scores(tokens.encode_query(encoder.encode_query(query)), np.arange(len(TEXTS), dtype=np.int32))
        np.testing.assert_allclose(found, [maxsim(asking, one) for one in documents], atol=CLOSE)


def test_the_librarys_own_format_is_known(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    folder = checkpoints.multi_vector(tmp_path)
    assert is_colbert(folder)
    tokens = TokenEncoder(LateInteractionSettings(str(folder), precision="float32", item_tokens=0)).encode_items(TEXTS)
    direct = MultiVectorEncoder(str(folder)).encode_document(TEXTS)
    for position, one in enumerate(direct):
        own = tokens.values[tokens.offsets[position] : tokens.offsets[position + 1]]
        np.testing.assert_allclose(own, np.asarray(one), atol=CLOSE)


def test_another_models_token_vectors(model_folders: dict[str, Any]) -> None:
    states, mask = hidden(model_folders["bert"], TEXTS)
    tokens = TokenEncoder(
        LateInteractionSettings(str(model_folders["bert"]), precision="float32", item_tokens=3)
    ).encode_items(TEXTS)
    for position, text in enumerate(TEXTS):
        inner = unit_rows(states[position][mask[position, :, 0] > 0][1:-1])[:3]
        own = tokens.values[tokens.offsets[position] : tokens.offsets[position + 1]]
        np.testing.assert_allclose(own, inner, atol=CLOSE, err_msg=text)


def test_storage_is_compact_and_still_orders(model_folders: dict[str, Any]) -> None:
    texts = [f"the {a} and the {b}" for a in checkpoints.WORDS[4:24] for b in checkpoints.WORDS[4:24]]
    exact = TokenEncoder(
        LateInteractionSettings(str(model_folders["bert"]), dimensions=0, precision="float32")
    ).encode_items(texts)
    small = TokenEncoder(
        LateInteractionSettings(str(model_folders["bert"]), dimensions=16, pool_factor=2)
    ).encode_items(texts)
    assert small.values.dtype == np.int8
    assert small.values.shape[1] == 16
    assert small.nbytes < exact.nbytes / 10
    whole = TokenEncoder(LateInteractionSettings(str(model_folders["bert"]), dimensions=0)).encode_items(texts)
    rows = np.arange(len(texts), dtype=np.int32)
    query = TokenEncoder(LateInteractionSettings(str(model_folders["bert"]))).encode_query("the moon and the soup")
    a, b = exact.scores(exact.encode_query(query), rows), whole.scores(whole.encode_query(query), rows)
    np.testing.assert_allclose(a, b, atol=0.02)


def test_late_interaction_queries_with_the_query_and_the_latest_items() -> None:
    from feedrank.engine.types import Batch

    random = np.random.default_rng(0)
    vectors = unit_rows(random.standard_normal((9, 4)).astype(np.float32))
    tokens = TokenVectors(quantize(vectors), np.array([0, 2, 2, 5, 9]))
    plain = tokens.values.astype(np.float32) / 127
    parts = [plain[a:b] for a, b in ((0, 2), (2, 2), (2, 5), (5, 9))]
    often = MAX_HISTORY_ITEMS - 2
    history = np.array([[2, 1, *[0] * often, 3], [-1] * (MAX_HISTORY_ITEMS + 1)], np.int32)  # the last is too old
    batch = Batch(
        at=np.zeros(2),
        rows=np.array([3, 1, -1, 0], np.int32),
        offsets=np.array([0, 3, 4]),
        history=history,
        history_at=np.zeros(history.shape),
        interaction_count=np.zeros(2, np.int64),
        impressions=np.zeros(4, np.float32),
        item_age=np.zeros(4, np.float32),
        since_interaction=np.zeros(4, np.float32),
        counters=np.zeros((4, 1), np.float32),
        query_tokens=(None, vectors[:2]),
    )
    found = maxsim_scores(tokens, batch)
    expected_scores = [maxsim(parts[2], parts[3]), *[maxsim(parts[0], parts[3])] * often]  # item 1 has no tokens
    np.testing.assert_allclose(
        found[0], [expected_scores[0], max(expected_scores), np.mean(expected_scores), np.nan], atol=1e-6
    )
    assert np.isnan(found[1:3]).all()
    np.testing.assert_allclose(found[3], [np.nan] * 3 + [maxsim(plain[:2], parts[0])], atol=1e-6)


# --- cross-encoders


@pytest.mark.parametrize(("kind", "int8"), [("cross", False), ("cross", True), ("cross-roberta", False)])
def test_a_cross_encoder_scores_as_the_library_does(
    model_folders: dict[str, Any], tmp_path: Path, kind: str, int8: bool
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    folder = export_cached(CrossEncoderSettings(str(model_folders[kind]), int8=int8), tmp_path)
    model = CrossEncoderModel(folder, threads=1)
    model.with_items(model.tokenize([*TEXTS, ""], 32))
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    direct = CrossEncoder(str(model_folders[kind])).predict(pairs, activation_fn=torch.nn.Identity())
    rows = np.array([*range(4), *range(4)], np.int32)
    found = model.score([query for query, _ in pairs], rows)
    assert np.std(direct) > 0.01
    if int8:
        assert np.corrcoef(found, direct)[0, 1] > 0.98, "weights in steps of 1/127 order nearly as before"
    else:
        np.testing.assert_allclose(found, direct, atol=CLOSE)
    assert np.isnan(model.score(["", "moon", "moon"], np.array([0, 4, -1], np.int32))).all()
    assert export_cached(CrossEncoderSettings(str(model_folders[kind]), int8=int8), tmp_path) == folder, "made once"


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta", "xlm-roberta", "distilbert"])
def test_a_last_layer_for_the_first_token_alone_leaves_scores_as_they_were(kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from feedrank.models.text.cls_only import cls_only_last_layer

    torch.manual_seed(3)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    if kind == "distilbert":
        shape = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
    config = AutoConfig.for_model(kind, vocab_size=90, num_labels=1, initializer_range=0.3, **shape)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    given = {"input_ids": torch.randint(5, 90, (6, 11)), "attention_mask": torch.ones(6, 11, dtype=torch.long)}
    given["attention_mask"][2:, 7:] = 0
    with torch.inference_mode():
        before = model(**given).logits
        after = cls_only_last_layer(model)(**given).logits
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_what_is_no_cross_encoder_is_refused(model_folders: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 2 outputs, expected one.*feedrank finetune cross-encoder"):
        export_cached(CrossEncoderSettings(str(model_folders["bert"])), tmp_path)
    with pytest.raises(WeightsNotFoundError, match="no model folder at"):
        export_cached(CrossEncoderSettings("/no/such/model"), tmp_path)


# --- end to end


def served(own: Path, toml: str, *arguments: str) -> list[dict[str, Any]]:
    """Train a home with this config and return the items of a feed."""
    with (own / "feedrank.toml").open("a") as file:
        file.write(toml)
    feedrank(own, "train", "--name", "other")
    found: list[dict[str, Any]] = json.loads(feedrank(own, "recommend", "--json", *arguments))["items"]
    return found


@pytest.mark.parametrize("kind", ["bert", "roberta", "dpr", "colbert", "cross", "none"])
def test_every_kind_serves_feeds(model_folders: dict[str, Any], home: Path, kind: str) -> None:
    toml = {
        "bert": f'[embedder]\nmodel = "{model_folders["bert"]}"\n',
        "roberta": f'[embedder]\nmodel = "{model_folders["roberta"]}"\npooling = "cls"\n',
        "dpr": f'[embedder]\nmodel = "{model_folders["context"]}"\nquery_model = "{model_folders["question"]}"\n',
        "colbert": f'[embedder]\nmodel = "none"\n[late_interaction]\nmodel = "{model_folders["colbert"]}"\n',
        "cross": '[embedder]\nmodel = "none"\n'
        f'[cross_encoder]\nmodel = "{model_folders["cross"]}"\ntop_k = 8\nthreads = 1\n',
        "none": '[embedder]\nmodel = "none"\n',
    }[kind]
    found = served(home, toml, "--user", "p0")
    assert toyworld.genre_of(found[0]["id"]) == "space"
    query_feed = json.loads(feedrank(home, "recommend", "--json", "--query", "the violin book"))
    assert query_feed["items"]
    if kind in ("colbert", "cross", "none"):
        assert query_feed["source"] == "bm25", "without an embedding, words find what a query asks for"
        assert kind == "cross" or query_feed["items"][0]["id"] == "music-0"
    manifest = json.loads((home / "bundles" / "other" / "manifest.json").read_text())
    signal = {"colbert": "late_interaction", "cross": "cross_encoder", "none": None}.get(kind, "text")
    assert (set(manifest["model_digests"]) == {signal}) if signal else not manifest["model_digests"]


def test_a_bundle_keeps_its_models_with_it(model_folders: dict[str, Any], home: Path, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(model_folders["cross"], tmp_path / "gone"))
    toml = f'[embedder]\nmodel = "none"\n[cross_encoder]\nmodel = "{gone}"\ntop_k = 5\nthreads = 1\n'
    found = served(home, toml, "--user", "p1")
    shutil.rmtree(gone)
    shutil.rmtree(home / "cache")
    again = json.loads(feedrank(home, "recommend", "--json", "--user", "p1"))["items"]
    assert [one["id"] for one in again] == [one["id"] for one in found]
    recommender = compose.build_recommender(HomePaths(home), config.load_config(home / "feedrank.toml"))
    ranking = recommender.pipeline.run(recommender.snapshot.resolve(2e9, RecommendationRequest("p1"), QueryVectors()))
    names = recommender.pipeline.featurizer.names
    scored = ~np.isnan(ranking.features[:, names.index("ce_score")])
    assert 5 <= scored.sum() <= 10, "the best of the first order, and what the feed before had scored"


def test_bm25_recall_finds_what_has_the_words() -> None:
    def build(catalogue: Any) -> Any:
        return Bm25Retriever(catalogue, TermWeights.fit(catalogue.documents()))

    from feedrank.engine.testing import toy_catalogue
    from feedrank.engine.types import Filters, ResolvedRequest

    retriever = build(toy_catalogue())
    request = ResolvedRequest(at=0.0, query="title 17", filters=Filters(deny=np.array([3], np.int32)))
    found = retriever.retrieve(request, 5)
    assert found.rows[0] == 17
    assert 3 not in found.rows
    assert len(retriever.retrieve(ResolvedRequest(at=0.0, query="nothing known"), 5).rows) == 0
    assert len(retriever.retrieve(ResolvedRequest(at=0.0), 5).rows) == 0
