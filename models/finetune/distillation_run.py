"""Set up a distillation run: initialise the student, define its loss, and evaluate it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from torch import Tensor, nn
from transformers import TrainerCallback

from feedrank.engine.types import Scores
from feedrank.models.finetune import student_init
from feedrank.models.finetune.distillation_loss import ScoreDistillationLoss
from feedrank.models.finetune.distillation_settings import DistillSettings, LossWeights
from feedrank.models.finetune.model_types import cross_encoder_scores, has_classification_head, limit_tokens
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.student_init import MODEL_INPUTS
from feedrank.models.finetune.teacher_outputs import TeacherOutputs
from feedrank.models.finetune.text_training import TrainingRun, mean_reciprocal_rank
from feedrank.models.finetune.training_samples import DatasetColumns

FINAL_WEIGHT_RATIO = 0.1
"""Final weight of the hidden-state loss relative to its initial weight."""
SPEARMAN = "spearman"
"""Metric name: mean Spearman correlation of student and teacher scores within a group."""


class HiddenStateDistillationLoss(ScoreDistillationLoss):
    """Add a hidden-state loss to the score loss (Sun et al., Patient Knowledge Distillation, 2019).

    The teacher's hidden states are projected to the student's size; the weight of this term decays linearly.
    """

    def __init__(
        self,
        model: Any,
        weights: LossWeights,
        outputs: TeacherOutputs,
        pair_index: Mapping[tuple[str, str], int],
        hidden_state_weight: float,
        seed: int,
    ) -> None:
        super().__init__(model, weights)
        self._outputs = outputs
        self._pair_index = pair_index
        self._hidden_state_weight = hidden_state_weight
        self._state_std = torch.from_numpy(outputs.state_std(seed)) if hidden_state_weight else torch.empty(0)
        self.fraction_done = 0.0
        """Fraction of the training that is done, 0 to 1."""

    def forward_pairs(
        self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]
    ) -> tuple[Tensor, Tensor | float]:
        """Score pairs; the additional loss is the mean squared error of the standardised hidden states."""
        if not self._hidden_state_weight:
            return super().forward_pairs(features, pairs)
        student_model = self.model[0].model
        inputs = {name: features[name] for name in MODEL_INPUTS if name in features}
        output = student_model(**inputs, output_hidden_states=True)
        mask = inputs["attention_mask"].bool()
        states = torch.cat([state[mask].float() for state in output.hidden_states[1:]], dim=1)
        targets = self._outputs.states_of([self._pair_index[pair] for pair in pairs]).to(states.device)
        state_loss = ((states - targets) / self._state_std.to(states.device)).square().mean()
        return output.logits.view(-1).float(), self._hidden_state_weight * (
            1 - (1 - FINAL_WEIGHT_RATIO) * self.fraction_done
        ) * state_loss


class LossScheduleCallback(TrainerCallback):
    """Update the loss with the fraction of the training that is done."""

    def __init__(self, loss: HiddenStateDistillationLoss) -> None:
        self._loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run before each step, including the first step of a resumed run."""
        self._loss.fraction_done = state.global_step / max(1, state.max_steps)


def load_teacher(folder: Path, settings: DistillSettings) -> Any:
    """Load a teacher. Raises ValueError if it is no cross-encoder or does not support the student's size."""
    if not has_classification_head(folder):
        raise ValueError(f"found no cross-encoder at {folder}; train one first: feedrank finetune cross-encoder")
    teacher = CrossEncoder(str(folder))
    student_init.check_student_config(teacher[0].model, settings.student_config)
    return limit_tokens(teacher, settings.max_tokens)


def init_student(teacher: Any, directions: Tensor, settings: DistillSettings, mean: float, std: float) -> Any:
    """Build the untrained student as a CrossEncoder; its scores are standardised by the teacher's mean and std."""
    student_model = student_init.build_student(
        teacher[0].model, settings.student_config, directions, settings.max_tokens
    )
    with torch.no_grad():
        student_model.classifier.bias.sub_(mean).div_(std)
        student_model.classifier.weight.div_(std)
    with tempfile.TemporaryDirectory() as folder:  # CrossEncoder can only be created from a folder
        student_model.save_pretrained(folder)
        teacher.tokenizer.save_pretrained(folder)
        model = CrossEncoder(folder, num_labels=1, activation_fn=nn.Identity())
    model[0].model.get_input_embeddings().requires_grad_(False)  # they come from the teacher, and there are few texts
    return limit_tokens(model, settings.max_tokens)


def restore_scale(model: Any, mean: float, std: float) -> None:
    """Rescale a student's scores to the teacher's mean and std, in place."""
    with torch.no_grad():
        head = model[0].model.classifier
        head.weight.mul_(std)
        head.bias.mul_(std).add_(mean)


def build_run(
    model: Any,
    outputs: TeacherOutputs,
    train: QueryTextGroups,
    columns: DatasetColumns,
    validation: QueryTextGroups,
    teacher_scores: Scores,
    settings: DistillSettings,
    inverse_temperature: float,
) -> TrainingRun:
    """Build the distillation run for the trainer.

    outputs: teacher outputs on the training groups. teacher_scores: its scores on the validation groups.
    inverse_temperature: factor on the standardised scores in the softmaxes of the KL term.
    """

    def metrics_of(current: Any) -> dict[str, float]:
        scores = cross_encoder_scores(current, validation)
        return {**ranking_metrics(scores, validation), SPEARMAN: mean_spearman(scores, teacher_scores, validation)}

    owner = train.group_index.tolist()
    pair_index = {
        (train.queries[group], text): n for n, (group, text) in enumerate(zip(owner, train.texts, strict=True))
    }
    weights = replace(
        settings.loss_weights, inverse_temperature=settings.loss_weights.inverse_temperature * inverse_temperature
    )
    loss = HiddenStateDistillationLoss(model, weights, outputs, pair_index, settings.hidden_state_weight, settings.seed)
    return TrainingRun(
        model,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        columns,
        loss,
        metrics_of,
        callbacks=(LossScheduleCallback(loss),),
    )


def ranking_metrics(scores: Scores, validation: QueryTextGroups) -> dict[str, float]:
    """Compute the ranking metrics of scores on the labelled validation groups."""
    return {"mrr": mean_reciprocal_rank(scores, validation)}


def mean_spearman(scores: Scores, teacher_scores: Scores, groups: QueryTextGroups) -> float:
    """Compute the mean Spearman correlation over the groups; a group with constant scores counts as 0."""
    correlations = []
    for first, stop in zip(groups.offsets[:-1].tolist(), groups.offsets[1:].tolist(), strict=True):
        ranks = [rankdata(values[first:stop]) for values in (scores, teacher_scores)]
        centred = [rank - rank.mean() for rank in ranks]
        norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
        correlations.append(float((centred[0] * centred[1]).sum()) / norm if norm else 0.0)
    return float(np.mean(correlations))
