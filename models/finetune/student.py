"""A smaller BERT that begins where a larger one is: projected on the principal directions of its hidden states.

Layers are picked as in DistilBERT (Sanh et al. 2019), heads and neurons by the size of their weights; all that reads
or writes the hidden state goes through one orthonormal basis, so that residual connections still add up, as in SliceGPT
(Ashkboos et al. 2024). A layer normalisation has one gain for all directions; but for that, a student of the teacher's
own shape is the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.finetune.distillation import Shape

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What both read of a batch."""
_E = "bert.embeddings."


def check(teacher: Any, shape: Shape) -> None:
    """Raises ValueError where a teacher (the transformers model) can't have a student of this shape."""
    config = teacher.config
    if config.model_type != "bert" or config.num_labels != 1:
        raise ValueError(
            f"found a teacher of the type {config.model_type} with {config.num_labels} labels, expected a "
            "cross-encoder of the type bert with 1; fine-tune one from a BERT such as MiniLM"
        )
    size = config.hidden_size // config.num_attention_heads
    most = {
        "layers": config.num_hidden_layers, "width": config.hidden_size, "neurons": config.intermediate_size,
        "heads": config.num_attention_heads,
    }  # fmt: skip
    for name, value in most.items():
        if getattr(shape, name) > value:
            raise ValueError(f"{name} is {getattr(shape, name)}; expected at most the teacher's {value}")
    if shape.width // shape.heads > size:
        raise ValueError(
            f"{shape.heads} heads of {shape.width // shape.heads}; expected heads of at most {size} as the teacher "
            f"has, so {-(-shape.width // size)} heads or more"
        )


def principal_directions(teacher: Any, batches: Sequence[dict[str, Tensor]], width: int, seed: int) -> Tensor:
    """(hidden, width) orthonormal directions that hold most of the teacher's hidden states, turned at random.

    Turning spreads them evenly over the coordinates. The mean of all coordinates, which layer normalisation takes away,
    is one of the directions, and stays the mean. Embeddings count twice.
    """
    hidden = teacher.config.hidden_size
    total = torch.zeros(hidden, hidden, dtype=torch.double)
    teacher.eval()
    with torch.inference_mode():
        for inputs in batches:
            states = teacher.bert(**inputs, output_hidden_states=True).hidden_states
            for place, state in enumerate(states):
                tokens = state[inputs["attention_mask"].bool()].double().cpu()
                tokens = tokens - tokens.mean(dim=-1, keepdim=True)
                tokens = tokens / tokens.norm(dim=-1, keepdim=True).clamp(min=1e-9)
                total += (2.0 if place == 0 else 1.0) * (tokens.T @ tokens)
    mean = torch.full((hidden, 1), hidden**-0.5, dtype=torch.double)
    # what is left of the mean by rounding comes last, and not among those that are kept
    directions = torch.linalg.eigh(total - mean @ mean.T)[1].flip(1)[:, : width - 1]
    dice = torch.Generator().manual_seed(seed)
    random = torch.randn(width, width, generator=dice, dtype=torch.double)
    random[:, 0] = 1.0
    turned, _ = torch.linalg.qr(random)
    turned[:, 0] = width**-0.5
    found: Tensor = (torch.cat([mean, directions], dim=1) @ turned.T).float()
    return found


def from_teacher(directions: Tensor) -> Tensor:
    """(hidden, width) what turns the teacher's hidden states to those that the student is to have.

    Both are normalised to a length that grows with the root of how many numbers there are.
    """
    found: Tensor = directions * (directions.shape[1] / directions.shape[0]) ** 0.5
    return found


def make(teacher: Any, shape: Shape, directions: Tensor, positions: int) -> Any:
    """A student (a transformers model) with the teacher's weights as far as they fit; it reads so many tokens."""
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
        weights = {name: one.cpu() for name, one in teacher.state_dict().items()}
        _fill(student.state_dict(), weights, old, shape, directions)
    student.train(False)
    return student


def _fill(new: dict[str, Tensor], old: dict[str, Tensor], config: Any, shape: Shape, u: Tensor) -> None:
    # a normalised state of fewer numbers is that much shorter: what reads it grows, what is added to it shrinks
    gain = (config.hidden_size / shape.width) ** 0.5
    narrow = ((shape.width // shape.heads) / (config.hidden_size // config.num_attention_heads)) ** 0.25

    def put(name: str, value: Tensor) -> None:
        new[name].copy_(value)

    def reads(to: str, of: str, rows: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", old[f"{of}.weight"][rows] @ u * (gain * factor))
        put(f"{to}.bias", old[f"{of}.bias"][rows] * factor)

    def writes(to: str, of: str, columns: Tensor, factor: float = 1.0) -> None:
        put(f"{to}.weight", u.T @ old[f"{of}.weight"][:, columns] * (factor / gain))
        put(f"{to}.bias", u.T @ old[f"{of}.bias"] / gain)

    def norm(to: str, of: str) -> None:
        put(f"{to}.weight", old[f"{of}.weight"].abs().mean().expand(shape.width))
        put(f"{to}.bias", old[f"{of}.bias"] @ u / gain)

    for name in ("word_embeddings", "token_type_embeddings", "position_embeddings"):
        put(f"{_E}{name}.weight", (old[f"{_E}{name}.weight"] @ u)[: len(new[f"{_E}{name}.weight"])])
    norm(f"{_E}LayerNorm", f"{_E}LayerNorm")
    for layer, place in enumerate(picked(config.num_hidden_layers, shape.layers)):
        to, of = f"bert.encoder.layer.{layer}.", f"bert.encoder.layer.{place}."
        query, key, value = (old[f"{of}attention.self.{name}.weight"].norm(dim=1) for name in ("query", "key", "value"))
        written = old[f"{of}attention.output.dense.weight"]
        heads = _heads(old[f"{of}attention.self.value.weight"], written, config, shape)
        asking = _rows(query * key, heads, config, shape)
        saying = _rows(value * written.norm(dim=0), heads, config, shape)
        reads(f"{to}attention.self.query", f"{of}attention.self.query", asking, narrow)
        reads(f"{to}attention.self.key", f"{of}attention.self.key", asking, narrow)
        # what is said is smaller and written as it is, rather than the other way round: that way it is learnt faster
        reads(f"{to}attention.self.value", f"{of}attention.self.value", saying, 1 / gain)
        writes(f"{to}attention.output.dense", f"{of}attention.output.dense", saying, gain)
        norm(f"{to}attention.output.LayerNorm", f"{of}attention.output.LayerNorm")
        neurons = old[f"{of}intermediate.dense.weight"].norm(dim=1) * old[f"{of}output.dense.weight"].norm(dim=0)
        kept = neurons.topk(shape.neurons).indices.sort().values
        reads(f"{to}intermediate.dense", f"{of}intermediate.dense", kept)
        writes(f"{to}output.dense", f"{of}output.dense", kept)
        norm(f"{to}output.LayerNorm", f"{of}output.LayerNorm")
    heard = old["classifier.weight"][0].abs().topk(shape.width).indices.sort().values
    reads("bert.pooler.dense", "bert.pooler.dense", heard)
    put("classifier.weight", old["classifier.weight"][:, heard])
    put("classifier.bias", old["classifier.bias"])


def picked(layers: int, kept: int) -> list[int]:
    """Which of the teacher's layers: the last of each of as many runs of them; of one, the last."""
    return [round(place) - 1 for place in np.linspace(0, layers, kept + 1)[1:].tolist()]


def _heads(value: Tensor, output: Tensor, config: Any, shape: Shape) -> Tensor:
    """(heads,) those that add most to the state: by the norm of what is read and written as one matrix.

    A head may read much and write much, and yet what it reads fall where it writes little.
    """
    size = config.hidden_size // config.num_attention_heads
    joint = torch.stack(
        [(output[:, first : first + size] @ value[first : first + size]).norm() for first in range(0, len(value), size)]
    )
    return joint.topk(shape.heads).indices.sort().values


def _rows(weight: Tensor, heads: Tensor, config: Any, shape: Shape) -> Tensor:
    """(width,) of each of these heads the rows with the largest weight."""
    size = config.hidden_size // config.num_attention_heads
    best = weight.reshape(-1, size)[heads].topk(shape.width // shape.heads, dim=1).indices.sort(dim=1).values
    rows: Tensor = (heads[:, None] * size + best).reshape(-1)
    return rows
