"""Computes the last BERT layer for the CLS (first) token only, since a classifier reads no other token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SUPPORTED_MODEL_TYPES = ("bert", "electra", "roberta", "xlm-roberta")
"""Model types with this layer structure, and with a classifier that reads the first token."""


def cls_only_last_layer(classifier: Any) -> Any:
    """Change a transformers sequence classifier in place, so that its last layer computes the first token only.

    Scores do not change. A model of few layers saves much of its work. Models of other types are returned unchanged.
    """
    if classifier.config.model_type in SUPPORTED_MODEL_TYPES:
        layers = getattr(classifier, classifier.base_model_prefix).encoder.layer
        layers[-1] = ClsOnlyLayer(layers[-1])
    return classifier


class ClsOnlyLayer(nn.Module):
    """A transformer layer that attends to all tokens and outputs only the first."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """Map (B, T, hidden) to (B, 1, hidden). attention_mask: added to the (B, heads, T, T) scores, or None."""
        attention, first = self._layer.attention, states[:, :1]
        module = attention.self

        def heads(rows: Tensor) -> Tensor:
            return rows.view(*rows.shape[:2], -1, module.attention_head_size).transpose(1, 2)

        weights = heads(module.query(first)) @ heads(module.key(states)).transpose(2, 3)
        weights = weights * module.attention_head_size**-0.5
        if attention_mask is not None:
            weights = weights + attention_mask[:, :, :1]
        context = (torch.softmax(weights, dim=-1) @ heads(module.value(states))).transpose(1, 2).flatten(2)
        context = attention.output(context, first)
        output: Tensor = self._layer.output(self._layer.intermediate(context), context)
        return output
