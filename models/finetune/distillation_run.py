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
from feedrank.models.finetune.distillation import DistillSettings
from feedrank.models.finetune.distillation_loss import ScoreLoss, Weights
from feedrank.models.finetune.model_types import has_head, score_pairs, shortened
from feedrank.models.finetune.samples import PairGroups
from feedrank.models.finetune.student_init import INPUTS
from feedrank.models.finetune.teacher_outputs import Reading
from feedrank.models.finetune.text_training import Course, mean_reciprocal_rank
from feedrank.models.finetune.training_samples import Columns

LEFT = 0.1
"""Final weight of the hidden-state loss relative to its initial weight."""
AGREEMENT = "agreement"
"""Metric name: mean Spearman correlation of student and teacher scores within a group."""


class StateLoss(ScoreLoss):
    """Add a hidden-state loss to the score loss (Sun et al., Patient Knowledge Distillation, 2019).

    The teacher's hidden states are projected to the student's size; the weight of this term decays linearly.
    """

    def __init__(
        self, model: Any, weights: Weights, reading: Reading, places: Mapping[tuple[str, str], int], states: float,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__(model, weights)
        self._reading = reading
        self._places = places
        self._states = states
        self._spread = torch.from_numpy(reading.spread(seed)) if states else torch.empty(0)
        self.done = 0.0
        """Fraction of the training that is done, 0 to 1."""

    def read(self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor | float]:
        """Score pairs; the additional loss is the mean squared error of the standardised hidden states."""
        if not self._states:
            return super().read(features, pairs)
        student_model = self.model[0].model
        inputs = {name: features[name] for name in INPUTS if name in features}
        output = student_model(**inputs, output_hidden_states=True)
        mask = inputs["attention_mask"].bool()
        states = torch.cat([state[mask].float() for state in output.hidden_states[1:]], dim=1)
        targets = self._reading.of([self._places[pair] for pair in pairs]).to(states.device)
        state_loss = ((states - targets) / self._spread.to(states.device)).square().mean()
        return output.logits.view(-1).float(), self._states * (1 - (1 - LEFT) * self.done) * state_loss


class Clock(TrainerCallback):
    """Update the loss with the fraction of the training that is done."""

    def __init__(self, loss: StateLoss) -> None:
        self._loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run before each step, including the first step of a resumed run."""
        self._loss.done = state.global_step / max(1, state.max_steps)


def load_teacher(folder: Path, settings: DistillSettings) -> Any:
    """Load a teacher. Raises ValueError if it is no cross-encoder or does not support the student's size."""
    if not has_head(folder):
        raise ValueError(f"found no cross-encoder at {folder}; train one first: feedrank finetune cross-encoder")
    teacher = CrossEncoder(str(folder))
    student_init.check(teacher[0].model, settings.shape)
    return shortened(teacher, settings.max_tokens)


def begin(teacher: Any, directions: Tensor, settings: DistillSettings, mean: float, spread: float) -> Any:
    """Build the untrained student as a CrossEncoder; its scores are standardised by the teacher's mean and std."""
    student_model = student_init.make(teacher[0].model, settings.shape, directions, settings.max_tokens)
    with torch.no_grad():
        student_model.classifier.bias.sub_(mean).div_(spread)
        student_model.classifier.weight.div_(spread)
    with tempfile.TemporaryDirectory() as folder:  # CrossEncoder can only be created from a folder
        student_model.save_pretrained(folder)
        teacher.tokenizer.save_pretrained(folder)
        model = CrossEncoder(folder, num_labels=1, activation_fn=nn.Identity())
    model[0].model.get_input_embeddings().requires_grad_(False)  # they come from the teacher, and there are few texts
    return shortened(model, settings.max_tokens)


def unscale(model: Any, mean: float, spread: float) -> None:
    """Rescale a student's scores to the teacher's mean and std, in place."""
    with torch.no_grad():
        head = model[0].model.classifier
        head.weight.mul_(spread)
        head.bias.mul_(spread).add_(mean)


def course(
    model: Any, reading: Reading, train: PairGroups, columns: Columns, validation: PairGroups, wanted: Scores,
    settings: DistillSettings, sharpness: float,
) -> Course:  # fmt: skip
    """Build the distillation run for the trainer.

    outputs: teacher outputs on the training groups. teacher_scores: its scores on the validation groups.
    inverse_temperature: factor on the standardised scores in the softmaxes of the KL term.
    """

    def metrics_of(current: Any) -> dict[str, float]:
        scores = score_pairs(current, validation)
        return {**measured(scores, validation), AGREEMENT: agreement(scores, wanted, validation)}

    owner = train.owner.tolist()
    pair_index = {
        (train.queries[group], text): n for n, (group, text) in enumerate(zip(owner, train.texts, strict=True))
    }
    weights = replace(settings.loss, sharpness=settings.loss.sharpness * sharpness)
    loss = StateLoss(model, weights, reading, pair_index, settings.states, settings.seed)
    return Course(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, columns, loss, metrics_of, callbacks=(Clock(loss),)
    )


def measured(scores: Scores, validation: PairGroups) -> dict[str, float]:
    """Compute the ranking metrics of scores on the labelled validation groups."""
    return {"mrr": mean_reciprocal_rank(scores, validation)}


def agreement(scores: Scores, wanted: Scores, groups: PairGroups) -> float:
    """Compute the mean Spearman correlation over the groups; a group with constant scores counts as 0."""
    correlations = []
    for first, stop in zip(groups.offsets[:-1].tolist(), groups.offsets[1:].tolist(), strict=True):
        ranks = [rankdata(values[first:stop]) for values in (scores, wanted)]
        centred = [rank - rank.mean() for rank in ranks]
        norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
        correlations.append(float((centred[0] * centred[1]).sum()) / norm if norm else 0.0)
    return float(np.mean(correlations))
