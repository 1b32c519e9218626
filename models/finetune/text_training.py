"""One run of a sentence-transformers trainer: measured on held-out groups, stopped early, and taken up again.

The trainer writes a checkpoint wherever it measures. A checkpoint holds PyTorch files, which are read as weights only;
all of them go when the run is done.
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

from engine.types import Scores
from models.files import written_aside
from models.finetune.pairs import PairGroups
from models.metrics import evaluate, order
from models.training import Progress

METRIC = "mrr"
STATE = "trainer_state.json"
"""What a checkpoint is written last of all with."""
BOOK = "feedrank-run.json"
Measure = Callable[[Any], dict[str, float]]
"""Metric -> value of a model as it is now."""


class Pace(Protocol):
    """How long and how fast is learnt: what fine-tuning and distillation are both told."""

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
    """What a trainer is given."""

    model: Any
    trainer: Any
    """The trainer's class."""
    arguments: Any
    """The class of its arguments."""
    columns: Mapping[str, list[object]]
    """The training set of all epochs, column by column."""
    loss: Any
    measure: Measure
    """Must give `mrr`, by which the best checkpoint is known."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further training arguments."""
    callbacks: tuple[TrainerCallback, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """How a run went."""

    before: dict[str, float]
    """Metrics of the model as it was."""
    after: dict[str, float]
    """Metrics of the best checkpoint."""
    steps: int
    seconds: float
    """Of all sessions."""
    finished: bool
    """False: time was up before the last epoch was over or patience was."""

    def then(self, later: Passed) -> Passed:
        """This run and one that went on from it."""
        steps, seconds = self.steps + later.steps, round(self.seconds + later.seconds, 1)
        return Passed(self.before, later.after, steps, seconds, later.finished)

    @property
    def card(self) -> dict[str, Any]:
        """What a model's card says of it."""
        return {
            "validation": {"metric": METRIC, "before": self.before, "after": self.after},
            "steps": self.steps,
            "seconds": self.seconds,
            "finished": self.finished,
        }


def quiet() -> None:
    """No bars and no chatter; progress goes through the callback."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no types
    datasets.disable_progress_bars()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def seeded(seed: int) -> None:
    """Everything that draws at random begins with this; new layers are made after it."""
    transformers.set_seed(seed)


def mean_reciprocal_rank(scores: Scores, groups: PairGroups) -> float:
    """MRR of the order that scores give; of equal scores, the text that does not answer comes first."""
    worst = np.lexsort((groups.labels, groups.owner))
    by = worst[order(scores[worst], groups.offsets)]
    return float(evaluate([METRIC], groups.labels[by], groups.offsets)[METRIC].mean())


def train(course: Course, pace: Pace, folder: Path, what: str, progress: Progress) -> Passed:
    """Train the model in place, and leave it as the best checkpoint has it.

    folder: where checkpoints are; a run of the same course that was broken off there is taken up from the last.
    The model must be as it was made from its base, since that is measured first.
    """
    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    book = _Book(folder / BOOK)
    before = book.before
    if before is None:
        progress(f"{what}: {METRIC} before", 0, 0)
        before = book.begin(course.measure(course.model))
    course.model.model_card_data.local_files_only = True
    dataset = datasets.Dataset.from_dict(dict(course.columns))
    steps = max(1, -(-len(dataset) // pace.batch_size))
    between = max(1, steps // (pace.epochs * pace.evaluations))
    arguments = course.arguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=pace.batch_size,
        learning_rate=pace.learning_rate,
        warmup_steps=max(1, round(steps * pace.warmup_share)),
        weight_decay=pace.weight_decay,
        eval_strategy="steps",
        eval_steps=between,
        save_strategy="steps",
        save_steps=between,
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
    watch = _Watch(what, progress, book, pace.minutes)
    trainer = _without_card(course.trainer)(
        model=course.model,
        args=arguments,
        train_dataset=dataset,
        loss=course.loss,
        evaluator=_Evaluator(course.measure),
        callbacks=[EarlyStoppingCallback(pace.patience), watch, *course.callbacks],
    )
    for chatty in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(chatty)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    course.model.eval()
    after = course.measure(course.model)
    book.note()
    return Passed(before, after, int(trainer.state.global_step), round(book.seconds, 1), not watch.out_of_time)


def _without_card(trainer: Any) -> Any:
    """The trainer, not gathering examples for the library's model card; ours is another."""
    return type(trainer.__name__, (trainer,), {"add_model_card_callback": lambda self, arguments: None})


def _last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint; those that were being written when the run was broken off are removed."""
    whole: dict[int, Path] = {}
    for one in folder.glob("checkpoint-*"):
        try:
            whole[int(json.loads((one / STATE).read_text(encoding="utf-8"))["global_step"])] = one
        except (OSError, ValueError, KeyError):
            shutil.rmtree(one, ignore_errors=True)
    return str(whole[max(whole)]) if whole else None


class _Book:
    """What a run must remember from session to session, in a small file beside its checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        self.before: dict[str, float] | None = found.get("before")
        self._earlier = float(found.get("seconds", 0))
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._started

    @property
    def session(self) -> float:
        """Seconds of this session alone."""
        return time.perf_counter() - self._started

    def begin(self, before: dict[str, float]) -> dict[str, float]:
        self.before = before
        self.note()
        return before

    def note(self) -> None:
        with written_aside(self._path) as aside:
            aside.write_text(json.dumps({"before": self.before, "seconds": self.seconds}) + "\n", encoding="utf-8")


class _Evaluator(BaseEvaluator):
    """Measures a model for its trainer."""

    def __init__(self, measure: Measure) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no types
        self._measure = measure
        self.primary_metric = METRIC

    def __call__(self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1) -> Any:
        return self._measure(model)


class _Watch(TrainerCallback):
    """Tells progress, keeps the book, and ends the session when time is up, with a checkpoint."""

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
