"""Relevance models: public formats, WikiQA, the latency budget of a live feed, and what they do for ranking.

The cross-encoder and its student are trained here (some 40 minutes on two cores), unless FEEDRANK_MODELS names a folder
that has them. Data from FEEDRANK_DATA. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import checkpoints, wikiqa
from benchmarks.bars import DATA, PROJECT, Bar, console, measure
from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.retrieval.indexes import AnnoyIndex, ExactIndex

PEOPLE = 50
CLICKS_S = 20
"""Seconds in which each of the people clicks once."""


def relevance() -> list[Bar]:
    """All bars, in the order they were set."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = wikiqa.models_folder(work / "models")
        bars = [
            Bar("largest difference of scores from transformers and sentence-transformers used directly, six kinds",
                _differences(work / "tiny"), "", 1e-4, "lower"),
            Bar("cosine, Euclidean, dot: orders of 100 that differ from brute force, of 300", _orders(), "", 0,
                "lower"),
            *_wikiqa(models),
        ]  # fmt: skip
        home = _movielens(work / "demo", models)
        live = work / "live"  # what is served and clicked there is not to be evaluated on
        shutil.copytree(home, live, symlinks=True)
        bars += [*_live(live), _ready(live), *_small(work / "small")]
        bars += [*_ranking(work, models)]
    return bars


def _differences(folder: Path) -> float:
    """Embeddings of BERT, RoBERTa and a DPR pair, MaxSim of ColBERT, logits of a cross-encoder, BM25 by hand."""
    import torch
    from sentence_transformers import CrossEncoder, MultiVectorEncoder
    from transformers import AutoModel, AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

    from feedrank.features.bm25 import TermWeights
    from feedrank.features.term_counts import PositiveBm25
    from feedrank.models.text.cross_encoder_export import CrossEncoderSettings, export_cached
    from feedrank.models.text.cross_encoder_model import CrossEncoderModel
    from feedrank.models.text.embedder import EmbedderSettings, SentenceEmbedder
    from feedrank.models.text.token_encoder import LateInteractionSettings, TokenEncoder

    texts = ["the rocket book about the moon", "bread and soup", "a violin, a drum and a guitar!", "whale"]
    query = "what is the moon"
    apart: dict[str, float] = {}

    def states(kind: Any, path: Path, given: list[str]) -> tuple[Any, Any]:
        tokens = AutoTokenizer.from_pretrained(str(path))(given, padding=True, return_tensors="pt")
        with torch.inference_mode():
            return kind.from_pretrained(str(path)).eval()(**tokens), tokens["attention_mask"][:, :, None].numpy()

    for name, path in (("BERT", checkpoints.bert(folder / "b")), ("RoBERTa", checkpoints.roberta(folder / "r"))):
        out, mask = states(AutoModel, path, [*texts, query])
        direct = unit_rows((out.last_hidden_state.numpy() * mask).sum(axis=1) / mask.sum(axis=1))
        embedder = SentenceEmbedder(EmbedderSettings(str(path)))
        apart[name] = _far(embedder.encode(texts) @ embedder.encode_query(query), direct[:-1] @ direct[-1])
    question, context = checkpoints.dpr(folder / "dpr")
    embedder = SentenceEmbedder(EmbedderSettings(str(context), query_model=str(question)))
    items = states(DPRContextEncoder, context, texts)[0].pooler_output.numpy()
    asked = states(DPRQuestionEncoder, question, [query])[0].pooler_output.numpy()[0]
    apart["DPR"] = _far(embedder.encode(texts) @ embedder.encode_query(query), items @ asked)
    path = checkpoints.colbert(folder / "c")
    encoder = TokenEncoder(LateInteractionSettings(str(path), precision="float32", item_tokens=0))
    tokens, model = encoder.encode_items(texts), MultiVectorEncoder(str(path))
    asking, *documents = (np.asarray(one) for one in (*model.encode_query([query]), *model.encode_document(texts)))
    direct = np.array([(asking @ one.T).max(axis=1).mean() for one in documents])
    rows = np.arange(len(texts), dtype=np.int32)
    apart["ColBERT"] = _far(tokens.scores(tokens.encode_query(encoder.encode_query(query)), rows), direct)
    path = checkpoints.cross_encoder(folder / "x")
    pairs = CrossEncoderModel(export_cached(CrossEncoderSettings(str(path), int8=False), folder / "onnx"))
    pairs = pairs.with_items(pairs.tokenize(texts, 32))
    direct = CrossEncoder(str(path)).predict([(query, text) for text in texts], activation_fn=torch.nn.Identity())
    apart["cross-encoder"] = _far(pairs.score([query] * len(texts), rows), direct)
    terms = TermWeights.fit(texts)
    ours = np.zeros(len(texts))
    for row in range(len(texts)):
        own = slice(int(terms.offsets[row]), int(terms.offsets[row + 1]))
        ours[row] = terms.weights[own][np.isin(terms.term_codes[own], terms.encode_query(query))].sum()
    analyser = terms.analyser
    apart["BM25"] = _far(ours, PositiveBm25([analyser.query(text) for text in texts]).get_scores(analyser.query(query)))
    console.print({name: f"{value:.1e}" for name, value in apart.items()})
    return max(apart.values())


def _orders() -> float:
    """Annoy and the exact index against numpy, 100 vectors each metric."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 24)).astype(np.float32) * random.uniform(0.5, 2, (300, 1)).astype(np.float32)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for metric in ("cosine", "euclidean", "dot"):
            path = Path(folder) / f"{metric}.ann"
            AnnoyIndex.build(path, vectors, metric=metric, trees=60, search_k_factor=20, seed=1)
            annoy, exact = AnnoyIndex.load(path), ExactIndex(vectors, metric)
            for vector in random.standard_normal((100, 24)).astype(np.float32):
                direct = {
                    "cosine": unit_rows(vectors) @ (vector / np.linalg.norm(vector)),
                    "euclidean": -np.linalg.norm(vectors - vector, axis=1),
                    "dot": vectors @ vector,
                }[metric]
                best = np.argsort(-direct, kind="stable")[:100].tolist()
                wrong += any(index.search(vector, 100)[0].tolist() != best for index in (annoy, exact))
    return float(wrong)


def _wikiqa(models: Path) -> list[Bar]:
    import torch
    from sentence_transformers import CrossEncoder

    from feedrank.models.text.model_weights import DEFAULT_EMBEDDER
    from feedrank.models.text.token_encoder import LateInteractionSettings, TokenEncoder

    test = wikiqa.wikiqa("test")
    encoder = TokenEncoder(LateInteractionSettings(DEFAULT_EMBEDDER, item_tokens=0))
    tokens = encoder.encode_items(test.texts)
    place = {text: row for row, text in enumerate(test.texts)}

    def late(query: str, texts: list[str]) -> Any:
        return tokens.scores(
            tokens.encode_query(encoder.encode_query(query)), np.array([place[text] for text in texts], np.int32)
        )

    bars = [
        Bar("WikiQA test, MRR: late interaction, MiniLM as packaged", wikiqa.mean_reciprocal_rank(late, test), "", 0.73,
            "higher")
    ]  # fmt: skip
    minutes: dict[str, float] = {}
    for name, train in (("teacher", wikiqa.teacher), ("student", wikiqa.student)):
        if not (models / name / "feedrank.json").exists():
            train(models, lambda what, done, total: None)
        minutes[name] = _minutes(models, name)
    found = {}
    for name in ("teacher", "student"):
        model = CrossEncoder(str(models / name), device="cpu", activation_fn=torch.nn.Identity())
        score = lambda query, texts, model=model: model.predict([(query, text) for text in texts])  # noqa: E731
        found[name] = wikiqa.mean_reciprocal_rank(score, test)
    twenty = 20 * tokens.values.shape[1] * tokens.values.itemsize + 8
    return [
        *bars,
        Bar("WikiQA test, MRR: cross-encoder from packaged MiniLM", found["teacher"], "", 0.78, "higher"),
        Bar("its training", minutes["teacher"], "min", 30, "lower"),
        Bar("its distilled student: share of the teacher's MRR", found["student"] / found["teacher"], "", 0.95,
            "higher"),
        Bar("its distilled student: times as fast as the teacher, 100 pairs of 43 tokens, both float32",
            _faster(models), "x", 8, "higher"),
        Bar("late-interaction storage of an item of 20 tokens", twenty / 1000, "KB", 2.6, "lower"),
    ]  # fmt: skip


def _minutes(models: Path, name: str) -> float:
    cards = [models / name / "feedrank.json"] + ([models / "first" / "feedrank.json"] if name == "teacher" else [])
    return float(sum(json.loads(card.read_text())["seconds"] for card in cards)) / 60


def _faster(models: Path) -> float:
    """Median of paired ratios, by onnxruntime."""
    from feedrank.models.text.cross_encoder_export import CrossEncoderSettings, export_cached
    from feedrank.models.text.cross_encoder_model import CrossEncoderModel

    texts = ["the whale and the rocket in the old green book of the sea " * 3] * 100
    with tempfile.TemporaryDirectory() as folder:
        pair = [
            CrossEncoderModel(export_cached(CrossEncoderSettings(str(models / name), int8=False), Path(folder)))
            for name in ("teacher", "student")
        ]
        pair = [model.with_items(model.tokenize(texts, 32)) for model in pair]
        rows, ratios = np.arange(100, dtype=np.int32), []
        for step in range(8):
            seconds = []
            for model in pair:
                started = time.perf_counter()
                model.score(["what do the whale and the rocket say"] * 100, rows)
                seconds.append(time.perf_counter() - started)
            ratios += [seconds[0] / seconds[1]] if step else []
    return float(np.median(ratios))


def _movielens(home: Path, models: Path) -> Path:
    """A home on MovieLens-100K with late interaction and the student in a second phase, trained."""
    home.mkdir(parents=True)
    (home / "feedrank.toml").write_text(_signals(models))
    for command in (["import", "movielens-100k"], ["train", "--name", "signals"]):
        _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command])
    return home


def _signals(models: Path) -> str:
    return (
        '[late_interaction]\nmodel = "sentence-transformers/all-MiniLM-L6-v2"\n'
        f'[cross_encoder]\nmodel = "{models / "student"}"\n'
    )


def _live(home: Path) -> list[Bar]:
    """What the signals add to a request, in a process of its own; medians over people whose scores no cache has."""
    script = "from benchmarks.relevance import added; import sys; added(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(home)], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
    )
    late, student, best = map(float, done.stdout.split()[-3:])
    return [
        Bar("added to a live request of 100 candidates, p50: late interaction on all", late, "ms", 3, "lower"),
        Bar(f"the same: student cross-encoder on the best {best:.0f} of the first pass", student, "ms", 25, "lower"),
    ]


def added(folder: str) -> None:
    """Print the median milliseconds of the late-interaction family, and of the first pass with the student's scores."""
    from dataclasses import replace

    from feedrank.api import compose, server
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.serving.request import RecommendationRequest
    from feedrank.engine.types import QueryVectors
    from feedrank.features.late_interaction import maxsim_scores

    server.limit_blas_threads()
    home = HomePaths(Path(folder))
    recommender = compose.build_recommender(home, load_config(home.config))
    pipeline = recommender.pipeline
    second = pipeline.reranker
    assert second is not None
    builder: Any = pipeline.featurizer
    plain = replace(pipeline, reranker=None)
    people = np.random.default_rng(2).permutation(np.arange(1, 944))[:220].tolist()
    late, student, without = [], [], []
    for person in people:
        request = recommender.snapshot.resolve(time.time(), RecommendationRequest(str(person)), QueryVectors())
        found = pipeline.retriever.retrieve(request, 100)
        batch = pipeline.state.read([request], [found.rows])
        for run, seconds in (
            (lambda batch=batch: maxsim_scores(builder.item_model.token_vectors, batch), late),
            (lambda request=request: plain.run(request), without),
            (lambda request=request: pipeline.run(request), student),
        ):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
    more = np.array(student[20:]) - np.array(without[20:])
    print(1000 * np.median(late[20:]), 1000 * np.median(more), second.top_k)


def _ready(home: Path) -> Bar:
    """People who click once in 20 s, at random moments; then each asks for a feed: whose pairs were scored by then?"""
    from feedrank.api import compose
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.events.events import InteractionEvent
    from feedrank.engine.serving.request import RecommendationRequest

    place = HomePaths(home)
    recommender = compose.build_recommender(place, load_config(place.config))
    assert recommender.prefetch_queue is not None
    random = np.random.default_rng(5)
    people = random.permutation(np.arange(1, 944))[:PEOPLE].tolist()
    moments = np.sort(random.uniform(0, CLICKS_S, PEOPLE))
    known, total, started = 0, 0, time.perf_counter()
    waiting: list[tuple[float, str]] = []
    names = recommender.pipeline.featurizer.names

    def ask(user: str) -> None:
        nonlocal known, total
        event = recommender.recommend(f"ready {user} {time.time()}", time.time(), RecommendationRequest(user, n=100))
        from base64 import b64decode

        rows = np.frombuffer(b64decode(event.features.data), "<f4").reshape(len(event.items), -1)
        known += int(np.count_nonzero(~np.isnan(rows[:, names.index("ce_score")])))
        total += len(rows)

    second = recommender.pipeline.reranker
    assert second is not None
    object.__setattr__(second, "top_k", 0)  # what is not ready is not scored now: only what is ready counts
    for moment, person in zip(moments.tolist(), people, strict=True):
        while waiting and waiting[0][0] <= moment:
            ask(waiting.pop(0)[1])
        time.sleep(max(0.0, started + moment - time.perf_counter()))
        user, item = str(person), recommender.catalogue.ids.name(int(random.integers(0, 1_682)))
        recommender.record(
            [InteractionEvent(f"c {moment}", round(time.time() * 1000), item, "click", user=user)], time.time()
        )
        waiting.append((moment + 5, user))
    time.sleep(5)
    for _, user in waiting:
        ask(user)
    recommender.prefetch_queue.stop()
    return Bar(f"scores ready for the next feed, {PEOPLE} people clicking once in {CLICKS_S} s, feeds 5 s later",
               100 * known / total, "% of candidates", 90, "higher")  # fmt: skip


def _small(home: Path) -> list[Bar]:
    """BM25 and behaviour alone: what a server of one process takes."""
    home.mkdir()
    (home / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n[serve]\nworkers = 0\n')
    for command in (["import", "movielens-100k"], ["train", "--name", "words"]):
        _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command])
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "serve", "--port", "0", "--no-keys"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
            seconds.append(time.perf_counter() - started)
            memory = _asked_of(port, server.pid)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
    return [
        Bar("BM25 + features, no neural part: server start", float(np.median(seconds)), "s", 3, "lower"),
        Bar("BM25 + features, no neural part: memory after 100 feeds", memory, "MB", 300, "lower"),
    ]


def _asked_of(port: int, pid: int) -> float:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for person in range(1, 101):
        body = json.dumps({"user": str(person)} | ({"query": "star wars"} if person % 5 == 0 else {}))
        connection.request("POST", "/v1/recommend", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text(), "no torch in a server without neural parts"
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1000


def _ranking(work: Path, models: Path) -> list[Bar]:
    """Ranking with all signals: MIND by time, MovieLens last item out; intervals are printed by the command."""
    mind, usual = work / "mind", (PROJECT / "benchmarks" / "mind.toml").read_text()
    families = 'families = ["late_interaction", "cross_encoder", '
    # more columns for as few lists, more rankers whose mean is taken: chosen on the folds that the other settings were
    usual = usual.replace("ensemble_size = 5", "ensemble_size = 15")
    told = usual.replace("families = [", families) + _signals(models)
    config = work / "mind-signals.toml"
    config.write_text(told)
    for command in (
        ["import", str(DATA / "mind_sample")],
        ["evaluate", "--ablate", "--dataset", "mind", "--json", str(mind / "report.json")],
    ):
        _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(mind), "--config", str(config), *command])
    rows = _rows(mind / "report.json")
    home = work / "demo"
    report = ["--protocol", "last-item", "--ablate", "--json", str(home / "report.json")]
    _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "evaluate", *report])
    films = _rows(home / "report.json")
    return [
        Bar("MIND sample with all signals: AUC", rows["auc"], "", 0.69, "higher"),
        Bar("MIND sample with all signals: nDCG@10", rows["ndcg@10"], "", 0.41, "higher"),
        Bar("MovieLens-100K with all signals, last item out: recall@100", films["recall@100"], "", 0.60, "higher"),
        Bar("MovieLens-100K with all signals, last item out: nDCG@10", films["ndcg@10"], "", 0.11, "higher"),
        _no_worse("MIND sample, AUC", mind / "report.json"),
        _no_worse("MovieLens-100K, nDCG@10", home / "report.json"),
    ]


def _no_worse(what: str, path: Path) -> Bar:
    """What both optional neural signals add: no worse where 0 is not above the interval of the paired difference."""
    costs = json.loads(path.read_text())["costs"]
    ablation = next(value for name, value in costs.items() if name.endswith("ablation"))
    one = next(row for row in ablation["rows"] if row["signal"] == "late interaction and cross-encoder")
    interval = f"{one['gain']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
    return Bar(
        f"{what}: late interaction and cross-encoder add {interval}; its upper end", one["high"], "", 0, "higher"
    )


def _rows(path: Path) -> dict[str, float]:
    return {
        row["metric"]: row["value"] for row in json.loads(path.read_text())["rows"] if row["method"] == "lambdarank"
    }


def _run(command: list[str]) -> None:
    console.print(f"[dim]$ {' '.join(command)}[/]")
    subprocess.run(command, cwd=PROJECT, check=True)


def _far(found: Any, direct: Any) -> float:
    return float(np.max(np.abs(np.asarray(found, np.float64) - np.asarray(direct, np.float64))))


if __name__ == "__main__":
    measure("relevance", relevance)
