"""Compute the distillation loss of a cross-encoder against target scores and labels, over candidate lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from feedrank.models.finetune.distillation_settings import LossWeights
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.training_samples import DatasetColumns, groups_from_columns

PAIRS_PER_FORWARD = 32
"""Query-text pairs per forward pass; they have similar lengths, so there is little padding."""


class ScoreDistillationLoss(nn.Module):
    """Sum the weighted loss terms in one forward pass.

    sentence-transformers has most of these terms as separate losses, each with its own training-set format.
    """

    def __init__(self, model: Any, weights: LossWeights) -> None:
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
        for first in range(0, len(pairs), PAIRS_PER_FORWARD):
            chunk = [pairs[index] for index in by_length[first : first + PAIRS_PER_FORWARD]]
            features = self.model.preprocess(chunk, prompt=prompt, task=task)
            device = self.model.device
            features = {
                name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()
            }
            scores, chunk_loss = self.forward_pairs(features, chunk)
            parts.append(scores)
            extra_loss = extra_loss + chunk_loss * (len(chunk) / len(pairs))
        return extra_loss + self.score_loss(torch.cat(parts)[torch.tensor(by_length).argsort()], labels)

    def forward_pairs(
        self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]
    ) -> tuple[Tensor, Tensor | float]:
        """Score query-text pairs; returns the scores and an additional loss of this forward pass."""
        return self.model(features)["scores"].view(-1).float(), 0.0

    def score_loss(self, scores: Tensor, labels: list[Tensor]) -> Tensor:
        """Compute the weighted loss of these scores, without the additional loss of the forward passes."""
        device = scores.device
        sizes = [len(values) // 2 for values in labels]
        targets = torch.cat([values[:size].float() for values, size in zip(labels, sizes, strict=True)]).to(device)
        weights = self._weights
        loss = weights.mse * nn.functional.mse_loss(scores, targets)
        for predicted, target, values in zip(
            torch.split(scores, sizes), torch.split(targets, sizes), labels, strict=True
        ):
            loss = loss + self._list_loss(predicted, target, values[len(target) :].to(device)) / len(sizes)
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss configuration; sentence-transformers calls this hook."""
        return asdict(self._weights)

    def _list_loss(self, predicted: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        weights = self._weights
        loss = torch.zeros((), device=predicted.device)
        if weights.margin_mse:
            loss = loss + weights.margin_mse * nn.functional.mse_loss(
                predicted - predicted.mean(), target - target.mean()
            )
        if weights.kl:
            predicted_log, target_log = (
                scores.mul(weights.inverse_temperature).log_softmax(0) for scores in (predicted, target)
            )
            loss = loss + weights.kl * nn.functional.kl_div(predicted_log, target_log, reduction="sum", log_target=True)
        positive = labels > 0
        if weights.contrastive and positive.any() and not positive.all():
            loss = loss - weights.contrastive * predicted.log_softmax(0)[positive].logsumexp(0)
        return loss


def with_target_scores(columns: DatasetColumns, groups: QueryTextGroups, scores: Sequence[float]) -> DatasetColumns:
    """Prepend target scores to the labels of listwise samples, in the format that `ScoreDistillationLoss` reads.

    scores: (N,) aligned with the groups' texts.
    """
    score_by_pair: dict[tuple[str, str], float] = {}
    for group, text, score in zip(groups.group_index.tolist(), groups.texts, scores, strict=True):
        score_by_pair[groups.queries[group], text] = score
    lists = groups_from_columns(columns)
    targets = [
        score_by_pair[lists.queries[group], text]
        for group, text in zip(lists.group_index.tolist(), lists.texts, strict=True)
    ]
    parts = [slice(first, stop) for first, stop in pairwise(lists.offsets.tolist())]
    return {**columns, "labels": [[*targets[part], *lists.labels[part].tolist()] for part in parts]}
