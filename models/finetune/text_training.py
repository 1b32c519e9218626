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
from typing import Any, Protocol

import datasets
import numpy as np
import torch
import transformers
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from feedrank.engine.types import Scores
from feedrank.models.atomic_files import written_aside
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.finetune.samples import PairGroups
from feedrank.models.training.training import Progress

METRIC = "mrr"
STATE = "trainer_state.json"
"""The last file that is written to a checkpoint; without it the checkpoint is incomplete."""
BOOK = "feedrank-run.json"
Measure = Callable[[Any], dict[str, float]]
"""Compute metric -> value for the current state of a model."""


class Pace(Protocol):
    """Settings that fine-tuning and distillation share."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_share(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def bfloat16(self) -> bool: ...
    @property
    def minutes(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, eq=False, slots=True)
class Course:
    """Inputs of one training run."""

    model: Any
    trainer: Any
    """Class of the trainer."""
    arguments: Any
    """Class of the trainer's arguments."""
    columns: Mapping[str, list[object]]
    """Training set of all epochs, by column."""
    loss: Any
    measure: Measure
    """Must return `mrr`, which selects the best checkpoint."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional training arguments."""
    callbacks: tuple[TrainerCallback, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """Metrics and cost of a training run."""

    before: dict[str, float]
    """Validation metrics before training."""
    after: dict[str, float]
    """Validation metrics of the best checkpoint."""
    steps: int
    seconds: float
    """Total over all sessions of the run."""
    finished: bool
    """False if the time limit was reached before the last epoch or early stopping."""

    def then(self, later: Passed) -> Passed:
        """Combine this run with a later run that continued from it."""
        steps, seconds = self.steps + later.steps, round(self.seconds + later.seconds, 1)
        return Passed(self.before, later.after, steps, seconds, later.finished)

    @property
    def card(self) -> dict[str, Any]:
        """Return the fields of the model card that describe this run."""
        return {
            "validation": {"metric": METRIC, "before": self.before, "after": self.after},
            "steps": self.steps,
            "seconds": self.seconds,
            "finished": self.finished,
        }


def quiet() -> None:
    """Disable progress bars and logging of the libraries; progress is reported through the callback."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no types
    datasets.disable_progress_bars()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def seeded(seed: int) -> None:
    """Seed all random generators; call it before new layers are created."""
    transformers.set_seed(seed)


def mean_reciprocal_rank(scores: Scores, groups: PairGroups) -> float:
    """Compute the mean reciprocal rank of the scores; among equal scores, negatives rank first."""
    pessimistic = np.lexsort((groups.labels, groups.owner))
    ranked = pessimistic[order(scores[pessimistic], groups.offsets)]
    return float(evaluate([METRIC], groups.labels[ranked], groups.offsets)[METRIC].mean())


def train(course: Course, pace: Pace, folder: Path, what: str, progress: Progress) -> Passed:
    """Train the model in place and restore its best checkpoint.

    checkpoint_folder: an interrupted run of the same inputs resumes from its last checkpoint there. label: name of the
    run in progress reports. Pass the model untrained: it is evaluated before training.
    """
    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    run_state = _Book(folder / BOOK)
    metrics_before = run_state.before
    if metrics_before is None:
        progress(f"{what}: {METRIC} before training", 0, 0)
        metrics_before = run_state.begin(course.measure(course.model))
    course.model.model_card_data.local_files_only = True
    dataset = datasets.Dataset.from_dict(dict(course.columns))
    steps = max(1, -(-len(dataset) // pace.batch_size))
    evaluation_interval = max(1, steps // (pace.epochs * pace.evaluations))
    arguments = course.arguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=pace.batch_size,
        learning_rate=pace.learning_rate,
        warmup_steps=max(1, round(steps * pace.warmup_share)),
        weight_decay=pace.weight_decay,
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
        seed=pace.seed,
        data_seed=pace.seed,
        bf16=pace.bfloat16,
        use_cpu=course.model.device.type == "cpu",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        **course.extra,
    )
    monitor = _Watch(what, progress, run_state, pace.minutes)
    trainer = _without_card(course.trainer)(
        model=course.model,
        args=arguments,
        train_dataset=dataset,
        loss=course.loss,
        evaluator=_Evaluator(course.measure),
        callbacks=[EarlyStoppingCallback(pace.patience), monitor, *course.callbacks],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    course.model.eval()
    metrics_after = course.measure(course.model)
    run_state.note()
    steps_done, seconds = int(trainer.state.global_step), round(run_state.seconds, 1)
    return Passed(metrics_before, metrics_after, steps_done, seconds, not monitor.out_of_time)


def _without_card(trainer: Any) -> Any:
    """Subclass a trainer so that it does not collect examples for the library's model card; we write our own."""
    return type(trainer.__name__, (trainer,), {"add_model_card_callback": lambda self, arguments: None})


def _last_checkpoint(folder: Path) -> str | None:
    """Return the last complete checkpoint; delete incomplete ones of an interrupted run."""
    complete: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            step = int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"])
            complete[step] = checkpoint
        except (OSError, ValueError, KeyError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(complete[max(complete)]) if complete else None


class _Book:
    """Persist a run's initial metrics and elapsed time across sessions, in a file next to its checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        self.before: dict[str, float] | None = stored.get("before")
        self._earlier = float(stored.get("seconds", 0))
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._started

    @property
    def session(self) -> float:
        """Return the elapsed seconds of this session."""
        return time.perf_counter() - self._started

    def begin(self, before: dict[str, float]) -> dict[str, float]:
        self.before = before
        self.note()
        return before

    def note(self) -> None:
        with written_aside(self._path) as temporary:
            temporary.write_text(json.dumps({"before": self.before, "seconds": self.seconds}) + "\n", encoding="utf-8")


class _Evaluator(BaseEvaluator):
    """Evaluate a model for its trainer."""

    def __init__(self, measure: Measure) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no types
        self._measure = measure
        self.primary_metric = METRIC

    def __call__(self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1) -> Any:
        return self._measure(model)


class _Watch(TrainerCallback):
    """Report progress, save the run state, and stop with a checkpoint at the time limit."""

    def __init__(self, what: str, progress: Progress, book: _Book, minutes: float) -> None:
        self._what = what
        self._progress = progress
        self._book = book
        self._limit = minutes * 60 if minutes else float("inf")
        self._value = (book.before or {}).get(METRIC, float("nan"))
        self.out_of_time = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(f"{self._what}: {METRIC} {self._value:.3f}", state.global_step, state.max_steps)
        if self._book.session >= self._limit and state.global_step < state.max_steps:
            self.out_of_time = True
            control.should_training_stop = control.should_evaluate = control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._value = kwargs.get("metrics", {}).get(f"eval_{METRIC}", self._value)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._book.note()
