"""Run a sentence-transformers trainer with validation, early stopping and resuming.

The trainer writes a checkpoint at each evaluation. Checkpoints hold PyTorch files, which are loaded as weights only;
they are deleted when the run is finished.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from feedrank.engine.types import Scores
from feedrank.models.atomic_files import atomic_write
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.trainer_settings import TrainerSettings
from feedrank.models.training.training import Progress

METRIC = "mrr"
TRAINER_STATE_FILE = "trainer_state.json"
"""The last file that is written to a checkpoint; without it the checkpoint is incomplete."""
RUN_STATE_FILE = "feedrank-run.json"
MetricFunction = Callable[[Any], dict[str, float]]
"""Compute metric -> value for the current state of a model."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRun:
    """Inputs of one training run."""

    model: Any
    trainer_class: Any
    """Class of the trainer."""
    arguments_class: Any
    """Class of the trainer's arguments."""
    columns: Mapping[str, list[object]]
    """Training set of all epochs, by column."""
    loss: Any
    metrics_of: MetricFunction
    """Must return `mrr`, which selects the best checkpoint."""
    extra_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Additional training arguments."""
    callbacks: tuple[TrainerCallback, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Metrics and cost of a training run."""

    metrics_before: dict[str, float]
    """Validation metrics before training."""
    metrics_after: dict[str, float]
    """Validation metrics of the best checkpoint."""
    steps: int
    seconds: float
    """Total over all sessions of the run."""
    finished: bool
    """False if the time limit was reached before the last epoch or early stopping."""

    def continued_by(self, later: TrainingResult) -> TrainingResult:
        """Combine this run with a later run that continued from it."""
        steps, seconds = self.steps + later.steps, round(self.seconds + later.seconds, 1)
        return TrainingResult(self.metrics_before, later.metrics_after, steps, seconds, later.finished)

    @property
    def card_fields(self) -> dict[str, Any]:
        """Return the fields of the model card that describe this run."""
        return {
            "validation": {"metric": METRIC, "before": self.metrics_before, "after": self.metrics_after},
            "steps": self.steps,
            "seconds": self.seconds,
            "finished": self.finished,
        }


def silence_libraries() -> None:
    """Disable progress bars and logging of the libraries; progress is reported through the callback."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no types
    datasets.disable_progress_bars()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def seed_everything(seed: int) -> None:
    """Seed all random generators; call it before new layers are created."""
    transformers.set_seed(seed)


def mean_reciprocal_rank(scores: Scores, groups: QueryTextGroups) -> float:
    """Compute the mean reciprocal rank of the scores; among equal scores, negatives rank first."""
    pessimistic = np.lexsort((groups.labels, groups.group_index))
    ranked = pessimistic[order(scores[pessimistic], groups.offsets)]
    return float(evaluate([METRIC], groups.labels[ranked], groups.offsets)[METRIC].mean())


def train(
    run: TrainingRun, settings: TrainerSettings, checkpoint_folder: Path, label: str, progress: Progress
) -> TrainingResult:
    """Train the model in place and restore its best checkpoint.

    checkpoint_folder: an interrupted run of the same inputs resumes from its last checkpoint there. label: name of the
    run in progress reports. Pass the model untrained: it is evaluated before training.
    """
    silence_libraries()
    checkpoint_folder.mkdir(parents=True, exist_ok=True)
    run_state = _RunState(checkpoint_folder / RUN_STATE_FILE)
    metrics_before = run_state.metrics_before
    if metrics_before is None:
        progress(f"{label}: {METRIC} before training", 0, 0)
        metrics_before = run_state.start(run.metrics_of(run.model))
    run.model.model_card_data.local_files_only = True
    dataset = datasets.Dataset.from_dict(dict(run.columns))
    steps = max(1, -(-len(dataset) // settings.batch_size))
    evaluation_interval = max(1, steps // (settings.epochs * settings.evaluations))
    arguments = run.arguments_class(
        output_dir=str(checkpoint_folder),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, round(steps * settings.warmup_ratio)),
        weight_decay=settings.weight_decay,
        eval_strategy="steps",
        eval_steps=evaluation_interval,
        save_strategy="steps",
        save_steps=evaluation_interval,
        save_total_limit=1,
        logging_strategy="no",
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{METRIC}",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.bfloat16,
        use_cpu=run.model.device.type == "cpu",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        **run.extra_arguments,
    )
    monitor = _RunMonitor(label, progress, run_state, settings.minutes)
    trainer = _without_model_card(run.trainer_class)(
        model=run.model,
        args=arguments,
        train_dataset=dataset,
        loss=run.loss,
        evaluator=_MetricEvaluator(run.metrics_of),
        callbacks=[EarlyStoppingCallback(settings.patience), monitor, *run.callbacks],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoint_folder))
    run.model.eval()
    metrics_after = run.metrics_of(run.model)
    run_state.save()
    steps_done, seconds = int(trainer.state.global_step), round(run_state.total_seconds, 1)
    return TrainingResult(metrics_before, metrics_after, steps_done, seconds, not monitor.timed_out)


def _without_model_card(trainer: Any) -> Any:
    """Subclass a trainer so that it does not collect examples for the library's model card; we write our own."""
    return type(trainer.__name__, (trainer,), {"add_model_card_callback": lambda self, arguments: None})


def _last_checkpoint(folder: Path) -> str | None:
    """Return the last complete checkpoint; delete incomplete ones of an interrupted run."""
    complete: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            step = int(json.loads((checkpoint / TRAINER_STATE_FILE).read_text(encoding="utf-8"))["global_step"])
            complete[step] = checkpoint
        except (OSError, ValueError, KeyError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(complete[max(complete)]) if complete else None


class _RunState:
    """Persist a run's initial metrics and elapsed time across sessions, in a file next to its checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        self.metrics_before: dict[str, float] | None = stored.get("metrics_before")
        self._earlier_seconds = float(stored.get("seconds", 0))
        self._started = time.perf_counter()

    @property
    def total_seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._started

    @property
    def session_seconds(self) -> float:
        """Return the elapsed seconds of this session."""
        return time.perf_counter() - self._started

    def start(self, metrics_before: dict[str, float]) -> dict[str, float]:
        self.metrics_before = metrics_before
        self.save()
        return metrics_before

    def save(self) -> None:
        with atomic_write(self._path) as temporary:
            temporary.write_text(
                json.dumps({"metrics_before": self.metrics_before, "seconds": self.total_seconds}) + "\n",
                encoding="utf-8",
            )


class _MetricEvaluator(BaseEvaluator):
    """Evaluate a model for its trainer."""

    def __init__(self, metrics_of: MetricFunction) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no types
        self._metrics_of = metrics_of
        self.primary_metric = METRIC

    def __call__(self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1) -> Any:
        return self._metrics_of(model)


class _RunMonitor(TrainerCallback):
    """Report progress, save the run state, and stop with a checkpoint at the time limit."""

    def __init__(self, label: str, progress: Progress, run_state: _RunState, minutes: float) -> None:
        self._label = label
        self._progress = progress
        self._run_state = run_state
        self._limit_seconds = minutes * 60 if minutes else float("inf")
        self._last_metric = (run_state.metrics_before or {}).get(METRIC, float("nan"))
        self.timed_out = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(f"{self._label}: {METRIC} {self._last_metric:.3f}", state.global_step, state.max_steps)
        if self._run_state.session_seconds >= self._limit_seconds and state.global_step < state.max_steps:
            self.timed_out = True
            control.should_training_stop = control.should_evaluate = control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last_metric = kwargs.get("metrics", {}).get(f"eval_{METRIC}", self._last_metric)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run_state.save()
