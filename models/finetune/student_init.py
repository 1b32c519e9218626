"""Initialise a smaller BERT from a larger one by projecting on the principal directions of its hidden states.

Layers are selected as in DistilBERT (Sanh et al. 2019), heads and neurons by the norm of their weights. Every matrix
that reads or writes the hidden state is projected on one orthonormal basis, so residual connections stay consistent, as
in SliceGPT (Ashkboos et al. 2024). Layer normalisation gets one gain for all directions; apart from that, a student of
the teacher's own size is identical to the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedrank.models.finetune.distillation import Shape

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Batch fields that teacher and student take as input."""
_E = "bert.embeddings."


def check(teacher: Any, shape: Shape) -> None:
    """Check that a teacher (a transformers model) can have a student of this size. Raises ValueError otherwise."""
    config = teacher.config
    if config.model_type != "bert" or config.num_labels != 1:
        raise ValueError(
            f"found a teacher of the type {config.model_type} with {config.num_labels} labels, expected a "
            "cross-encoder of the type bert with 1 label; fine-tune one from a BERT such as MiniLM"
        )
    head_size = config.hidden_size // config.num_attention_heads
    limits = {
        "layers": config.num_hidden_layers, "width": config.hidden_size, "neurons": config.intermediate_size,
        "heads": config.num_attention_heads,
    }  # fmt: skip
    for name, value in limits.items():
        if getattr(shape, name) > value:
            raise ValueError(f"{name} is {getattr(shape, name)}; expected at most the teacher's {value}")
    if shape.width // shape.heads > head_size:
        raise ValueError(
            f"found {shape.heads} heads of size {shape.width // shape.heads}, expected at most the teacher's "
            f"{head_size}; use {-(-shape.width // head_size)} heads or more"
        )


def principal_directions(teacher: Any, batches: Sequence[dict[str, Tensor]], width: int, seed: int) -> Tensor:
    """Compute the principal directions of the teacher's hidden states (PCA), with a random rotation.

    Returns (teacher hidden size, hidden_size) orthonormal columns. The rotation spreads the variance evenly over the
    coordinates. The mean of all coordinates, which layer normalisation removes, is one of the directions and stays the
    mean. Embedding states have weight 2, layer states weight 1.
    """
    hidden = teacher.config.hidden_size
    total = torch.zeros(hidden, hidden, dtype=torch.double)
    teacher.eval()
    with torch.inference_mode():
        for inputs in batches:
            states = teacher.bert(**inputs, output_hidden_states=True).hidden_states
            for layer, state in enumerate(states):
                tokens = state[inputs["attention_mask"].bool()].double().cpu()
                tokens = tokens - tokens.mean(dim=-1, keepdim=True)
                tokens = tokens / tokens.norm(dim=-1, keepdim=True).clamp(min=1e-9)
                total += (2.0 if layer == 0 else 1.0) * (tokens.T @ tokens)
    mean = torch.full((hidden, 1), hidden**-0.5, dtype=torch.double)
    # the mean was subtracted; its rounding residue has the smallest eigenvalue and is not kept
    directions = torch.linalg.eigh(total - mean @ mean.T)[1].flip(1)[:, : width - 1]
    dice = torch.Generator().manual_seed(seed)
    random = torch.randn(width, width, generator=dice, dtype=torch.double)
    random[:, 0] = 1.0
    rotation, _ = torch.linalg.qr(random)
    rotation[:, 0] = width**-0.5
    rotated: Tensor = (torch.cat([mean, directions], dim=1) @ rotation.T).float()
    return rotated


def from_teacher(directions: Tensor) -> Tensor:
    """Return the matrix that maps teacher hidden states to target student states.

    Shape (teacher hidden size, student hidden size). Layer normalisation gives states a norm that grows with
    the square root of their size, so the projection is rescaled.
    """
    projection: Tensor = directions * (directions.shape[1] / directions.shape[0]) ** 0.5
    return projection


def make(teacher: Any, shape: Shape, directions: Tensor, positions: int) -> Any:
    """Build a student (a transformers model) from the teacher's projected weights.

    max_tokens: position embeddings to keep; 0: all of the teacher's.
    """
    from transformers import BertConfig, BertForSequenceClassification

    old = teacher.config
    positions = min(positions or old.max_position_embeddings, old.max_position_embeddings)
    config = BertConfig(
        vocab_size=old.vocab_size, hidden_size=shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, intermediate_size=shape.neurons, max_position_embeddings=positions,
        type_vocab_size=old.type_vocab_size, hidden_act=old.hidden_act, layer_norm_eps=old.layer_norm_eps,
        pad_token_id=old.pad_token_id, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config.num_labels = 1
    student = BertForSequenceClassification(config)
    with torch.no_grad():
        weights = {name: weight.cpu() for name, weight in teacher.state_dict().items()}
        _fill(student.state_dict(), weights, old, shape, directions)
    student.train(False)
    return student


def _fill(new: dict[str, Tensor], old: dict[str, Tensor], config: Any, shape: Shape, u: Tensor) -> None:
    # a normalised state of smaller size has a smaller norm: scale up what reads it, scale down what is added to it
    norm_ratio = (config.hidden_size / shape.width) ** 0.5
    head_scale = ((shape.width // shape.heads) / (config.hidden_size // config.num_attention_heads)) ** 0.25

    def put(name: str, value: Tensor) -> None:
        new[name].copy_(value)

    def reads(to: str, of: str, rows: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", old[f"{of}.weight"][rows] @ u * (norm_ratio * factor))
        put(f"{to}.bias", old[f"{of}.bias"][rows] * factor)

    def writes(to: str, of: str, columns: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", u.T @ old[f"{of}.weight"][:, columns] * (factor / norm_ratio))
        put(f"{to}.bias", u.T @ old[f"{of}.bias"] / norm_ratio)

    def norm(to: str, of: str) -> None:
        put(f"{to}.weight", old[f"{of}.weight"].abs().mean().expand(shape.width))
        put(f"{to}.bias", old[f"{of}.bias"] @ u / norm_ratio)

    for name in ("word_embeddings", "token_type_embeddings", "position_embeddings"):
        put(f"{_E}{name}.weight", (old[f"{_E}{name}.weight"] @ u)[: len(new[f"{_E}{name}.weight"])])
    norm(f"{_E}LayerNorm", f"{_E}LayerNorm")
    for layer, teacher_layer in enumerate(picked(config.num_hidden_layers, shape.layers)):
        to, of = f"bert.encoder.layer.{layer}.", f"bert.encoder.layer.{teacher_layer}."
        query, key, value = (old[f"{of}attention.self.{name}.weight"].norm(dim=1) for name in ("query", "key", "value"))
        output_weight = old[f"{of}attention.output.dense.weight"]
        heads = _heads(old[f"{of}attention.self.value.weight"], output_weight, config, shape)
        query_rows = _rows(query * key, heads, config, shape)
        value_rows = _rows(value * output_weight.norm(dim=0), heads, config, shape)
        reads(f"{to}attention.self.query", f"{of}attention.self.query", query_rows, head_scale)
        reads(f"{to}attention.self.key", f"{of}attention.self.key", query_rows, head_scale)
        # scale the value weights down and the output weights up, not the other way round: training converges faster
        reads(f"{to}attention.self.value", f"{of}attention.self.value", value_rows, 1 / norm_ratio)
        writes(f"{to}attention.output.dense", f"{of}attention.output.dense", value_rows, norm_ratio)
        norm(f"{to}attention.output.LayerNorm", f"{of}attention.output.LayerNorm")
        neurons = old[f"{of}intermediate.dense.weight"].norm(dim=1) * old[f"{of}output.dense.weight"].norm(dim=0)
        kept_neurons = neurons.topk(shape.neurons).indices.sort().values
        reads(f"{to}intermediate.dense", f"{of}intermediate.dense", kept_neurons)
        writes(f"{to}output.dense", f"{of}output.dense", kept_neurons)
        norm(f"{to}output.LayerNorm", f"{of}output.LayerNorm")
    classifier_inputs = old["classifier.weight"][0].abs().topk(shape.width).indices.sort().values
    reads("bert.pooler.dense", "bert.pooler.dense", classifier_inputs)
    put("classifier.weight", old["classifier.weight"][:, classifier_inputs])
    put("classifier.bias", old["classifier.bias"])


def picked(layers: int, kept: int) -> list[int]:
    """Select teacher layers evenly: the last layer of each of `student_layers` equal blocks."""
    return [round(end) - 1 for end in np.linspace(0, layers, kept + 1)[1:].tolist()]


def _heads(value: Tensor, output: Tensor, config: Any, shape: Shape) -> Tensor:
    """Select the (heads,) heads that add most to the hidden state, by the norm of output @ value weights.

    The norms of both matrices alone can be large although their product is small.
    """
    size = config.hidden_size // config.num_attention_heads
    joint = torch.stack(
        [(output[:, first : first + size] @ value[first : first + size]).norm() for first in range(0, len(value), size)]
    )
    return joint.topk(shape.heads).indices.sort().values


def _rows(weight: Tensor, heads: Tensor, config: Any, shape: Shape) -> Tensor:
    """Return the (hidden size,) rows with the highest importance within each selected head."""
    size = config.hidden_size // config.num_attention_heads
    best = weight.reshape(-1, size)[heads].topk(shape.width // shape.heads, dim=1).indices.sort(dim=1).values
    rows: Tensor = (heads[:, None] * size + best).reshape(-1)
    return rows
