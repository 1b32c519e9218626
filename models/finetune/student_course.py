"""How a student is taught: made from its teacher, regressed on its scores, measured against it and the labels."""

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

from engine.types import Scores
from models.finetune import student
from models.finetune.distillation import DistillSettings
from models.finetune.pair_draws import Columns
from models.finetune.pairs import PairGroups
from models.finetune.score_loss import ScoreLoss, Weights
from models.finetune.student import INPUTS
from models.finetune.teacher_reading import Reading
from models.finetune.text_kinds import has_head, score_pairs, shortened
from models.finetune.text_training import Course, mean_reciprocal_rank

LEFT = 0.1
"""What is left at the end of the weight that hidden states have at the beginning."""
AGREEMENT = "agreement"
"""Mean Spearman correlation of a student's scores with the teacher's within a group."""


class StateLoss(ScoreLoss):
    """The loss of the scores, and how far the hidden states are from those that the teacher had of the same pairs.

    The teacher's states are seen through the directions that the student has (Sun et al., Patient Knowledge
    Distillation, 2019); their weight falls from step to step.
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
        """Share of the training that is over."""

    def read(self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor | float]:
        """The scores, and the mean squared distance of the states in units of their spread."""
        if not self._states:
            return super().read(features, pairs)
        small = self.model[0].model
        inputs = {name: features[name] for name in INPUTS if name in features}
        found = small(**inputs, output_hidden_states=True)
        kept = inputs["attention_mask"].bool()
        own = torch.cat([state[kept].float() for state in found.hidden_states[1:]], dim=1)
        wanted = self._reading.of([self._places[pair] for pair in pairs]).to(own.device)
        apart = ((own - wanted) / self._spread.to(own.device)).square().mean()
        return found.logits.view(-1).float(), self._states * (1 - (1 - LEFT) * self.done) * apart


class Clock(TrainerCallback):
    """Tells the loss how much of the training is over."""

    def __init__(self, loss: StateLoss) -> None:
        self._loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before each step, also the first of a run that goes on."""
        self._loss.done = state.global_step / max(1, state.max_steps)


def load_teacher(folder: Path, settings: DistillSettings) -> Any:
    """The teacher, in case it can have such a student."""
    if not has_head(folder):
        raise ValueError(f"found no cross-encoder at {folder}; make one first: feedrank finetune cross-encoder")
    teacher = CrossEncoder(str(folder))
    student.check(teacher[0].model, settings.shape)
    return shortened(teacher, settings.max_tokens)


def begin(teacher: Any, directions: Tensor, settings: DistillSettings, mean: float, spread: float) -> Any:
    """The student as it is before training; its scores are the teacher's, less their mean and over their spread."""
    small = student.make(teacher[0].model, settings.shape, directions, settings.max_tokens)
    with torch.no_grad():
        small.classifier.bias.sub_(mean).div_(spread)
        small.classifier.weight.div_(spread)
    with tempfile.TemporaryDirectory() as folder:  # the library makes its own object from a folder alone
        small.save_pretrained(folder)
        teacher.tokenizer.save_pretrained(folder)
        made = CrossEncoder(folder, num_labels=1, activation_fn=nn.Identity())
    made[0].model.get_input_embeddings().requires_grad_(False)  # they are the teacher's, and there are few texts
    return shortened(made, settings.max_tokens)


def unscale(model: Any, mean: float, spread: float) -> None:
    """Give a student's scores the teacher's mean and spread, in place."""
    with torch.no_grad():
        head = model[0].model.classifier
        head.weight.mul_(spread)
        head.bias.mul_(spread).add_(mean)


def course(
    model: Any, reading: Reading, train: PairGroups, columns: Columns, validation: PairGroups, wanted: Scores,
    settings: DistillSettings, sharpness: float,
) -> Course:  # fmt: skip
    """All that a run of training is given.

    reading: what the teacher made of the training groups; wanted: its scores of the validation groups; sharpness: what
    the softmaxes of the divergence multiply standardised scores by.
    """

    def measure(now: Any) -> dict[str, float]:
        scores = score_pairs(now, validation)
        return {**measured(scores, validation), AGREEMENT: agreement(scores, wanted, validation)}

    owner = train.owner.tolist()
    places = {(train.queries[group], text): n for n, (group, text) in enumerate(zip(owner, train.texts, strict=True))}
    weights = replace(settings.loss, sharpness=settings.loss.sharpness * sharpness)
    loss = StateLoss(model, weights, reading, places, settings.states, settings.seed)
    return Course(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, columns, loss, measure, callbacks=(Clock(loss),)
    )


def measured(scores: Scores, validation: PairGroups) -> dict[str, float]:
    """How well scores order the validation groups by their labels."""
    return {"mrr": mean_reciprocal_rank(scores, validation)}


def agreement(scores: Scores, wanted: Scores, groups: PairGroups) -> float:
    """Mean rank correlation over the groups; one in which either gives all texts the same counts as 0."""
    values = []
    for first, stop in zip(groups.offsets[:-1].tolist(), groups.offsets[1:].tolist(), strict=True):
        ranks = [rankdata(one[first:stop]) for one in (scores, wanted)]
        apart = [one - one.mean() for one in ranks]
        length = float(np.sqrt((apart[0] ** 2).sum() * (apart[1] ** 2).sum()))
        values.append(float((apart[0] * apart[1]).sum()) / length if length else 0.0)
    return float(np.mean(values))
