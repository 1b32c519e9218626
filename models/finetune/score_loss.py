"""What a scorer loses by scoring the texts of a query otherwise than wanted, or than its labels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.finetune.pair_draws import Columns, drawn
from models.finetune.pairs import PairGroups


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts."""

    squares: float = 1.0
    """The squared error of the scores (Hofstätter et al. 2020)."""
    margins: float = 0.0
    """The squared error of their differences within a list (the same)."""
    divergence: float = 0.0
    """The divergence of the softmax over a list from that of the wanted scores (Hinton et al. 2015)."""
    answers: float = 0.0
    """How unlikely that softmax makes it that the first text answers, where some do and some do not."""
    sharpness: float = 1.0
    """What scores are multiplied by before the softmaxes of the divergence."""


TOGETHER = 32
"""Pairs of about the same length that are read at a time, so that little is padded."""


class ScoreLoss(nn.Module):
    """The parts, weighted.

    The library has most of them as losses of their own, with training sets of their own shapes; their sum wants one
    forward pass.
    """

    def __init__(self, model: Any, weights: Weights) -> None:
        super().__init__()
        self.model = model
        self._weights = weights

    def forward(
        self, inputs: list[Any], labels: list[Tensor], prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """inputs: queries, and the texts of each; labels: the texts' wanted scores, and then their labels."""
        queries, lists = inputs
        pairs = [(query, text) for query, texts in zip(queries, lists, strict=True) for text in texts]
        by_length = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]) + len(pairs[place][1]))
        parts: list[Tensor] = []
        beside: Tensor | float = 0.0
        for first in range(0, len(pairs), TOGETHER):
            some = [pairs[place] for place in by_length[first : first + TOGETHER]]
            features = self.model.preprocess(some, prompt=prompt, task=task)
            device = self.model.device
            features = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in features.items()}
            scores, lost = self.read(features, some)
            parts.append(scores)
            beside = beside + lost * (len(some) / len(pairs))
        return beside + self.of_scores(torch.cat(parts)[torch.tensor(by_length).argsort()], labels)

    def read(self, features: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor | float]:
        """The scores of some pairs, and what else is lost by reading them so."""
        return self.model(features)["scores"].view(-1).float(), 0.0

    def of_scores(self, scores: Tensor, labels: list[Tensor]) -> Tensor:
        """What is lost by these scores."""
        device = scores.device
        sizes = [len(one) // 2 for one in labels]
        wanted = torch.cat([one[:size].float() for one, size in zip(labels, sizes, strict=True)]).to(device)
        part = self._weights
        loss = part.squares * nn.functional.mse_loss(scores, wanted)
        for got, want, one in zip(torch.split(scores, sizes), torch.split(wanted, sizes), labels, strict=True):
            loss = loss + self._of_list(got, want, one[len(want) :].to(device)) / len(sizes)
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """What the library writes of the loss."""
        return asdict(self._weights)

    def _of_list(self, got: Tensor, want: Tensor, labels: Tensor) -> Tensor:
        part = self._weights
        loss = torch.zeros((), device=got.device)
        if part.margins:
            loss = loss + part.margins * nn.functional.mse_loss(got - got.mean(), want - want.mean())
        if part.divergence:
            found, target = (one.mul(part.sharpness).log_softmax(0) for one in (got, want))
            loss = loss + part.divergence * nn.functional.kl_div(found, target, reduction="sum", log_target=True)
        answer = labels > 0
        if part.answers and answer.any() and not answer.all():
            loss = loss - part.answers * got.log_softmax(0)[answer].logsumexp(0)
        return loss


def with_scores(columns: Columns, groups: PairGroups, scores: Sequence[float]) -> Columns:
    """The lists of a training set with the scores that are wanted of their texts, before the labels, as the loss reads.

    scores: (N,) aligned with the groups' texts.
    """
    known: dict[tuple[str, str], float] = {}
    for place, text, score in zip(groups.owner.tolist(), groups.texts, scores, strict=True):
        known[groups.queries[place], text] = score
    lists = drawn(columns)
    wanted = [known[lists.queries[place], text] for place, text in zip(lists.owner.tolist(), lists.texts, strict=True)]
    parts = [slice(first, stop) for first, stop in pairwise(lists.offsets.tolist())]
    return {**columns, "labels": [[*wanted[part], *lists.labels[part].tolist()] for part in parts]}
