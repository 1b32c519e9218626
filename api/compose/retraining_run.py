"""Trains a candidate, compares it with the current bundle, and promotes it: what `feedrank retrain` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.api.bundle_names import timestamped_name
from feedrank.api.compose.training_inputs import (
    TrainingInputs,
    check_bundle_name,
    load_training_inputs,
    save_recall_bundle,
    save_trained_bundle,
    train,
    with_tuned_parameters,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress, embedding_progress
from feedrank.api.training_lock import training_lock
from feedrank.engine.events.event_time import MAX_AHEAD_MS
from feedrank.engine.events.events import ItemEvent, valid_from
from feedrank.engine.journal.journal import Journal
from feedrank.models.bundles import bundle, registry
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.retraining import report as retrain_report
from feedrank.models.retraining import retraining
from feedrank.models.retraining.incumbent import Incumbent, learnt_until
from feedrank.models.retraining.retraining import RetrainContext, RetrainResult
from feedrank.models.training.ranker_warnings import weaknesses
from feedrank.models.training.reranker_training import RerankerTraining
from feedrank.models.training.training import TrainedRanker

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class RetrainOptions:
    """How to run one retraining."""

    name: str | None = None
    """Name of the candidate's bundle and of the report; None: a timestamp."""
    days: float | None = None
    """Train only on the last days of the journal; None: on all of it."""
    warm_start: bool = False
    """Continue from the incumbent's trees."""
    tuned: bool = False
    """Use the parameters that `feedrank tune` found."""
    refit: bool = False
    """Promote a ranker that is trained on the whole window, the test slice included, instead of the measured one."""


@dataclass(frozen=True, eq=False, slots=True)
class RetrainRun:
    """A finished retraining."""

    name: str
    result: RetrainResult
    report: Mapping[str, Any]
    report_page: Path
    """The report as HTML; the JSON is beside it."""
    recall_bundle: str | None = None
    """Name of the bundle in recall order that serves now, as nothing else did; None: none was made."""


@dataclass(frozen=True, eq=False, slots=True)
class _Current:
    """The current bundle as the gate sees it."""

    name: str | None
    """None: there is none."""
    incumbent: Incumbent | None = None
    problem: str = ""
    """Why there is a current bundle but no incumbent, in a sentence."""
    warnings: tuple[str, ...] = ()
    """What is wrong with it, one sentence each."""


def retrain_bundle(home: HomePaths, config: Config, options: RetrainOptions, progress: ShowProgress) -> RetrainRun:
    """Train a candidate and promote it if it passes the gate; the report is written to HOME/reports/NAME, also of a run
    that fails.

    Raises TrainingBusyError if another training runs, BundleError for an invalid or taken name, and ValueError if the
    journal has too little to train on.
    """
    name = options.name or timestamped_name("retrained")
    with training_lock(home):
        check_bundle_name(home, name)
        started = time.perf_counter()
        try:
            return _retrain(home, config, replace(options, name=name), progress, started)
        except Exception as problem:
            message = str(problem).partition("\n[SQL")[0] or type(problem).__name__
            report = retrain_report.failure_report(name, message, _run_info(options, started))
            if home.folder.is_dir():
                with suppress(OSError):  # what failed is raised below
                    retrain_report.write_report(home.reports / name, report)
            raise


def _retrain(
    home: HomePaths, config: Config, options: RetrainOptions, progress: ShowProgress, started: float
) -> RetrainRun:
    name, now = options.name or "", time.time()
    config = with_tuned_parameters(home, config) if options.tuned else config
    since = None if options.days is None else now - options.days * DAY_S
    inputs = load_training_inputs(home, config, embedding_progress(progress), since)
    current = _load_current(home, config, now)
    context = RetrainContext(options.warm_start, current.problem, _models_learnt_until(config))
    result = retraining.retrain(
        inputs.item_inputs, inputs.log, current.incumbent, config.training_settings, config.retrain, progress, context
    )
    notes, warnings = (*inputs.notes, *result.notes), (*current.warnings, *result.warnings)
    result = replace(result, notes=notes, warnings=warnings)
    trained, until, recall_bundle = result.trained, result.test.learnable_until, None
    if options.refit and result.decision.promote:
        result, trained, until = _refit(inputs, config, progress, result)
    if trained is not None:
        progress("writing the bundle", 0, 0)
        metrics = {row.metric: row.value for row in result.rows if (row.dataset, row.method) == ("all", "candidate")}
        fields = {"metrics": metrics, "trained_until": until}
        seconds = round(time.perf_counter() - started, 1)
        save_trained_bundle(home, config, name, inputs, trained, fields, seconds, promote=False)
        if (found := registry.current_name(home.bundles)) != current.name:
            reason = f"the current bundle changed from {current.name} to {found} while the candidate was trained"
            reasons = (f"{reason}: retrain to compare with it", *result.decision.reasons)
            result = replace(result, decision=replace(result.decision, promote=False, reasons=reasons))
        if result.decision.promote:
            registry.promote(home.bundles, name)
        else:
            recall_bundle = save_recall_bundle(home, config, inputs)
    incumbent_name = current.name if current.incumbent is None else current.incumbent.name
    names = {"candidate": None if trained is None else name, "incumbent": incumbent_name}
    extra = {
        "window": dict(inputs.window),
        "incumbent_trained_until": current.incumbent.trained_until if current.incumbent else None,
        "current": registry.current_name(home.bundles),
        **_run_info(options, started),
    }
    report = retrain_report.build_report(name, result, {role: of for role, of in names.items() if of}, extra)
    _, page = retrain_report.write_report(home.reports / name, report)
    return RetrainRun(name, result, report, page, recall_bundle)


def _run_info(options: RetrainOptions, started: float) -> dict[str, Any]:
    seconds = round(time.perf_counter() - started, 1)
    return {"refit": options.refit, "warm_start": options.warm_start, "seconds": seconds}


def _refit(
    inputs: TrainingInputs, config: Config, progress: ShowProgress, result: RetrainResult
) -> tuple[RetrainResult, TrainedRanker | None, float]:
    """Train on the whole window; a ranker that should not replace recall order is not used, and a warning says so."""
    refitted = train(inputs, config, progress)
    found = weaknesses(refitted)
    if not found:
        return result, refitted, float(inputs.log.at.max())
    more = tuple(f"the refit ranker is not used, but the measured one: {line}" for line in found)
    return replace(result, warnings=(*result.warnings, *more)), result.trained, result.test.learnable_until


def _load_current(home: HomePaths, config: Config, now: float) -> _Current:
    """Load the current bundle, or a previous one that serves in its place, or say why there is nothing to compare."""
    if not (home.current_bundle.is_symlink() or home.current_bundle.exists()):
        return _Current(None)
    name = registry.current_name(home.bundles)
    warnings: list[str] = []
    try:
        opened = registry.load_current(home.bundles, warnings.append)
        model = bundle.load_cross_encoder(opened, config.cross_encoder.threads)
    except MemoryError:
        raise
    except Exception as problem:  # of another version, damaged, or with parts that are not installed
        return _Current(name, None, f"the incumbent {name} can't be loaded ({problem})", tuple(warnings))
    incumbent = Incumbent(
        opened.name, opened.builder, opened.ranker, bundle.read_histogram(opened.folder),
        _trained_until(home, config, opened, now, warnings.append), opened.first_stage,
        None if model is None else RerankerTraining(model, config.cross_encoder.top_k, 0.0),
    )  # fmt: skip
    return _Current(name, incumbent, "", tuple(warnings))


def _trained_until(home: HomePaths, config: Config, opened: Bundle, now: float, warn: Callable[[str], None]) -> float:
    """Return the unix seconds of the last event that a bundle has learnt.

    If the clock was ahead when it was built, or is behind now, the bundle's journal offset decides, and `warn` says so.
    Raises ValueError if the journal does not have this offset: it is another one.
    """
    built_at = bundle.built_ms(opened) / 1000
    until = learnt_until(opened.manifest, built_at, now)
    if not np.isnan(until) or opened.ranker is None:
        return until
    offset = bundle.journal_offset_of(opened)
    journal = home.existing_journal(config.journal.url)
    if not 0 < offset <= journal.last_offset:
        raise ValueError(
            f"found that the bundle {opened.name} was built in the future: the clock of this machine is wrong, or was"
            " wrong then; set it, or replace the bundle with `feedrank train`"
        )
    warn(f"the bundle {opened.name} was built in the future; what it has learnt ends at the journal's offset {offset}")
    return _latest_time(journal, offset, round(now * 1000) + MAX_AHEAD_MS)


def _models_learnt_until(config: Config) -> float:
    """Return the unix seconds of the last journal event that a text model was fine-tuned on, by its model card.

    NaN if no model of the config was.
    """
    from feedrank.models.finetune.model_folder import read_card

    latest = float("nan")
    for name in (config.embedder.model, config.late_interaction.model, config.cross_encoder.model):
        last = read_card(Path(name)).get("trained_on", {}).get("journal", {}).get("last") if name else None
        latest = latest if last is None else float(np.fmax(latest, float(last)))
    return latest


def _latest_time(journal: Journal, last_offset: int, limit_ms: int) -> float:
    """Return the latest time, in unix seconds, of the events up to an offset that are not ahead of a limit."""
    latest = 0
    for offset, event in journal.read():
        if offset > last_offset:
            break
        if not isinstance(event, ItemEvent) and (time_ms := valid_from(event)) <= limit_ms:
            latest = max(latest, time_ms)
    return latest / 1000
