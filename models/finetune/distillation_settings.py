"""Hyper-parameters of distillation: the student's size, the weights of the loss, and the training."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedrank.models.finetune.trainer_settings import check_minimums, check_trainer_settings


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the loss terms."""

    mse: float = 1.0
    """Weight of the mean squared error of the scores (Hofstätter et al. 2020)."""
    margin_mse: float = 0.0
    """Weight of the squared error of score differences within a list (MarginMSE, same paper)."""
    kl: float = 0.0
    """Weight of the KL divergence between the softmaxes of predicted and target scores (Hinton et al. 2015)."""
    contrastive: float = 0.0
    """Weight of the listwise cross-entropy on labelled positives, in lists with positives and negatives."""
    inverse_temperature: float = 1.0
    """Factor on the scores before the softmaxes of the KL term."""


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """The size of a student model."""

    layers: int = 3
    hidden_size: int = 192
    heads: int = 6
    intermediate_size: int = 384
    """Size of a layer's feed-forward part."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, heads are {self.heads}; expected a multiple of the heads"
            )


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """Hyper-parameters of distillation."""

    student_config: StudentConfig = field(default_factory=StudentConfig)
    epochs: int = 8
    batch_size: int = 8
    """Queries per step."""
    learning_rate: float = 5e-4
    warmup_ratio: float = 0.05
    weight_decay: float = 0.01
    max_group_texts: int = 24
    """Maximum number of texts per training group, before extra negatives are added."""
    negatives: int = 12
    """Negatives per query and step."""
    extra_negatives: int = 8
    """Extra texts from other queries per training query: half BM25 hard negatives, half random."""
    synthetic_queries: float = 0.5
    """Ratio of synthetic queries, built from the texts' words, to training groups. The teacher scores them too."""
    loss_weights: LossWeights = field(default_factory=lambda: LossWeights(mse=1.0, kl=1.0, contrastive=0.3))
    """Weights of the loss terms. The default includes a small weight on the labels, because the teacher may be wrong.
    The softmaxes of the KL term use scores on the teacher's own scale."""
    hidden_state_weight: float = 1.0
    """Initial weight of the hidden-state loss; it decays to a tenth at the end. The teacher's hidden states are on disk
    until training ends: about 1 KB per token with the default student. 0: they are neither stored nor used."""
    max_tokens: int = 64
    """Maximum tokens of query and text together; 0: the teacher's limit."""
    patience: int = 4
    """Evaluations without a better validation metric before training stops."""
    evaluations: int = 1
    """Evaluations per epoch."""
    validation_share: float = 0.1
    """Share of the queries that is held out for validation."""
    validation_groups: int = 400
    """Maximum number of validation groups."""
    validation_texts: int = 30
    """Maximum number of texts per validation group."""
    bfloat16: bool = False
    minutes: float = 0.0
    """Time limit: no step starts after it. Call again to resume. 0: no limit."""
    seed: int = 7

    def __post_init__(self) -> None:
        check_trainer_settings(self)
        check_minimums(
            self, max_group_texts=2, negatives=1, extra_negatives=0, synthetic_queries=0, hidden_state_weight=0
        )
