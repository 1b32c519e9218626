"""From the journal to bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np

from api.compose import signals
from api.compose.serving import warn
from api.config import Config
from api.config import load as load_config
from api.home import Home
from engine.catalogue import Catalogue
from engine.events import ItemEvent, known_from
from engine.log import Log, in_order
from engine.types import Matrix
from features.bm25 import TermWeights
from features.builder import FeatureBuilder
from models import bundle, registry, retraining
from models.drift import Sketch
from models.ranker import LambdaRanker
from models.retraining import Incumbent, Outcome
from models.second_phase import SecondPhase
from models.sequences import Sequences
from models.shards import Store
from models.text.pair_model import PairModel
from models.text.vector_cache import Progress as TextProgress
from models.training import (
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
"""Of the rankings, the latest: where a ranker for serving stops early."""


@dataclass(frozen=True, eq=False, slots=True)
class Material:
    """What is trained on: the journal as columns, and the catalogue with its texts made ready."""

    corpus: Corpus
    log: Log
    window: Mapping[str, Any]
    """What of the journal it is: first and last unix seconds, how many rankings and interactions, and the offset."""


def material(
    home: Home, config: Config, progress: TextProgress | None = None, since: float | None = None,
    until: float | None = None,
) -> Material:  # fmt: skip
    """Read the journal and embed what the vector cache does not know.

    since, until: unix seconds; what became known before the one, or at the other and later, is left out. Items are all
    there. Raises ValueError where nothing is left.
    """
    url = config.journal.url
    journal = home.known_journal(url)
    offset = journal.last  # before anything is read: what is written meanwhile is not said to be known
    catalogue = Catalogue.from_events(one for one in journal.events("item") if isinstance(one, ItemEvent))
    if not len(catalogue):
        raise ValueError(f"there are no items in {url or home.journal_path}; load some with `feedrank import`")
    terms = TermWeights.fit(catalogue.documents(config.embedder.document))
    corpus = signals.corpus(catalogue, signals.of_items(home, config, catalogue, progress), terms)
    first, end = (bound if one is None else one * 1000 for one, bound in ((since, -np.inf), (until, np.inf)))
    events = (event for _, event in journal.in_order() if first <= known_from(event) < end)
    log = in_order(events, catalogue.ids, served=config.training.served_rows)
    if (since, until) != (None, None) and not len(log.interactions) and np.isnan(log.rankings.labels).all():
        raise ValueError("nobody touched anything in this window; choose a longer one")
    window = {
        "first": float(log.at.min()) if len(log) else None,
        "last": float(log.at.max()) if len(log) else None,
        "rankings": len(log.rankings),
        "interactions": len(log.interactions),
        "offset": offset,
    }
    return Material(corpus, log, window)


def index_only(made: Material, config: Config) -> FeatureBuilder:
    """Item knowledge of the whole log, without a ranker."""
    knowledge = fit_corpus(made.corpus, Sequences.of(made.log), config.items)
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
    first: LambdaRanker | None = None,
    pairs: PairModel | None = None,
) -> None:
    """Write a bundle and, with `promote`, make it the current one.

    about: what the manifest is to say of it. sample: training rows, for drift to be measured against. made: what no
    digest covers, beside the time. first and pairs: the
    cheap ranker and the cross-encoder of two phases.
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
    """Write what was trained as a bundle."""
    about = {"groups": trained.counts, "trees": trained.ranker.trees, "window": dict(made.window), **about}
    scorer = trained.pairs.scorer if trained.pairs else None
    save(
        home, config, name, trained.builder, trained.ranker, about, trained.sample, {"seconds": seconds}, promote,
        trained.first, scorer if isinstance(scorer, PairModel) else None,
    )  # fmt: skip


def retrain(
    home: Home, made: Material, config: Config, progress: Progress, warm_start: bool = False
) -> tuple[Incumbent | None, Outcome]:
    """Train a candidate and hold it against the current bundle; nothing is written."""
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
    """Refuse a bundle name that can't be used, before hours are spent on what it is to hold."""
    bundle.place(home.bundles, name)


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
