"""How a student is taught: made from its teacher, regressed on its scores, measured against it and the labels."""

from __future__ import annotations

import tempfile
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
from models.finetune.distillation import SAMPLE, DistillSettings
from models.finetune.pair_draws import Columns
from models.finetune.pairs import PairGroups
from models.finetune.score_loss import ScoreLoss, Weights
from models.finetune.text_kinds import has_head, score_pairs, shortened
from models.finetune.text_training import Course, mean_reciprocal_rank

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
UNTIL = 0.5
"""Share of the training for which hidden states count."""
AGREEMENT = "agreement"
"""Mean Spearman correlation of a student's scores with the teacher's within a group."""


class StateLoss(ScoreLoss):
    """The loss of the scores, and for a while also how far the hidden states are from the teacher's.

    The teacher's states are seen through the directions that the student has; the weight falls to nothing by UNTIL, and
    from then on the teacher is not asked (Sun et al., Patient Knowledge Distillation, 2019).
    """

    def __init__(self, model: Any, weights: Weights, teacher: Any, directions: Tensor, states: float) -> None:
        super().__init__(model, weights)
        self._teacher = (teacher,)  # in a tuple, so that it is no part of what is trained
        self._directions = directions
        self._states = states
        self.done = 0.0
        """Share of the training that is over."""

    def read(self, features: dict[str, Any]) -> tuple[Tensor, Tensor | float]:
        """The scores, and the mean squared distance of the states in units of the teacher's variance."""
        weight = self._states * (1 - self.done / UNTIL)
        if weight <= 0:
            return super().read(features)
        large, small = self._teacher[0], self.model[0].model
        inputs = {name: features[name] for name in INPUTS if name in features}
        found = small(**inputs, output_hidden_states=True)
        with torch.no_grad():
            states = large.bert(**inputs, output_hidden_states=True).hidden_states
        kept = inputs["attention_mask"].bool()
        u = self._directions.to(kept.device) * (self._directions.shape[1] / self._directions.shape[0]) ** 0.5
        picked = student.picked(large.config.num_hidden_layers, small.config.num_hidden_layers)
        apart: Tensor | float = 0.0
        for layer, place in enumerate(picked):
            wanted = states[place + 1][kept] @ u
            missed = (found.hidden_states[layer + 1][kept] - wanted).square().mean() / wanted.var().clamp(min=1e-6)
            apart = apart + missed / len(picked)
        return found.logits.view(-1).float(), weight * apart


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


def begin(
    teacher: Any, groups: PairGroups, settings: DistillSettings, mean: float, spread: float
) -> tuple[Any, Tensor]:
    """The student as it is before training, and the directions it has of its teacher's.

    Its scores are the teacher's, less their mean and over their spread.
    """
    places = np.random.default_rng(settings.seed).permutation(len(groups.texts))[:SAMPLE].tolist()
    owner = groups.owner
    pairs = [(groups.queries[owner[place]], groups.texts[place]) for place in places]
    large = teacher[0].model
    batches = []
    for start in range(0, len(pairs), student.BATCH):
        read = teacher.preprocess(pairs[start : start + student.BATCH])
        batches.append({name: read[name].to(large.device) for name in INPUTS if name in read})
    directions = student.principal_directions(large, batches, settings.shape.width, settings.seed)
    small = student.make(large, settings.shape, directions, settings.max_tokens)
    with torch.no_grad():
        small.classifier.bias.sub_(mean).div_(spread)
        small.classifier.weight.div_(spread)
    with tempfile.TemporaryDirectory() as folder:  # the library makes its own object from a folder alone
        small.save_pretrained(folder)
        teacher.tokenizer.save_pretrained(folder)
        made = CrossEncoder(folder, num_labels=1, activation_fn=nn.Identity())
    return shortened(made, settings.max_tokens), directions


def unscale(model: Any, mean: float, spread: float) -> None:
    """Give a student's scores the teacher's mean and spread, in place."""
    with torch.no_grad():
        head = model[0].model.classifier
        head.weight.mul_(spread)
        head.bias.mul_(spread).add_(mean)


def course(
    model: Any, teacher: Any, directions: Tensor, columns: Columns, validation: PairGroups, wanted: Scores,
    settings: DistillSettings,
) -> Course:  # fmt: skip
    """All that a run of training is given; wanted: the teacher's scores of the validation groups."""

    def measure(now: Any) -> dict[str, float]:
        scores = score_pairs(now, validation)
        return {**measured(scores, validation), AGREEMENT: agreement(scores, wanted, validation)}

    teacher.eval()
    loss = StateLoss(model, settings.loss, teacher[0].model, directions, settings.states)
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
