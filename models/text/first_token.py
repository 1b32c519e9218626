"""The last layer of a BERT for its first token alone: a classifier hears no other, so no other need be made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("bert", "electra", "roberta", "xlm-roberta")
"""Types of models whose layers are alike, and whose classifier hears the first token."""


def heard_alone(classifier: Any) -> Any:
    """A transformers sequence classifier, changed in place so that its last layer makes the first token alone.

    Scores stay what they were; of few layers, much of the work is saved. Other types of models stay as they are.
    """
    if classifier.config.model_type in KINDS:
        layers = getattr(classifier, classifier.base_model_prefix).encoder.layer
        layers[-1] = FirstToken(layers[-1])
    return classifier


class FirstToken(nn.Module):
    """A layer that reads all tokens and writes the first."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """(B, T, hidden) to (B, 1, hidden). attention_mask: what is added to (B, heads, T, T) attention, or None."""
        attention, first = self._layer.attention, states[:, :1]
        own = attention.self

        def heads(rows: Tensor) -> Tensor:
            return rows.view(*rows.shape[:2], -1, own.attention_head_size).transpose(1, 2)

        weights = heads(own.query(first)) @ heads(own.key(states)).transpose(2, 3) * own.attention_head_size**-0.5
        if attention_mask is not None:
            weights = weights + attention_mask[:, :, :1]
        told = (torch.softmax(weights, dim=-1) @ heads(own.value(states))).transpose(1, 2).flatten(2)
        told = attention.output(told, first)
        made: Tensor = self._layer.output(self._layer.intermediate(told), told)
        return made
