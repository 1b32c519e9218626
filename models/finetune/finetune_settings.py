"""Hyper-parameters of fine-tuning, and their defaults for each model type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feedrank.models.finetune.trainer_settings import check_minimums, check_trainer_settings

MODEL_TYPE_NAMES = ("bi-encoder", "dpr", "colbert", "cross-encoder")
LOSSES = ("softmax", "lambda", "listmle", "bce")


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """Hyper-parameters of fine-tuning, for all model types."""

    epochs: int = 3
    batch_size: int = 32
    """Queries per step; with the loss `bce`, query-text pairs."""
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    """Learning rate of a cross-encoder's new classification head; 0: the same as the rest."""
    bi_encoder_distillation_epochs: int = 1
    """Initial epochs that distill the scores of a bi-encoder base into the cross-encoder; 0: none."""
    freeze_word_embeddings: bool = False
    """Freeze a cross-encoder's word embeddings."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises, before it decays to 0."""
    weight_decay: float = 0.01
    negatives: int = 4
    """Negatives per positive; for a cross-encoder, negatives per query."""
    max_tokens: int = 128
    """Maximum tokens of a text (for a cross-encoder: of both texts); 0: the limit of the base model."""
    patience: int = 3
    """Evaluations without a better validation metric before training stops."""
    evaluations: int = 2
    """Evaluations per epoch; each also writes a checkpoint."""
    loss: str = "softmax"
    """Cross-encoder loss: softmax (ListNet), lambda (LambdaLoss), listmle (ListMLE) or bce (pointwise)."""
    validation_share: float = 0.1
    """Share of the queries that is held out for validation."""
    validation_groups: int = 400
    """Maximum number of validation groups."""
    validation_texts: int = 30
    """Maximum number of texts per validation group."""
    bfloat16: bool = False
    """Run forward and backward passes in bfloat16; faster on processors that support it."""
    minutes: float = 0.0
    """Time limit: no step starts after it. Call again to resume. 0: no limit."""
    seed: int = 7

    def __post_init__(self) -> None:
        check_trainer_settings(self)
        check_minimums(self, negatives=0, head_learning_rate=0, bi_encoder_distillation_epochs=0)
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected {', '.join(LOSSES)}")


DEFAULT_SETTINGS: dict[str, dict[str, Any]] = {
    "bi-encoder": {},
    "dpr": {},
    "colbert": {"learning_rate": 1e-5},
    "cross-encoder": {
        "epochs": 4,
        "learning_rate": 8e-5,
        "batch_size": 8,
        "negatives": 10,
        "freeze_word_embeddings": True,
        "patience": 4,
    },
}
"""Defaults per model type that differ from those of `FinetuneSettings`."""


def settings_for(model_type: str, **overrides: Any) -> FinetuneSettings:
    """Build the settings of a model type; overrides that are None are ignored."""
    return FinetuneSettings(
        **{
            **DEFAULT_SETTINGS[check_model_type(model_type)],
            **{key: value for key, value in overrides.items() if value is not None},
        }
    )


def check_model_type(model_type: str) -> str:
    """Return the model type. Raises ValueError if there is no such type."""
    if model_type not in MODEL_TYPE_NAMES:
        raise ValueError(f"found the model type {model_type!r}, expected {', '.join(MODEL_TYPE_NAMES)}")
    return model_type
