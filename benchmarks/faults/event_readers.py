"""All that reads the events of a journal, each as a function that raises if an event stops it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.faults.extreme_events import NOW_MS
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.erasure import Erasure, Erasures
from feedrank.engine.events.event_table_builder import events_to_table, sorted_events_to_table
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.events.events import Event, ItemEvent, RankingEvent, effective_time
from feedrank.engine.events.interaction_types import InteractionTypes
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.experiments.bucketing import assign
from feedrank.engine.experiments.registry import replay_events
from feedrank.engine.experiments.spec import ExperimentSpec, arm_from_dict
from feedrank.engine.journal.decoding import decode
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.lookups import events_of_items
from feedrank.engine.serving.pipeline import Pipeline
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.replay_check import ReplayBudget, first_difference
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.features.bm25 import TermWeights
from feedrank.features.custom_counters import CounterSpec
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.experiments.outcome_collection import collect_outcomes
from feedrank.models.experiments.preference import preferences
from feedrank.models.experiments.readout import compute_readout, readout_json
from feedrank.models.experiments.shadow_report import shadow_report
from feedrank.models.off_policy.estimate import estimate_slates
from feedrank.models.off_policy.logged_rankings import RankingFilter, read_logged_rankings
from feedrank.models.off_policy.policies import SlatePolicy
from feedrank.models.training.dataset import from_rankings
from feedrank.models.training.labels import LabelSettings, impression_labels

_PLAN = {"min_units_for_ci": 2, "min_converting_units": 1, "metrics": {"paid": {"type": "purchase", "value": "sum"}}}
_ARMS = {"usual": {}, "other": {"bundle": "other"}}
SPECS = tuple(
    ExperimentSpec.from_dict({"name": name, "arms": _ARMS, **_PLAN, **further})
    for name, further in {
        "ab": {"holdout": 0.1}, "mixed": {"kind": "interleave", "unit": "session"},
        "balanced": {"kind": "interleave", "interleaving": "balanced", "unit": "request"},
    }.items()
)  # fmt: skip
_COUNTERS = (
    CounterSpec("by_category", "user x category", ("click", "impression")),
    CounterSpec("by_price", "price", ("click",), rate_over=("impression",)),
)


def read_journal(events: Sequence[Event]) -> None:
    """Write the events to a journal, and read them in every order; each comes back as it was."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.open_sqlite(Path(folder) / "journal.db")
        journal.append(events)
        written = dict(journal.read())
        first: dict[str, dict[str, Any]] = {}
        for event in events:
            first.setdefault(event.id, to_dict(event))
        if list(map(to_dict, written.values())) != [to_dict(decode(json.dumps(body))) for body in first.values()]:
            raise ValueError("found other events in the journal than were written")
        if sorted(offset for offset, _ in journal.read_by_effective_time()) != sorted(written):
            raise ValueError("found other events by time than by offset")
        events_of_items(journal.engine, {event.item for event in events if isinstance(event, ItemEvent)}, 10**9, 10**15)
        journal.erase_user("u1", "gone", NOW_MS)
        list(journal.read())
        journal.purge_before(0)
        journal.close()


def read_catalogue(events: Sequence[Event]) -> Catalogue:
    """Build the catalogue, and all that is built from it alone."""
    catalogue = Catalogue.from_events(event for event in events if isinstance(event, ItemEvent))
    again = Catalogue.from_items(catalogue.to_items())
    np.testing.assert_array_equal(again.published, catalogue.published)
    for name in ("price", "category", "tags", "source"):
        catalogue.field_codes(name)
    _ = catalogue.hidden_rows, catalogue.category_members
    if len(catalogue):
        TermWeights.fit(catalogue.field_texts(("title", "text", "category", "tags", "price")))
    return catalogue


def read_columns(events: Sequence[Event]) -> None:
    """Build the event table, with labels, training groups and logged features."""
    catalogue, in_order = read_catalogue(events), sorted(events, key=effective_time)
    log = sorted_events_to_table(in_order, catalogue.ids, with_logged_features=True)
    settings = LabelSettings(value_weighted=("rating",), dwell_saturation_s={"click": 30.0}, examination_window=1)
    labels = impression_labels(log, settings)
    if not np.isfinite(labels).all():
        raise ValueError("found a label that is not finite")
    groups = from_rankings(log, 0, len(log.rankings), settings, drop_unexamined=True)
    if log.rankings.logged_features is not None and len(log.rankings.items):
        out = np.zeros((len(log.rankings.items), 2), np.float32)
        log.rankings.logged_features.fill(out, np.arange(len(out)), log.rankings.offsets, "f")
    _ = log.notes, log.type_counts, log.event_positions(), groups.has_positive, log.item_codes()


def read_state(events: Sequence[Event]) -> None:
    """Advance the behavioural state live and in replay, and read it for each user."""
    catalogue = read_catalogue(events)
    if not len(catalogue):
        return
    spec = StateSpec(counters=_COUNTERS, interactions=InteractionTypes())
    users, pipeline = Vocabulary(), cast(Pipeline, SimpleNamespace(reranker=None))
    states = BehaviouralState(catalogue, spec), BehaviouralState(catalogue, spec)
    live = ServingSnapshot(catalogue, users, states[0], pipeline, np.empty((len(catalogue), 0), np.float32))
    live.set_clock(NOW_MS)
    for event in events:
        live.observe([event])
    live.set_clock(NOW_MS + 10**9)
    states[1].advance(events_to_table(events, catalogue.ids, users, as_arrived=True))
    for state in states:
        state.popularity(NOW_MS / 1000)
        for row in range(len(users)):
            rows, times = state.history(row)
            if not (np.isfinite(times).all() and (rows < len(catalogue)).all()):
                raise ValueError("found a history that was not observed")
            state.disliked(row)


def read_experiments(events: Sequence[Event]) -> None:
    """Replay the experiments, assign requests to them, and compute every readout."""
    registry = replay_events(events)
    for ranking_id in ("r1", "r2"):
        for user in ("u1", None):
            assign(registry, RecommendationRequest(user, "s"), ranking_id, NOW_MS, {"", "other"})
    for state in registry.states.values():
        json.dumps(state.experiment.to_dict())
        for arm in state.experiment.arms:
            _ = shadow_report(arm, state.shadow_totals.get(arm)).summary_sentence
    in_order = sorted(timely(events), key=effective_time)
    started = (NOW_MS - 10**8) / 1000
    for spec in SPECS:
        collected = collect_outcomes(in_order, spec, started)
        if spec.kind == "interleave":
            preferences(collected.impressions, list(spec.arms), started, spec.plan.planned_units)
        else:
            with suppress(ImportError):
                readout_json(compute_readout(collected.outcomes, spec.plan, (0.5, 0.5)))


def read_off_policy(events: Sequence[Event]) -> None:
    """Estimate a policy from the rankings with propensities."""
    try:
        log = read_logged_rankings(sorted(events, key=effective_time), RankingFilter())
    except ValueError as problem:
        if "none of them with propensities" in str(problem):
            return
        raise
    order = np.concatenate([np.arange(stop - start) for start, stop in zip(log.offsets, log.offsets[1:], strict=False)])
    slates = log.to_slate_log(order.astype(np.int32))
    scores = np.tile(-np.arange(slates.actions.shape[1], dtype=np.float64), (len(slates), 1))
    with np.errstate(all="ignore"):
        estimate_slates(slates, SlatePolicy.from_scores(scores, slates, 1.0), ("snips", "rips", "snrips"), seed=1)


def read_records(events: Sequence[Event]) -> None:
    """Read each ranking as an answer, for its explanation, and for its replay up to the ranking itself."""
    for event in events:
        if not isinstance(event, RankingEvent):
            continue
        record = RankingRecord.from_event(event)
        json.dumps(record.to_answer(), allow_nan=False)
        RankingRecord.find_own(event)
        float(record.recall.candidates or 0)
        if record.malformed:
            continue
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # as `replay` refuses it
            arm_from_dict(record.arm_overrides)
            record.decoded_cross_encoder_scores()
        ReplayBudget(record.degraded)
        if record.features is not None:
            record.features.decode(2)
        first_difference(record, record, ["a", "b"])
        for offset in (record.offset, record.items_offset):
            if offset is not None and not 0 <= offset < 2**63:
                raise ValueError("found an offset that no database can look up")


def read_erasures(events: Sequence[Event]) -> None:
    """Find what the tombstones among the events erase."""
    erasures = Erasures(erasure for event in events if (erasure := Erasure.from_event(event)) is not None)
    erasures.without(list(events))
    for user in ("u1", "x" * 256):
        erasures.of(user)


READERS: dict[str, Callable[[Sequence[Event]], object]] = {
    "journal": read_journal,
    "catalogue": read_catalogue,
    "columns": read_columns,
    "state": read_state,
    "experiments": read_experiments,
    "off-policy": read_off_policy,
    "records": read_records,
    "erasures": read_erasures,
}


def timely(events: Sequence[Event]) -> list[Event]:
    """Return the events that are not ahead of the clock; every reader of a journal passes over the others."""
    return [event for _, event in FutureEvents(NOW_MS).skip(enumerate(events))]


def plain_events() -> list[Event]:
    """Return usual events around the generated ones: items, and rankings with clicks."""
    bodies: list[dict[str, object]] = [
        {"event": "item", "id": f"item{n}", "timestamp": 0, "item": f"i{n}",
         "fields": [{"name": name, "value": value} for name, value in
                    {"title": f"the book {n}", "category": f"c{n % 3}", "price": n}.items()]}
        for n in range(12)
    ]  # fmt: skip
    for n in range(12):
        variant = ("usual", "other")[n % 2]
        served = {"experiments": [["ab", variant], ["mixed", "interleaved"], ["balanced", "interleaved"]]}
        ranking = {
            "event": "ranking", "id": f"plain{n}", "timestamp": NOW_MS - 10**6 + n, "user": f"p{n}", "session": f"s{n}",
            "items": [{"id": "i1"}, {"id": "i2"}], "propensities": [0.5, 1.0], "team": ["usual", "other"],
            "served": {**served, "ranks": [[0, 1], [1, 0]]}, "provenance": "service",
        }  # fmt: skip
        click = {"event": "interaction", "id": f"click{n}", "timestamp": NOW_MS - 10**6 + n + 5, "user": f"p{n}",
                 "item": "i1", "type": "click", "ranking": f"plain{n}"}  # fmt: skip
        bodies += [ranking, click] if n % 3 else [ranking]
    return [parse(body) for body in bodies]


def failing_readers(events: Sequence[Event], readers: Sequence[str] = tuple(READERS)) -> dict[str, str]:
    """Return reader -> what it raised, of those that these events stop; usual events come before them."""
    log = [*plain_events(), *events]
    failures = {}
    for name in readers:
        try:
            READERS[name](log)
        except Exception as problem:
            failures[name] = f"{type(problem).__name__}: {problem}"
    return failures
