"""Training inputs: reads the journal, trains rankers on it, and writes bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np

from feedrank.api.compose import text_signals
from feedrank.api.compose.serving import warn
from feedrank.api.config import Config
from feedrank.api.config import load as load_config
from feedrank.api.home import Home
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import Log, in_order
from feedrank.engine.events.events import ItemEvent, known_from
from feedrank.engine.types import Matrix
from feedrank.features.bm25 import TermWeights
from feedrank.features.builder import FeatureBuilder
from feedrank.models.bundles import bundle, registry
from feedrank.models.items.user_histories import Sequences
from feedrank.models.retraining import retraining
from feedrank.models.retraining.drift import Sketch
from feedrank.models.retraining.retraining import Incumbent, Outcome
from feedrank.models.text.cross_encoder_model import PairModel
from feedrank.models.text.vector_cache import Progress as TextProgress
from feedrank.models.training.parquet_dataset import Store
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.reranker_training import SecondPhase
from feedrank.models.training.training import (
    Corpus,
    Prepared,
    Progress,
    Trained,
    fit_corpus,
    learns_from_rankings,
    prepare_from_rankings,
    prepare_from_recall,
)

VALIDATION_SHARE = 0.1
"""Share of the latest rankings, which early stopping of a ranker for serving validates on."""


@dataclass(frozen=True, eq=False, slots=True)
class Material:
    """The inputs of training: the journal as an event table, and the items with their text signals."""

    corpus: Corpus
    log: Log
    window: Mapping[str, Any]
    """The part of the journal that was read: `first` and `last` (unix seconds), `rankings` and `interactions` (counts),
    and `offset`."""


def material(
    home: Home, config: Config, progress: TextProgress | None = None, since: float | None = None,
    until: float | None = None,
) -> Material:  # fmt: skip
    """Load training inputs from the journal; texts that are not in the vector cache are embedded.

    since, until: unix seconds; only events with since <= effective time < until are read, but all items are. Raises
    ValueError if no items or no interactions are left.
    """
    url = config.journal.url
    journal = home.known_journal(url)
    offset = journal.last  # read first: events written during the read are not counted as read
    catalogue = Catalogue.from_events(event for event in journal.events("item") if isinstance(event, ItemEvent))
    if not len(catalogue):
        raise ValueError(f"there are no items in {url or home.journal_path}; import some with `feedrank import`")
    terms = TermWeights.fit(catalogue.documents(config.embedder.document))
    corpus = text_signals.corpus(catalogue, text_signals.of_items(home, config, catalogue, progress), terms)
    first, end = (bound if at is None else at * 1000 for at, bound in ((since, -np.inf), (until, np.inf)))
    events = (event for _, event in journal.in_order() if first <= known_from(event) < end)
    log = in_order(events, catalogue.ids, served=config.training.served_rows)
    if (since, until) != (None, None) and not len(log.interactions) and np.isnan(log.rankings.labels).all():
        raise ValueError("found no interactions in this time window; choose a longer one")
    window = {
        "first": float(log.at.min()) if len(log) else None,
        "last": float(log.at.max()) if len(log) else None,
        "rankings": len(log.rankings),
        "interactions": len(log.interactions),
        "offset": offset,
    }
    return Material(corpus, log, window)


def index_only(made: Material, config: Config) -> FeatureBuilder:
    """Fit the item model on the whole log, without training a ranker."""
    knowledge = fit_corpus(made.corpus, Sequences.of(made.log), config.items)
    return FeatureBuilder(knowledge, config.state, config.features)


def train(made: Material, config: Config, progress: Progress) -> Trained:
    """Train a ranker for serving: on logged rankings if there are enough, otherwise on recall candidates."""
    with config.training.store() as store:
        return prepare(made, config, store, progress).fit(progress)


def prepare(made: Material, config: Config, store: Store, progress: Progress) -> Prepared:
    """Prepare the query groups that `train` fits on."""
    settings = config.settings
    if learns_from_rankings(made.log, settings):
        total = len(made.log.rankings)
        cut = int(total * (1 - VALIDATION_SHARE))
        return prepare_from_rankings(made.corpus, made.log, cut, total, settings, store, progress)
    every_interaction = np.ones(len(made.log.interactions), np.bool_)
    return prepare_from_recall(made.corpus, made.log, every_interaction, settings, store, progress)


def with_tuned(home: Home, config: Config) -> Config:
    """Return the config with the ranker parameters from `feedrank tune`; the config's own ones take precedence."""
    if not home.tuned.exists():
        raise ValueError(f"found no {home.tuned}; create it with `feedrank tune`")
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
    first: LambdaRanker | None = None,
    pairs: PairModel | None = None,
) -> None:
    """Write a bundle and, with `promote`, make it the current one.

    about: further fields of the manifest. sample: (N, F) training rows, the reference for drift. made: build
    information besides the time, which no digest covers. first, pairs: the first-stage ranker and the cross-encoder of
    two-stage ranking.
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
    bundle.save(home.bundles, name, builder, ranker, index, about, made, sketch, first, pairs)
    if promote:
        registry.promote(home.bundles, name)


def save_trained(
    home: Home, config: Config, name: str, made: Material, trained: Trained, about: Mapping[str, Any], seconds: float,
    promote: bool = True,
) -> None:  # fmt: skip
    """Write a trained ranker as a bundle."""
    about = {"groups": trained.counts, "trees": trained.ranker.trees, "window": dict(made.window), **about}
    scorer = trained.pairs.scorer if trained.pairs else None
    save(
        home, config, name, trained.builder, trained.ranker, about, trained.sample, {"seconds": seconds}, promote,
        trained.first, scorer if isinstance(scorer, PairModel) else None,
    )  # fmt: skip


def retrain(
    home: Home, made: Material, config: Config, progress: Progress, warm_start: bool = False
) -> tuple[Incumbent | None, Outcome]:
    """Train a candidate and compare it with the current bundle; writes nothing."""
    incumbent = None
    if home.current.exists():
        opened = registry.load_current(home.bundles, warn)
        until = opened.manifest.get("window", {}).get("last")
        model = bundle.pair_model_of(opened, config.cross_encoder.threads)
        incumbent = Incumbent(
            opened.name, opened.builder, opened.ranker, bundle.read_sketch(opened.folder),
            float("nan") if until is None else float(until), opened.first,
            None if model is None else SecondPhase(model, config.cross_encoder.best, 0.0),
        )  # fmt: skip
    outcome = retraining.retrain(
        made.corpus, made.log, incumbent, config.settings, config.retrain, progress, warm_start
    )  # fmt: skip
    return incumbent, outcome


def check_name(home: Home, name: str) -> None:
    """Check a bundle name before a long training. Raises BundleError if it is invalid or taken."""
    bundle.place(home.bundles, name)


def version() -> str:
    """Return the installed version of feedrank."""
    try:
        return metadata.version("feedrank")
    except metadata.PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """Convert to JSON types: infinity and NaN as strings, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
