"""Tune the ranker's hyper-parameters with Optuna on the validation slice; the test slice is never used.

Trials are stored in a database, so that an interrupted search can resume, and a search on the same groups adds to
earlier trials. Tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feedrank.models.training.query_groups import check_slices
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.ranker_defaults import default_parameters
from feedrank.models.training.round_choice import choose_rounds, positive_groups
from feedrank.models.training.training import TrainingData

SEARCH_SPACE: dict[str, tuple[float, float, bool]] = {
    "num_leaves": (4, 64, True),
    "min_data_in_leaf": (5, 400, True),
    "learning_rate": (0.02, 0.3, True),
    "feature_fraction": (0.2, 1.0, False),
    "bagging_fraction": (0.4, 1.0, False),
    "lambda_l2": (0.1, 100.0, True),
    "lambdarank_truncation_level": (10, 100, True),
}
"""LightGBM parameter -> minimum, maximum, True for a logarithmic scale."""
INTEGER_PARAMETERS = ("num_leaves", "min_data_in_leaf", "lambdarank_truncation_level")


@dataclass(frozen=True, slots=True)
class TuningResult:
    """The result of a search: the best parameters so far."""

    parameters: dict[str, float]
    best_value: float
    """Validation metric of the best trial; optimistic, since the trial was selected by it."""
    baseline_value: float
    """Validation metric of the initial parameters."""
    trials: int
    """Number of finished trials over all sessions."""


def tune(
    data: TrainingData,
    storage: Path,
    minutes: float,
    trials: int | None = None,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> TuningResult:
    """Search until the minutes or the trials are used up; the first trial has the current parameters.

    Parameters that the settings fix are not searched. storage: an SQLite file of trials, created if missing. progress:
    called after each trial with (finished trials, best value). Raises ValueError if Optuna is not installed, or if a
    slice has no positive label.
    """
    check_slices(data.train, data.validation)
    optuna = _optuna()
    rows = sum(len(part.labels) for part in data.train)
    baseline = default_parameters(rows, len(data.builder.names)) | dict(data.ranker.parameters)
    searched = [name for name in SEARCH_SPACE if name not in data.ranker.parameters]
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}",
        study_name=_study_name(data),
        sampler=optuna.samplers.TPESampler(seed=data.ranker.seed),
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: Any) -> float:
        parameters = baseline | {name: _suggest(trial, name) for name in searched}
        settings = replace(data.ranker, parameters=parameters, refit=False, ensemble_size=1)
        names, fingerprint = data.builder.names, data.builder.fingerprint
        ranker = LambdaRanker.train(data.train, data.validation, names, fingerprint, settings)
        curve = ranker.learning_curve
        return curve[choose_rounds(curve, positive_groups(data.validation)) - 1]

    def on_trial(study: Any, _: Any) -> None:
        progress(len(_finished_trials(study)), study.best_value)

    initial = {name: _clip(name, baseline[name]) for name in searched}
    study.enqueue_trial(initial, skip_if_exists=True)
    study.optimize(objective, n_trials=trials, timeout=minutes * 60, callbacks=[on_trial])
    finished = _finished_trials(study)
    baseline_value = next((trial.value for trial in finished if trial.params == initial), float("nan"))
    return TuningResult(dict(study.best_params), float(study.best_value), baseline_value, len(finished))


def as_toml(result: TuningResult) -> str:
    """Return a TOML config with these parameters."""
    lines = [f"{name} = {value:.6g}" for name, value in result.parameters.items()]
    return "\n".join(
        [
            f"# validation {result.best_value:.4f}, with the initial parameters"
            f" {result.baseline_value:.4f}; {result.trials} trials",
            "[ranker.parameters]",
            *lines,
            "",
        ]
    )


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError("tuning needs Optuna, which is not installed: pip install 'feedrank[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study_name(data: TrainingData) -> str:
    """Name the study by groups and settings; only trials of the same ones are comparable."""
    rows = sum(len(part.labels) for part in data.train)
    settings_digest = hashlib.sha256(repr(data.ranker).encode()).hexdigest()[:8]
    return f"{data.builder.fingerprint}-{rows}-{len(data.validation.labels)}-{settings_digest}"


def _suggest(trial: Any, name: str) -> float:
    low, high, log = SEARCH_SPACE[name]
    if name in INTEGER_PARAMETERS:
        return int(trial.suggest_int(name, int(low), int(high), log=log))
    return float(trial.suggest_float(name, low, high, log=log))


def _clip(name: str, value: float) -> float:
    low, high, _ = SEARCH_SPACE[name]
    clipped = min(max(value, low), high)
    return int(clipped) if name in INTEGER_PARAMETERS else float(clipped)


def _finished_trials(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.value is not None]
