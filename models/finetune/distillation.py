"""A small cross-encoder that learns to score as a large one does (Hinton et al. 2015; Hofstätter et al. 2020).

The student begins as a projection of its teacher (`student`) and is regressed on the teacher's scores over whole lists
of candidates (`score_loss`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.finetune import model_folder, pair_draws
from models.finetune.finetuning import Learnt, check_least, check_libraries, check_pace
from models.finetune.made_up import with_made_up_queries
from models.finetune.pairs import PairGroups, with_hard_negatives
from models.finetune.score_loss import Weights, with_scores
from models.text.weights import find_weights
from models.training import Progress


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a student is."""

    layers: int = 3
    width: int = 192
    heads: int = 6
    neurons: int = 384
    """Of the feed-forward part of a layer."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "neurons"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, heads are {self.heads}; expected a multiple of the heads")


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """What distillation is told."""

    shape: Shape = field(default_factory=Shape)
    epochs: int = 8
    batch_size: int = 8
    """Queries a step."""
    learning_rate: float = 5e-4
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    texts: int = 24
    """Texts of a training group that the teacher scores at most, before further ones are added."""
    candidates: int = 12
    """Texts beside those that answer which a step sees of a query."""
    further: int = 8
    """Texts of other queries that each training query is given besides, half of them by BM25."""
    made_up: float = 0.5
    """Queries made of the texts' own words, as a share of the training groups: the teacher judges these too."""
    loss: Weights = field(default_factory=lambda: Weights(squares=1.0, divergence=1.0, answers=0.3))
    """What counts: by default also a little what the labels say, where the teacher may be wrong. The softmaxes of the
    divergence are those of scores on the teacher's own scale."""
    states: float = 1.0
    """Weight of the hidden states' distance from the teacher's at the beginning; a tenth of it at the end. They are
    kept on disk until training is over: about 1 KB a token with the usual shape. 0: neither kept nor used."""
    max_tokens: int = 64
    """Of both texts together; 0: as many as the teacher reads."""
    patience: int = 4
    evaluations: int = 1
    validation_share: float = 0.1
    validation_groups: int = 400
    validation_texts: int = 30
    bfloat16: bool = False
    minutes: float = 0.0
    """No step begins after this long; called again, training goes on. 0: no limit."""
    seed: int = 7

    def __post_init__(self) -> None:
        check_pace(self)
        check_least(self, texts=2, candidates=1, further=0, made_up=0, states=0)


def distill(
    teacher: str,
    groups: PairGroups,
    out: Path,
    settings: DistillSettings | None = None,
    trained_on: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
    validation: PairGroups | None = None,
) -> Learnt:
    """Train a student of a cross-encoder (a folder or a name) on groups, and write it to the folder `out`.

    The labels are what the student's order is validated by, and count a little in what it learns. A run that is
    broken off goes on when called again with the same teacher, groups and settings.
    Raises ValueError where something else is at `out`, a library is missing, or the teacher can't have such a student.
    """
    settings = settings or DistillSettings()
    check_libraries()
    folder = find_weights(teacher)
    base = model_folder.origin(folder, teacher, None)
    told = {key: value for key, value in asdict(settings).items() if key != "minutes"}
    mark = model_folder.fingerprint(
        {"kind": "student", "teacher": base["digest"], "settings": told, "groups": groups.digest}
        | ({} if validation is None else {"validation": validation.digest})
    )
    work = model_folder.unfinished(out, mark)
    train, apart = (
        groups.split(settings.validation_share, settings.seed, unanswered=True)
        if validation is None
        else (groups, validation)
    )
    validation = apart.thinned(settings.validation_groups, settings.validation_texts, settings.seed)
    train = train.thinned(len(train), settings.texts, settings.seed)
    if settings.made_up:
        train = with_made_up_queries(train, settings.made_up, settings.seed)
    if settings.further:
        train = with_hard_negatives(train, settings.further, settings.seed)
    progress("loading the teacher", 0, 0)
    from models.finetune import student_course, teacher_reading, text_kinds, text_training  # they import torch

    text_training.quiet()
    text_training.seeded(settings.seed)
    large = student_course.load_teacher(folder, settings)
    reading = teacher_reading.read(
        large, train, settings.shape, work / "teacher", settings.states > 0, settings.bfloat16, settings.seed, progress
    )
    progress("the teacher's order of the validation groups", 0, 0)
    wanted = text_kinds.score_pairs(large, validation)
    mean, spread = float(reading.scores.mean()), float(reading.scores.std()) or 1.0
    columns = pair_draws.lists(train, settings.candidates, settings.epochs, settings.seed)
    columns = with_scores(columns, train, ((reading.scores - mean) / spread).tolist())
    text_training.seeded(settings.seed)
    small = student_course.begin(large, reading.directions, settings, mean, spread)
    course = student_course.course(small, reading, train, columns, validation, wanted, settings, spread)
    passed = text_training.train(course, settings, work, "student", progress)
    student_course.unscale(small, mean, spread)
    card = {
        "kind": "student",
        "base": [base],
        "licence": base["licence"],
        "trained_on": dict(trained_on or {}),
        "groups": {"training": len(train), "validation": len(validation)},
        "settings": told,
        "seed": settings.seed,
        "teacher": student_course.measured(wanted, validation),
        "fingerprint": mark,
        **passed.card,
    }
    progress("writing the model", 0, 0)
    model_folder.publish(out, lambda aside: small.save_pretrained(str(aside), create_model_card=False), card)
    if passed.finished:
        shutil.rmtree(work, ignore_errors=True)
    return Learnt(out, card)
