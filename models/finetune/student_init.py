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

from feedrank.models.finetune.distillation_settings import StudentConfig

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Batch fields that teacher and student take as input."""
_EMBEDDINGS_PREFIX = "bert.embeddings."


def check_student_config(teacher: Any, student_config: StudentConfig) -> None:
    """Check that a teacher (a transformers model) can have a student of this size. Raises ValueError otherwise."""
    config = teacher.config
    if config.model_type != "bert" or config.num_labels != 1:
        raise ValueError(
            f"found a teacher of the type {config.model_type} with {config.num_labels} labels, expected a "
            "cross-encoder of the type bert with 1 label; fine-tune one from a BERT such as MiniLM"
        )
    head_size = config.hidden_size // config.num_attention_heads
    limits = {
        "layers": config.num_hidden_layers, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "heads": config.num_attention_heads,
    }  # fmt: skip
    for name, value in limits.items():
        if getattr(student_config, name) > value:
            raise ValueError(f"{name} is {getattr(student_config, name)}; expected at most the teacher's {value}")
    if student_config.hidden_size // student_config.heads > head_size:
        raise ValueError(
            f"found {student_config.heads} heads of size"
            f" {student_config.hidden_size // student_config.heads}, expected at most the teacher's "
            f"{head_size}; use {-(-student_config.hidden_size // head_size)} heads or more"
        )


def principal_directions(teacher: Any, batches: Sequence[dict[str, Tensor]], hidden_size: int, seed: int) -> Tensor:
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
    directions = torch.linalg.eigh(total - mean @ mean.T)[1].flip(1)[:, : hidden_size - 1]
    dice = torch.Generator().manual_seed(seed)
    random = torch.randn(hidden_size, hidden_size, generator=dice, dtype=torch.double)
    random[:, 0] = 1.0
    rotation, _ = torch.linalg.qr(random)
    rotation[:, 0] = hidden_size**-0.5
    rotated: Tensor = (torch.cat([mean, directions], dim=1) @ rotation.T).float()
    return rotated


def state_projection(directions: Tensor) -> Tensor:
    """Return the matrix that maps teacher hidden states to target student states.

    Shape (teacher hidden size, student hidden size). Layer normalisation gives states a norm that grows with
    the square root of their size, so the projection is rescaled.
    """
    projection: Tensor = directions * (directions.shape[1] / directions.shape[0]) ** 0.5
    return projection


def build_student(teacher: Any, student_config: StudentConfig, directions: Tensor, max_tokens: int) -> Any:
    """Build a student (a transformers model) from the teacher's projected weights.

    max_tokens: position embeddings to keep; 0: all of the teacher's.
    """
    from transformers import BertConfig, BertForSequenceClassification

    old = teacher.config
    max_tokens = min(max_tokens or old.max_position_embeddings, old.max_position_embeddings)
    config = BertConfig(
        vocab_size=old.vocab_size,
        hidden_size=student_config.hidden_size,
        num_hidden_layers=student_config.layers,
        num_attention_heads=student_config.heads,
        intermediate_size=student_config.intermediate_size,
        max_position_embeddings=max_tokens,
        type_vocab_size=old.type_vocab_size,
        hidden_act=old.hidden_act,
        layer_norm_eps=old.layer_norm_eps,
        pad_token_id=old.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.num_labels = 1
    student = BertForSequenceClassification(config)
    with torch.no_grad():
        weights = {name: weight.cpu() for name, weight in teacher.state_dict().items()}
        _copy_weights(student.state_dict(), weights, old, student_config, directions)
    student.train(False)
    return student


def _copy_weights(
    student_weights: dict[str, Tensor],
    teacher_weights: dict[str, Tensor],
    teacher_config: Any,
    student_config: StudentConfig,
    directions: Tensor,
) -> None:
    # a normalised state of smaller size has a smaller norm: scale up what reads it, scale down what is added to it
    norm_ratio = (teacher_config.hidden_size / student_config.hidden_size) ** 0.5
    head_scale = (
        (student_config.hidden_size // student_config.heads)
        / (teacher_config.hidden_size // teacher_config.num_attention_heads)
    ) ** 0.25

    def put(name: str, value: Tensor) -> None:
        student_weights[name].copy_(value)

    def reads(to: str, of: str, rows: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", teacher_weights[f"{of}.weight"][rows] @ directions * (norm_ratio * factor))
        put(f"{to}.bias", teacher_weights[f"{of}.bias"][rows] * factor)

    def writes(to: str, of: str, columns: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", directions.T @ teacher_weights[f"{of}.weight"][:, columns] * (factor / norm_ratio))
        put(f"{to}.bias", directions.T @ teacher_weights[f"{of}.bias"] / norm_ratio)

    def norm(to: str, of: str) -> None:
        put(f"{to}.weight", teacher_weights[f"{of}.weight"].abs().mean().expand(student_config.hidden_size))
        put(f"{to}.bias", teacher_weights[f"{of}.bias"] @ directions / norm_ratio)

    for name in ("word_embeddings", "token_type_embeddings", "position_embeddings"):
        put(
            f"{_EMBEDDINGS_PREFIX}{name}.weight",
            (teacher_weights[f"{_EMBEDDINGS_PREFIX}{name}.weight"] @ directions)[
                : len(student_weights[f"{_EMBEDDINGS_PREFIX}{name}.weight"])
            ],
        )
    norm(f"{_EMBEDDINGS_PREFIX}LayerNorm", f"{_EMBEDDINGS_PREFIX}LayerNorm")
    for layer, teacher_layer in enumerate(select_layers(teacher_config.num_hidden_layers, student_config.layers)):
        to, of = f"bert.encoder.layer.{layer}.", f"bert.encoder.layer.{teacher_layer}."
        query, key, value = (
            teacher_weights[f"{of}attention.self.{name}.weight"].norm(dim=1) for name in ("query", "key", "value")
        )
        output_weight = teacher_weights[f"{of}attention.output.dense.weight"]
        heads = _select_heads(
            teacher_weights[f"{of}attention.self.value.weight"], output_weight, teacher_config, student_config
        )
        query_rows = _select_head_rows(query * key, heads, teacher_config, student_config)
        value_rows = _select_head_rows(value * output_weight.norm(dim=0), heads, teacher_config, student_config)
        reads(f"{to}attention.self.query", f"{of}attention.self.query", query_rows, head_scale)
        reads(f"{to}attention.self.key", f"{of}attention.self.key", query_rows, head_scale)
        # scale the value weights down and the output weights up, not the other way round: training converges faster
        reads(f"{to}attention.self.value", f"{of}attention.self.value", value_rows, 1 / norm_ratio)
        writes(f"{to}attention.output.dense", f"{of}attention.output.dense", value_rows, norm_ratio)
        norm(f"{to}attention.output.LayerNorm", f"{of}attention.output.LayerNorm")
        neurons = teacher_weights[f"{of}intermediate.dense.weight"].norm(dim=1) * teacher_weights[
            f"{of}output.dense.weight"
        ].norm(dim=0)
        kept_neurons = neurons.topk(student_config.intermediate_size).indices.sort().values
        reads(f"{to}intermediate.dense", f"{of}intermediate.dense", kept_neurons)
        writes(f"{to}output.dense", f"{of}output.dense", kept_neurons)
        norm(f"{to}output.LayerNorm", f"{of}output.LayerNorm")
    classifier_inputs = (
        teacher_weights["classifier.weight"][0].abs().topk(student_config.hidden_size).indices.sort().values
    )
    reads("bert.pooler.dense", "bert.pooler.dense", classifier_inputs)
    put("classifier.weight", teacher_weights["classifier.weight"][:, classifier_inputs])
    put("classifier.bias", teacher_weights["classifier.bias"])


def select_layers(teacher_layers: int, student_layers: int) -> list[int]:
    """Select teacher layers evenly: the last layer of each of `student_layers` equal blocks."""
    return [round(end) - 1 for end in np.linspace(0, teacher_layers, student_layers + 1)[1:].tolist()]


def _select_heads(
    value_weight: Tensor, output_weight: Tensor, teacher_config: Any, student_config: StudentConfig
) -> Tensor:
    """Select the (heads,) heads that add most to the hidden state, by the norm of output @ value weights.

    The norms of both matrices alone can be large although their product is small.
    """
    size = teacher_config.hidden_size // teacher_config.num_attention_heads
    joint = torch.stack(
        [
            (output_weight[:, first : first + size] @ value_weight[first : first + size]).norm()
            for first in range(0, len(value_weight), size)
        ]
    )
    return joint.topk(student_config.heads).indices.sort().values


def _select_head_rows(importance: Tensor, heads: Tensor, teacher_config: Any, student_config: StudentConfig) -> Tensor:
    """Return the (hidden size,) rows with the highest importance within each selected head."""
    size = teacher_config.hidden_size // teacher_config.num_attention_heads
    best = (
        importance.reshape(-1, size)[heads]
        .topk(student_config.hidden_size // student_config.heads, dim=1)
        .indices.sort(dim=1)
        .values
    )
    rows: Tensor = (heads[:, None] * size + best).reshape(-1)
    return rows
