"""Compute the distillation loss of a cross-encoder against target scores and labels, over candidate lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from feedrank.models.finetune.samples import PairGroups
from feedrank.models.finetune.training_samples import Columns, drawn


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the loss terms."""

    squares: float = 1.0
    """Weight of the mean squared error of the scores (Hofstätter et al. 2020)."""
    margins: float = 0.0
    """Weight of the squared error of score differences within a list (MarginMSE, same paper)."""
    divergence: float = 0.0
    """Weight of the KL divergence between the softmaxes of predicted and target scores (Hinton et al. 2015)."""
    answers: float = 0.0
    """Weight of the listwise cross-entropy on labelled positives, in lists with positives and negatives."""
    sharpness: float = 1.0
    """Factor on the scores before the softmaxes of the KL term."""


TOGETHER = 32
"""Query-text pairs per forward pass; they have similar lengths, so there is little padding."""


class ScoreLoss(nn.Module):
    """Sum the weighted loss terms in one forward pass.

    sentence-transformers has most of these terms as separate losses, each with its own training-set format.
    """

    def __init__(self, model: Any, weights: Weights) -> None:
        super().__init__()
        self.model = model
        self._weights = weights

    def forward(
        self, inputs: list[Any], labels: list[Tensor], prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Compute the loss of a batch.

        inputs: queries, and the texts of each query. labels: per query, its target scores followed by its labels.
        """
        queries, lists = inputs
        pairs = [(query, text) for query, texts in zip(queries, lists, strict=True) for text in texts]
        by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
        parts: list[Tensor] = []
        extra_loss: Tensor | float = 0.0
        for first in range(0, len(pairs), TOGETHER):
            chunk = [pairs[index] for index in by_length[first : first + TOGETHER]]
            features = self.model.preprocess(chunk, prompt=prompt, task=task)
            device = self.model.device
            features = {
                name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()
            }
            scores, chunk_loss = self.read(features, chunk)
            parts.append(scores)
            extra_loss = extra_loss + chunk_loss * (len(chunk) / len(pairs))
        return extra_loss + self.of_scores(torch.cat(parts)[torch.tensor(by_length).argsort()], labels)

    def read(self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor | float]:
        """Score query-text pairs; returns the scores and an additional loss of this forward pass."""
        return self.model(features)["scores"].view(-1).float(), 0.0

    def of_scores(self, scores: Tensor, labels: list[Tensor]) -> Tensor:
        """Compute the weighted loss of these scores, without the additional loss of the forward passes."""
        device = scores.device
        sizes = [len(values) // 2 for values in labels]
        targets = torch.cat([values[:size].float() for values, size in zip(labels, sizes, strict=True)]).to(device)
        weights = self._weights
        loss = weights.squares * nn.functional.mse_loss(scores, targets)
        for predicted, target, values in zip(
            torch.split(scores, sizes), torch.split(targets, sizes), labels, strict=True
        ):
            loss = loss + self._of_list(predicted, target, values[len(target) :].to(device)) / len(sizes)
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss configuration; sentence-transformers calls this hook."""
        return asdict(self._weights)

    def _of_list(self, got: Tensor, want: Tensor, labels: Tensor) -> Tensor:
        weights = self._weights
        loss = torch.zeros((), device=got.device)
        if weights.margins:
            loss = loss + weights.margins * nn.functional.mse_loss(got - got.mean(), want - want.mean())
        if weights.divergence:
            predicted_log, target_log = (scores.mul(weights.sharpness).log_softmax(0) for scores in (got, want))
            loss = loss + weights.divergence * nn.functional.kl_div(
                predicted_log, target_log, reduction="sum", log_target=True
            )
        positive = labels > 0
        if weights.answers and positive.any() and not positive.all():
            loss = loss - weights.answers * got.log_softmax(0)[positive].logsumexp(0)
        return loss


def with_scores(columns: Columns, groups: PairGroups, scores: Sequence[float]) -> Columns:
    """Prepend target scores to the labels of listwise samples, in the format that `ScoreDistillationLoss` reads.

    scores: (N,) aligned with the groups' texts.
    """
    score_by_pair: dict[tuple[str, str], float] = {}
    for group, text, score in zip(groups.owner.tolist(), groups.texts, scores, strict=True):
        score_by_pair[groups.queries[group], text] = score
    lists = drawn(columns)
    targets = [
        score_by_pair[lists.queries[group], text] for group, text in zip(lists.owner.tolist(), lists.texts, strict=True)
    ]
    parts = [slice(first, stop) for first, stop in pairwise(lists.offsets.tolist())]
    return {**columns, "labels": [[*targets[part], *lists.labels[part].tolist()] for part in parts]}
