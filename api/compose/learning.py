"""The composition root: the one place where parts are chosen by name and put together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module, metadata
from typing import Any

import numpy as np

from api.config import Config, IndexConfig
from api.config import load as load_config
from api.home import Home
from engine.catalogue import Catalogue
from engine.events import ItemEvent, known_from
from engine.indexes import ExactIndex
from engine.journal import Journal
from engine.log import Log, in_order
from engine.pipeline import Pipeline
from engine.protocols import Ranker, VectorIndex
from engine.recall import SMALL, EmbeddingRetriever, FirstOf, PopularRetriever
from engine.recommender import Recommender
from engine.types import Matrix, Scores, Vector
from features.bm25 import TermWeights
from features.builder import FeatureBuilder
from features.state import BehaviouralState
from models import bundle, registry, retraining, snapshot
from models.drift import Sketch
from models.embedder import Progress as EmbeddingProgress
from models.embedder import SentenceEmbedder
from models.items import fit_items
from models.ranker import LambdaRanker
from models.retraining import Incumbent, Outcome
from models.sequences import Sequences
from models.shards import Store
from models.snapshot import Living
from models.training import (
    Corpus,
    Prepared,
    Progress,
    Trained,
    learns_from_rankings,
    prepare_from_rankings,
    prepare_from_recall,
)

VALIDATION_SHARE = 0.1
"""Of the rankings, the latest: where a ranker for serving stops early."""


@dataclass(frozen=True, eq=False, slots=True)
class Material:
    """What is trained on: the journal as columns, and the catalogue with its texts made ready."""

    corpus: Corpus
    log: Log
    window: Mapping[str, Any]
    """What of the journal it is: first and last unix seconds, how many rankings and interactions, and the offset."""


class QueriesInRecallOrder:
    """A ranker that has never seen a query leaves requests that have one in recall's order.

    Recall mixes query and person; a ranker trained on a log without queries would order by the person alone.
    """

    def __init__(self, ranker: Ranker, names: tuple[str, ...]) -> None:
        self._ranker = ranker
        self._query = names.index("query_text") if "query_text" in names else None

    def score(self, features: Matrix) -> Scores:
        """The ranker's scores, or minus the places where the request has a query."""
        if self._query is not None and np.isnan(features[:, self._query]).all():
            return self._ranker.score(features)
        return RecallOrder().score(features)


class RecallOrder:
    """A ranker that leaves the candidates of a request in the order recall found them in."""

    def score(self, features: Matrix) -> Scores:
        """Minus the place of each row, from 1."""
        return -np.arange(1, len(features) + 1, dtype=np.float32)


def material(
    home: Home, config: Config, progress: EmbeddingProgress | None = None, since: float | None = None
) -> Material:
    """Read the journal and embed what the vector cache does not know; since: leave out what was known before then."""
    url = config.journal.url
    if url is None and not home.journal_path.exists():
        raise ValueError(f"there is no journal at {home.journal_path}; load items and events with `feedrank import`")
    journal = home.journal(url)
    catalogue = Catalogue.from_events(one for one in journal.events("item") if isinstance(one, ItemEvent))
    if not len(catalogue):
        raise ValueError(f"there are no items in {url or home.journal_path}; load some with `feedrank import`")
    documents = catalogue.documents(config.embedder.document)
    text = embedder(home, config).encode(documents, progress)
    earliest = -np.inf if since is None else since * 1000
    events = (event for _, event in journal.in_order() if known_from(event) >= earliest)
    log = in_order(events, catalogue.ids, served=config.training.served_rows)
    if since is not None and not len(log.interactions) and np.isnan(log.rankings.labels).all():
        raise ValueError("nobody touched anything in this window; choose a longer one")
    window = {
        "first": float(log.at.min()) if len(log) else None,
        "last": float(log.at.max()) if len(log) else None,
        "rankings": len(log.rankings),
        "interactions": len(log.interactions),
        "offset": journal.last,
    }
    return Material(Corpus(catalogue, text, TermWeights.fit(documents)), log, window)


def embedder(home: Home, config: Config) -> SentenceEmbedder:
    """The embedder that the config names."""
    chosen = config.embedder
    return SentenceEmbedder(chosen.model, home.vectors, chosen.batch_size, chosen.revision)


def index_only(made: Material, config: Config) -> FeatureBuilder:
    """Item knowledge of the whole log, without a ranker."""
    knowledge = fit_items(
        made.corpus.catalogue, made.corpus.text, made.corpus.terms, Sequences.of(made.log), config.items
    )
    return FeatureBuilder(knowledge, config.state, config.features)


def train(made: Material, config: Config, progress: Progress) -> Trained:
    """Train for serving: from rankings where the log has them, else from what recall finds."""
    with config.training.store() as store:
        return prepare(made, config, store, progress).fit(progress)


def prepare(made: Material, config: Config, store: Store, progress: Progress) -> Prepared:
    """The groups that `train` learns from."""
    settings = config.settings
    if learns_from_rankings(made.log, settings):
        total = len(made.log.rankings)
        cut = int(total * (1 - VALIDATION_SHARE))
        return prepare_from_rankings(made.corpus, made.log, cut, total, settings, store, progress)
    everything = np.ones(len(made.log.interactions), np.bool_)
    return prepare_from_recall(made.corpus, made.log, everything, settings, store, progress)


def with_tuned(home: Home, config: Config) -> Config:
    """The config with the parameters that `feedrank tune` found; those that the config itself names stay."""
    if not home.tuned.exists():
        raise ValueError(f"there is no {home.tuned}; make it with `feedrank tune`")
    parameters = dict(load_config(home.tuned).ranker.parameters) | dict(config.ranker.parameters)
    return replace(config, ranker=replace(config.ranker, parameters=parameters))


def save(
    home: Home,
    config: Config,
    name: str,
    builder: FeatureBuilder,
    ranker: LambdaRanker | None,
    about: Mapping[str, Any],
    sample: Matrix | None = None,
    made: Mapping[str, Any] | None = None,
    promote: bool = True,
) -> None:
    """Write a bundle and, with `promote`, make it the current one.

    about: what the manifest is to say of it. sample: training rows, for drift to be measured against. made: what no
    digest covers, beside the time.
    """
    chosen = config.index
    index = {
        "metric": chosen.metric, "trees": chosen.trees, "search_factor": chosen.search_factor,
        "seed": config.items.seed,
    }  # fmt: skip
    made = {"at": datetime.now(UTC).isoformat(), **(made or {})}
    seeds = {"items": config.items.seed, "training": config.training.seed, "ranker": config.ranker.seed}
    about = {"version": version(), "config": _plain(asdict(config)), "seeds": seeds, **about}
    sketch = None if sample is None else Sketch.of(sample, builder.names)
    bundle.save(home.bundles, name, builder, ranker, index, about, made, sketch)
    if promote:
        registry.promote(home.bundles, name)


def save_trained(
    home: Home, config: Config, name: str, made: Material, trained: Trained, about: Mapping[str, Any], seconds: float,
    promote: bool = True,
) -> None:  # fmt: skip
    """Write what was trained as a bundle."""
    about = {"groups": trained.counts, "trees": trained.ranker.trees, "window": dict(made.window), **about}
    save(home, config, name, trained.builder, trained.ranker, about, trained.sample, {"seconds": seconds}, promote)


def retrain(
    home: Home, made: Material, config: Config, progress: Progress, warm_start: bool = False
) -> tuple[Incumbent | None, Outcome]:
    """Train a candidate and hold it against the current bundle; nothing is written."""
    incumbent = None
    if home.current.exists():
        opened = registry.load_current(home.bundles, warn)
        until = opened.manifest.get("window", {}).get("last")
        incumbent = Incumbent(
            opened.name, opened.builder, opened.ranker, bundle.read_sketch(opened.folder),
            float("nan") if until is None else float(until),
        )  # fmt: skip
    outcome = retraining.retrain(
        made.corpus, made.log, incumbent, config.settings, config.retrain, progress, warm_start
    )  # fmt: skip
    return incumbent, outcome


def warn(message: str) -> None:
    """Say what went wrong and was got round."""
    print(f"warning: {message}", file=sys.stderr)


def check_name(home: Home, name: str) -> None:
    """Refuse a bundle name that can't be used, before hours are spent on what it is to hold."""
    bundle.place(home.bundles, name)


def recommender(home: Home, config: Config) -> Recommender:
    """The current bundle, with the state of the whole journal, ready to answer."""
    opened = registry.load_current(home.bundles, warn)
    journal = home.journal(config.journal.url)
    living = living_state(home, journal, opened)
    ranker: Ranker = QueriesInRecallOrder(opened.ranker, opened.builder.names) if opened.ranker else RecallOrder()
    return Recommender(
        opened.knowledge.catalogue,
        living.people,
        living.state,
        pipeline(opened, config, living.state, ranker),
        journal,
        query_encoder(home, opened, config),
    )


def take_snapshot(home: Home, config: Config) -> Living:
    """Write the state of the whole journal for the current bundle, whatever was read for it."""
    opened = registry.load_current(home.bundles, warn)
    catalogue = opened.knowledge.catalogue
    living = snapshot.restore(home.snapshot, home.journal(config.journal.url), catalogue, opened.builder.spec)
    snapshot.save(home.snapshot, living, catalogue)
    return living


def living_state(home: Home, journal: Journal, opened: bundle.Bundle) -> Living:
    """The state of the whole journal; a new snapshot is written where much came after the last one."""
    living = snapshot.restore(home.snapshot, journal, opened.knowledge.catalogue, opened.builder.spec)
    if living.read >= snapshot.WORTH_SAVING:
        snapshot.save(home.snapshot, living, opened.knowledge.catalogue)
    return living


def pipeline(opened: bundle.Bundle, config: Config, state: BehaviouralState, ranker: Ranker) -> Pipeline:
    """Recall through the bundle's index, popularity for strangers, then the bundle's features and ranker."""
    knowledge = opened.knowledge
    exact = ExactIndex(knowledge.space.targets, opened.index.metric)
    found = EmbeddingRetriever(
        knowledge.catalogue,
        knowledge.space,
        vector_index(opened, config.index, exact),
        exact,
        config.recall.query_share,
        SMALL if config.index.kind == "annoy" else 0,
    )
    retriever = FirstOf([found, PopularRetriever(knowledge.catalogue, state.popularity)])
    return Pipeline(retriever, state, opened.builder, ranker, config.recall.candidates, opened.name)


def vector_index(opened: bundle.Bundle, chosen: IndexConfig, exact: ExactIndex) -> VectorIndex:
    """The index that the config names."""
    if chosen.kind == "annoy":
        return opened.index
    if chosen.kind == "exact":
        return exact
    module, _, name = chosen.kind.partition(":")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise ValueError(f"can't find the index.kind {chosen.kind!r}: {problem}") from None
    made: VectorIndex = kind(opened.knowledge.space.targets, opened.index.metric)
    return made


def query_encoder(home: Home, opened: bundle.Bundle, config: Config) -> Callable[[str], Vector]:
    """Turns a request's text into a vector, by the model that the bundle's items went through; loaded at the first."""
    model: Mapping[str, Any] = opened.manifest["config"]["embedder"]
    made: list[SentenceEmbedder] = []

    def encode(text: str) -> Vector:
        if not made:
            made.append(SentenceEmbedder(model["model"], home.vectors, config.embedder.batch_size, model["revision"]))
        return made[0].query(text)

    return encode


def version() -> str:
    """The installed version."""
    try:
        return metadata.version("feedrank")
    except metadata.PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """JSON-ready: infinity as a string, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
