"""Hyper-parameters of the ranker, searched by Optuna on the validation slice; the test slice is never looked at.

Trials are kept in a database, so that a search that is broken off goes on, and a search on the same groups adds to what
is known. Tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.ranker import DEFAULTS, LambdaRanker
from models.training import Prepared

SPACE: dict[str, tuple[float, float, bool]] = {
    "num_leaves": (4, 64, True),
    "min_data_in_leaf": (10, 400, True),
    "learning_rate": (0.02, 0.3, True),
    "feature_fraction": (0.2, 1.0, False),
    "bagging_fraction": (0.4, 1.0, False),
    "lambda_l2": (0.1, 100.0, True),
    "lambdarank_truncation_level": (10, 100, True),
}
"""LightGBM parameter -> least, most, whether on a logarithmic scale."""
WHOLE = ("num_leaves", "min_data_in_leaf", "lambdarank_truncation_level")


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best parameters so far."""

    parameters: dict[str, float]
    value: float
    """Validation metric of the best trial; it was chosen for being high, so it flatters."""
    usual: float
    """The same of the parameters that the search started from."""
    trials: int
    """Finished, over all sessions."""


def tune(
    prepared: Prepared,
    storage: Path,
    minutes: float,
    trials: int | None = None,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> Tuned:
    """Search for so many minutes, or trials, whichever is over first; the first trial is what is used today.

    Parameters that the settings name are not searched.
    storage: an SQLite file of trials, made where it is not there. progress: called after each trial with (trials
    finished, best value). Raises ValueError where Optuna is not installed.
    """
    optuna = _optuna()
    usual = DEFAULTS | dict(prepared.ranker.parameters)
    searched = [name for name in SPACE if name not in prepared.ranker.parameters]
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}",
        study_name=_name(prepared),
        sampler=optuna.samplers.TPESampler(seed=prepared.ranker.seed),
        direction="maximize",
        load_if_exists=True,
    )

    def measured(trial: Any) -> float:
        parameters = usual | {name: _suggested(trial, name) for name in searched}
        settings = replace(prepared.ranker, parameters=parameters, refit=False, seeds=1)
        names, fingerprint = prepared.builder.names, prepared.builder.fingerprint
        ranker = LambdaRanker.train(prepared.train, prepared.validation, names, fingerprint, settings)
        return max(ranker.learning_curve)

    def told(study: Any, _: Any) -> None:
        progress(len(_finished(study)), study.best_value)

    start = {name: _clipped(name, usual[name]) for name in searched}
    study.enqueue_trial(start, skip_if_exists=True)
    study.optimize(measured, n_trials=trials, timeout=minutes * 60, callbacks=[told])
    finished = _finished(study)
    usual_value = next((one.value for one in finished if one.params == start), float("nan"))
    return Tuned(dict(study.best_params), float(study.best_value), usual_value, len(finished))


def as_toml(tuned: Tuned) -> str:
    """A config file with these parameters."""
    lines = [f"{name} = {value:.6g}" for name, value in tuned.parameters.items()]
    return "\n".join(
        [
            f"# validation {tuned.value:.4f}, with the parameters before {tuned.usual:.4f}; {tuned.trials} trials",
            "[ranker.parameters]",
            *lines,
            "",
        ]
    )


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError("tuning wants Optuna, which is not installed: pip install 'feedrank[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _name(prepared: Prepared) -> str:
    """Trials are comparable on the same groups and settings alone."""
    rows = sum(len(part.labels) for part in prepared.train)
    asked = hashlib.sha256(repr(prepared.ranker).encode()).hexdigest()[:8]
    return f"{prepared.builder.fingerprint}-{rows}-{len(prepared.validation.labels)}-{asked}"


def _suggested(trial: Any, name: str) -> float:
    least, most, log = SPACE[name]
    if name in WHOLE:
        return int(trial.suggest_int(name, int(least), int(most), log=log))
    return float(trial.suggest_float(name, least, most, log=log))


def _clipped(name: str, value: float) -> float:
    least, most, _ = SPACE[name]
    held = min(max(value, least), most)
    return int(held) if name in WHOLE else float(held)


def _finished(study: Any) -> list[Any]:
    return [one for one in study.trials if one.value is not None]
