"""Training inputs: reads the journal, trains rankers on it, and writes bundles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from feedrank import __version__
from feedrank.api.bundle_names import timestamped_name
from feedrank.api.clock import clock_ms
from feedrank.api.compose import text_signals
from feedrank.api.compose.rank_only_items import unused_rank_only
from feedrank.api.compose.serving import warn
from feedrank.api.compose.vector_index import custom_index_type
from feedrank.api.config import Config
from feedrank.api.config import load_config as load_config
from feedrank.api.home_paths import HomePaths
from feedrank.api.id_matching import IdMatching, check_ids_meet
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.events.events import (
    Event,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    effective_time,
)
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.interaction_types import check_any_positive, unlisted_warning
from feedrank.engine.journal.journal import Journal
from feedrank.features.bm25 import TermWeights
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.counter_plan import forms_of_all
from feedrank.features.declared.field_coverage import field_problems
from feedrank.features.declared.term_statistics import fit_term_statistics
from feedrank.features.declared.value_vocabulary import fit_vocabularies
from feedrank.features.families.extra import load_extra_families
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import BundleParts
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining.drift import FeatureHistogram
from feedrank.models.text.cross_encoder_model import CrossEncoderModel
from feedrank.models.text.vector_cache import Progress as TextProgress
from feedrank.models.training.item_inputs import ItemInputs, fit_item_model
from feedrank.models.training.parquet_dataset import MatrixStore
from feedrank.models.training.shuffled_check import ShuffledCheck, check_shuffled
from feedrank.models.training.training import (
    Progress,
    TrainedRanker,
    TrainingData,
    has_enough_rankings,
    prepare_from_rankings,
    prepare_from_recall,
)

MAX_RANKING_DELAY_MS = 86_400_000
"""Milliseconds by which a ranking may be logged later than its interactions at the start of a window."""
VALIDATION_SHARE = 0.1
"""Share of the latest rankings, which early stopping of a ranker for serving validates on."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainingInputs:
    """The inputs of training: the journal as an event table, and the items with their text signals."""

    item_inputs: ItemInputs
    log: EventTable
    window: Mapping[str, Any]
    """The part of the journal that was read: `first` and `last` (unix seconds), `rankings` and `interactions` (counts),
    `offset`, and the counts `moved_interactions` (they stood before their ranking) and `future_events` (passed over).
    """
    notes: tuple[str, ...] = ()
    """What was done with the log, one sentence each."""


def load_training_inputs(
    home: HomePaths, config: Config, progress: TextProgress | None = None, since: float | None = None,
    until: float | None = None, needs_positive: bool = True,
) -> TrainingInputs:  # fmt: skip
    """Load training inputs from the journal; texts that are not in the vector cache are embedded.

    since, until: unix seconds; only events with since <= effective time < until are read, but all items are. An
    interaction before `since` is read too if its ranking is logged later. Events that are more than a day ahead of the
    clock are passed over. Warns of interaction types that nothing lists. Raises ValueError if no items or no
    interactions are left, if none of them is positive (unless `needs_positive` is false), or if an extra feature family
    or the class of a custom vector index can't be used.
    """
    load_extra_families(config.features.extra)  # a wrong path fails here, before the long work
    custom_index_type(config.index)
    url = config.journal.url
    journal = home.existing_journal(url)
    offset = journal.last_offset  # read first: events written during the read are not counted as read
    future = FutureEvents(clock_ms())
    items = future.skip(journal.read(kind="item"))
    described = [event for _, event in items if isinstance(event, ItemEvent)]
    unused = unused_rank_only(described, journal, config.journal.rank_only_days, future.now_ms)
    catalogue = Catalogue.from_events(event for event in described if event.item not in unused)
    if not len(catalogue):
        raise ValueError(f"there are no items in {url or home.journal_path}; import some with `feedrank import`")
    collector = _collector(home, config)
    behaviour = _read_window(journal, since, until, collector is not None)
    matching = IdMatching()
    events = matching.watch(event for _, event in future.skip(behaviour))
    log = sorted_events_to_table(
        events, catalogue.ids, None, config.training.use_logged_features, config.interactions, fields=collector
    )
    for problem in field_problems(config.features.declared, log):  # before the long work: the texts
        warn(problem.sentence())
    if (since, until) != (None, None) and not len(log.interactions) and np.isnan(log.rankings.labels).all():
        raise ValueError("found no interactions in this time window; choose a longer one")
    check_ids_meet(matching, described, journal, config.journal.max_unknown_share, warn)
    if message := unlisted_warning(log.type_counts, config.interactions):
        warn(message)
    if needs_positive and not (log.rankings.labels > 0).any():
        check_any_positive(log.type_counts, config.interactions)
    terms = TermWeights.fit(catalogue.field_texts(config.embedder.document), config.text)
    corpus = text_signals.item_inputs(
        catalogue, text_signals.compute_text_signals(home, config, catalogue, progress), terms
    )
    if log.fields is not None:
        declared = config.features.declared
        known = fit_vocabularies(declared, log.fields.value_counts)
        corpus = replace(corpus, vocabularies=known, term_statistics=fit_term_statistics(declared, log.fields))
    window = {
        "first": float(log.at.min()) if len(log) else None,
        "last": float(log.at.max()) if len(log) else None,
        "rankings": len(log.rankings),
        "interactions": len(log.interactions),
        "interaction_types": log.type_counts,
        "offset": offset,
        "moved_interactions": log.moved,
        "future_events": future.count,
    }
    notes = (f"left out {len(unused):,} items that only ranking requests described, and that were not used lately",)
    return TrainingInputs(corpus, log, window, (*log.notes, *future.notes, *(notes if unused else ())))


def check_shuffled_labels(inputs: TrainingInputs, config: Config) -> ShuffledCheck | None:
    """Check that shuffled labels score as chance; None if the log is too short. Raises ValueError if they do not."""
    checked = check_shuffled(inputs.item_inputs, inputs.log, config.training_settings)
    if checked is not None and checked.leaks:
        raise ValueError(checked.sentence())
    return checked


def _collector(home: HomePaths, config: Config) -> FieldCollector | None:
    """Return the collector of all declared fields: of the config, and of the bundle that serves now."""
    declared = list(config.features.declared)
    if (current := registry.current_name(home.bundles)) is not None:
        declared += bundle.declared_features(bundle.path_of(home.bundles, current))
    if not declared:
        return None
    return FieldCollector(forms_of_all(declared), counts_values=True)


def _read_window(
    journal: Journal, since: float | None, until: float | None, with_fields: bool
) -> Iterator[tuple[int, Event]]:
    """Yield the events of a window by effective time, and earlier interactions right before their ranking in it.

    with_fields: also yield the events of items and users, those from before the window first.
    """
    kinds = (RankingEvent, InteractionEvent, *((ItemEvent, UserEvent) if with_fields else ()))
    for entry in _read_all_of_window(journal, since, until, with_fields):
        if isinstance(entry[1], kinds):
            yield entry


def _read_all_of_window(
    journal: Journal, since: float | None, until: float | None, with_fields: bool
) -> Iterator[tuple[int, Event]]:
    first_ms, end_ms = (None if at is None else round(at * 1000) for at in (since, until))
    early: dict[str, list[tuple[int, Event]]] = {}  # ranking id -> interactions before the window
    from_ms = None if first_ms is None or with_fields else first_ms - MAX_RANKING_DELAY_MS
    for entry in journal.read_by_effective_time(from_ms):
        event = entry[1]
        time_ms = effective_time(event)
        if end_ms is not None and time_ms >= end_ms:
            return
        if first_ms is not None and time_ms < first_ms:
            if isinstance(event, InteractionEvent) and event.ranking is not None:
                early.setdefault(event.ranking, []).append(entry)
            elif isinstance(event, RankingEvent):
                early.pop(event.id, None)
            elif with_fields:
                yield entry
            continue
        if isinstance(event, RankingEvent) and early:
            yield from early.pop(event.id, ())
        yield entry


def fit_without_ranker(inputs: TrainingInputs, config: Config) -> FeatureBuilder:
    """Fit the item model on the whole log, without training a ranker."""
    knowledge = fit_item_model(inputs.item_inputs, UserHistories.from_log(inputs.log), config.items)
    return FeatureBuilder(knowledge, config.state_spec, config.features)


def train(inputs: TrainingInputs, config: Config, progress: Progress) -> TrainedRanker:
    """Train a ranker for serving: on logged rankings if there are enough, otherwise on recall candidates."""
    with config.training.matrix_store() as store:
        return prepare_training_data(inputs, config, store, progress).fit(progress)


def prepare_training_data(
    inputs: TrainingInputs, config: Config, store: MatrixStore, progress: Progress
) -> TrainingData:
    """Prepare the query groups that `train` fits on."""
    settings = config.training_settings
    if has_enough_rankings(inputs.log, settings):
        total = len(inputs.log.rankings)
        cut = int(total * (1 - VALIDATION_SHARE))
        return prepare_from_rankings(inputs.item_inputs, inputs.log, cut, total, settings, store, progress)
    every_interaction = np.ones(len(inputs.log.interactions), np.bool_)
    return prepare_from_recall(inputs.item_inputs, inputs.log, every_interaction, settings, store, progress)


def with_tuned_parameters(home: HomePaths, config: Config) -> Config:
    """Return the config with the ranker parameters from `feedrank tune`; the config's own ones take precedence."""
    if not home.tuned_config.exists():
        raise ValueError(f"found no {home.tuned_config}; create it with `feedrank tune`")
    parameters = dict(load_config(home.tuned_config).ranker.parameters) | dict(config.ranker.parameters)
    return replace(config, ranker=replace(config.ranker, parameters=parameters))


def save_bundle(
    home: HomePaths,
    config: Config,
    name: str,
    parts: BundleParts,
    manifest_fields: Mapping[str, Any],
    build_info: Mapping[str, Any] | None = None,
    promote: bool = True,
) -> None:
    """Write a bundle and, with `promote`, make it the current one.

    manifest_fields: further fields of the manifest. build_info: build information besides the time and the version,
    which no digest covers.
    """
    chosen = config.index
    index = {
        "metric": chosen.metric, "trees": chosen.trees, "search_k_factor": chosen.search_k_factor,
        "seed": config.items.seed,
    }  # fmt: skip
    build_info = {"at": datetime.now(UTC).isoformat(), "version": __version__, **(build_info or {})}
    seeds = {"items": config.items.seed, "training": config.training.seed, "ranker": config.ranker.seed}
    manifest_fields = {
        "version": __version__,
        "config": _jsonable(asdict(config)),
        "seeds": seeds,
        **manifest_fields,
    }
    bundle.save(home.bundles, name, parts, index, manifest_fields, build_info, custom_index_type(chosen))
    if promote:
        registry.promote(home.bundles, name)


def save_trained_bundle(
    home: HomePaths,
    config: Config,
    name: str,
    inputs: TrainingInputs,
    trained: TrainedRanker,
    manifest_fields: Mapping[str, Any],
    seconds: float,
    promote: bool = True,
) -> None:
    """Write a trained ranker as a bundle. manifest_fields: with `trained_until` if it has not learnt the whole log."""
    manifest_fields = {
        "trained_until": inputs.window["last"],
        "groups": trained.counts,
        "trees": trained.ranker.trees,
        "warnings": list(trained.warnings),
        "window": dict(inputs.window),
        "log_notes": list(inputs.notes),
        "label_notes": list(trained.notes),
        **manifest_fields,
    }
    scorer = trained.reranker.scorer if trained.reranker else None
    sample = trained.drift_sample
    parts = BundleParts(
        trained.builder,
        trained.ranker,
        None if sample is None else FeatureHistogram.from_matrix(sample, trained.builder.names),
        trained.first_stage,
        scorer if isinstance(scorer, CrossEncoderModel) else None,
    )
    save_bundle(home, config, name, parts, manifest_fields, {"seconds": seconds}, promote)


def save_recall_bundle(home: HomePaths, config: Config, inputs: TrainingInputs) -> str | None:
    """Make a bundle in recall order current if nothing is; return its name, or None if a bundle is current."""
    if home.current_bundle.is_symlink() or home.current_bundle.exists():
        return None
    name = timestamped_name("recall-order")
    save_bundle(home, config, name, BundleParts(fit_without_ranker(inputs, config)), {"window": dict(inputs.window)})
    return name


def check_bundle_name(home: HomePaths, name: str) -> None:
    """Check a bundle name before a long training. Raises BundleError if it is invalid or taken."""
    bundle.new_bundle_path(home.bundles, name)


def _jsonable(value: Any) -> Any:
    """Convert to JSON types: infinity and NaN as strings, tuples as lists."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
