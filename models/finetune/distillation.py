"""Distill a large cross-encoder into a small one (Hinton et al. 2015; Hofstätter et al. 2020).

The student is initialised as a projection of its teacher (`student_init`). It is then regressed on the teacher's scores
over whole candidate lists (`distillation_loss`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feedrank.models.finetune import model_folder, training_samples
from feedrank.models.finetune.distillation_loss import with_target_scores
from feedrank.models.finetune.distillation_settings import DistillSettings
from feedrank.models.finetune.finetuning import FinetuneResult, check_libraries
from feedrank.models.finetune.samples import QueryTextGroups, with_hard_negatives
from feedrank.models.finetune.synthetic_queries import with_synthetic_queries
from feedrank.models.text.model_weights import find_weights
from feedrank.models.training.training import Progress


def distill(
    teacher: str,
    groups: QueryTextGroups,
    out: Path,
    settings: DistillSettings | None = None,
    trained_on: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
    validation: QueryTextGroups | None = None,
) -> FinetuneResult:
    """Train a student of a cross-encoder (folder or model name) and write it to the folder `out`.

    The labels are used to validate the student's ranking, and have a small weight in the loss. validation: groups to
    validate on instead of a share of `groups`. trained_on: description of the data for the model card.
    An interrupted run resumes when called again with the same teacher, groups and settings.
    Raises ValueError if `out` holds something else, a library is missing, or the teacher can't have such a student.
    """
    settings = settings or DistillSettings()
    check_libraries()
    folder = find_weights(teacher)
    base = model_folder.provenance(folder, teacher, None)
    used_settings = {key: value for key, value in asdict(settings).items() if key != "minutes"}
    fingerprint = model_folder.run_fingerprint(
        {"model_type": "student", "teacher": base["digest"], "settings": used_settings, "groups": groups.digest}
        | ({} if validation is None else {"validation": validation.digest})
    )
    work = model_folder.work_folder(out, fingerprint)
    train, held_out = (
        groups.split(settings.validation_share, settings.seed, keep_without_positives=True)
        if validation is None
        else (groups, validation)
    )
    validation = held_out.subsample(settings.validation_groups, settings.validation_texts, settings.seed)
    train = train.subsample(len(train), settings.max_group_texts, settings.seed)
    if settings.synthetic_queries:
        train = with_synthetic_queries(train, settings.synthetic_queries, settings.seed)
    if settings.extra_negatives:
        train = with_hard_negatives(train, settings.extra_negatives, settings.seed)
    progress("loading the teacher", 0, 0)
    # these import torch
    from feedrank.models.finetune import distillation_run, model_types, teacher_outputs, text_training

    text_training.silence_libraries()
    text_training.seed_everything(settings.seed)
    teacher_model = distillation_run.load_teacher(folder, settings)
    outputs = teacher_outputs.load_or_compute(teacher_model, train, settings, work / "teacher", progress)
    progress("teacher scores of the validation groups", 0, 0)
    teacher_scores = model_types.cross_encoder_scores(teacher_model, validation)
    mean, std = float(outputs.scores.mean()), float(outputs.scores.std()) or 1.0
    columns = training_samples.listwise_samples(train, settings.negatives, settings.epochs, settings.seed)
    columns = with_target_scores(columns, train, ((outputs.scores - mean) / std).tolist())
    text_training.seed_everything(settings.seed)
    student_model = distillation_run.init_student(teacher_model, outputs.directions, settings, mean, std)
    run = distillation_run.build_run(student_model, outputs, train, columns, validation, teacher_scores, settings, std)
    result = text_training.train(run, settings, work, "student", progress)
    distillation_run.restore_scale(student_model, mean, std)
    card = {
        "model_type": "student",
        "base": [base],
        "licence": base["licence"],
        "trained_on": dict(trained_on or {}),
        "groups": {"training": len(train), "validation": len(validation)},
        "settings": used_settings,
        "seed": settings.seed,
        "teacher": distillation_run.ranking_metrics(teacher_scores, validation),
        "fingerprint": fingerprint,
        **result.card_fields,
    }
    progress("writing the model", 0, 0)
    model_folder.publish(
        out, lambda temporary: student_model.save_pretrained(str(temporary), create_model_card=False), card
    )
    if result.finished:
        shutil.rmtree(work, ignore_errors=True)
    return FinetuneResult(out, card)
