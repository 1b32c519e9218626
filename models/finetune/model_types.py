"""Define the model types for fine-tuning: how to build each from a base model, train it, and score with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.cross_encoder import losses as cross_losses
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from feedrank.engine.types import Scores
from feedrank.models.finetune import training_samples
from feedrank.models.finetune.finetune_settings import FinetuneSettings
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.text_training import METRIC, MetricFunction, TrainingRun, mean_reciprocal_rank
from feedrank.models.text.token_encoder import is_colbert

CHUNK = 1_024
"""Query-text pairs per MaxSim computation."""
CLASSIFIER_SUFFIX = "ForSequenceClassification"
"""Suffix of the architecture name of a model with a classification head."""
HEAD_PATTERNS = (r"\bclassifier\b", r"\bscore\b")
"""Patterns of the head's parameter names."""
MIN_LABEL = 1e-9
"""Label of a negative in the listwise softmax loss, since log(0) is undefined."""


@dataclass(frozen=True, slots=True)
class ModelType:
    """Define how one model type is built, loaded, trained and scored."""

    build: Callable[[Sequence[Path], FinetuneSettings], Any]
    """Build the untrained model from the folders of its base models."""
    load: Callable[[Path], Any]
    """Load a trained model with the class that is used in serving."""
    training_run: Callable[[Any, QueryTextGroups, FinetuneSettings, MetricFunction], TrainingRun]
    """Build the training run."""
    score: Callable[[Any, QueryTextGroups], Scores]
    """Score each text against its query: (N,), higher is better."""


def mrr_function(model_type: ModelType, validation: QueryTextGroups) -> MetricFunction:
    """Return a function that computes a model's MRR on the validation groups."""
    return lambda model: {METRIC: mean_reciprocal_rank(model_type.score(model, validation), validation)}


def limit_tokens(model: Any, max_tokens: int) -> Any:
    """Limit a model's input length in place and return it; 0: no limit."""
    for module in model.modules():
        if max_tokens and isinstance(module, Transformer):
            module.max_seq_length = min(max_tokens, module.max_seq_length or max_tokens)
    return model


def _build_bi_encoder(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    return limit_tokens(SentenceTransformer(str(bases[0])), settings.max_tokens)


def _build_two_towers(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    query, document = (_modules_of(base) for base in (bases[0], bases[-1]))
    router = Router.for_query_document(query_modules=query, document_modules=document)
    return limit_tokens(SentenceTransformer(modules=[router]), settings.max_tokens)


def _modules_of(base: Path) -> list[Any]:
    return list(SentenceTransformer(str(base)).children())


def _build_colbert(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    """Build a ColBERT model; a base that is none contributes its token vectors without a new projection layer."""
    if is_colbert(bases[0]):
        return limit_tokens(MultiVectorEncoder(str(bases[0])), settings.max_tokens)
    base_modules = SentenceTransformer(str(bases[0])).modules()
    transformer = next(module for module in base_modules if isinstance(module, Transformer))
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return limit_tokens(MultiVectorEncoder(modules=modules), settings.max_tokens)


def _build_cross_encoder(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    # no activation: logits do not saturate, and a student can be regressed on them
    model = CrossEncoder(str(bases[0]), num_labels=1, activation_fn=torch.nn.Identity())
    if settings.freeze_word_embeddings:
        model[0].model.get_input_embeddings().requires_grad_(False)
    return limit_tokens(model, settings.max_tokens)


def _load_cross_encoder(folder: Path) -> Any:
    return CrossEncoder(str(folder))


def _contrastive_run(
    trainer: Any, arguments: Any, loss: Callable[[Any], Any]
) -> Callable[[Any, QueryTextGroups, FinetuneSettings, MetricFunction], TrainingRun]:
    def build_run(
        model: Any, groups: QueryTextGroups, settings: FinetuneSettings, metrics_of: MetricFunction
    ) -> TrainingRun:
        columns = training_samples.contrastive_samples(groups, settings.negatives, settings.epochs, settings.seed)
        sides = {name: "query" if name == "anchor" else "document" for name in columns}
        prompts = {name: model.prompts[side] for name, side in sides.items() if model.prompts.get(side)}
        extra: dict[str, Any] = {"batch_sampler": "no_duplicates", "prompts": prompts or None}
        if any(isinstance(module, Router) for module in model.modules()):
            extra["router_mapping"] = sides
        return TrainingRun(model, trainer, arguments, columns, loss(model), metrics_of, extra)

    return build_run


def _cross_encoder_run(
    model: Any, groups: QueryTextGroups, settings: FinetuneSettings, metrics_of: MetricFunction
) -> TrainingRun:
    sample = training_samples.pointwise_samples if settings.loss == "bce" else training_samples.listwise_samples
    columns = sample(groups, settings.negatives, settings.epochs, settings.seed)
    if settings.loss == "softmax":
        # ListNet's target is the softmax of the labels; with log labels, that is label / sum of labels
        columns["labels"] = [np.log(np.maximum(labels, MIN_LABEL)).tolist() for labels in columns["labels"]]  # type: ignore[call-overload]
    losses: dict[str, Callable[[], Any]] = {
        "softmax": lambda: cross_losses.ListNetLoss(model, mini_batch_size=-1),
        "lambda": lambda: cross_losses.LambdaLoss(model, mini_batch_size=-1),
        "listmle": lambda: cross_losses.ListMLELoss(model, mini_batch_size=-1),
        "bce": lambda: cross_losses.BinaryCrossEntropyLoss(model),
    }
    return TrainingRun(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, columns, losses[settings.loss](), metrics_of,
        head_learning_rate_argument(model, settings.head_learning_rate),
    )  # fmt: skip


def has_classification_head(folder: Path) -> bool:
    """Return True if a model folder has a classification head."""
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return any(str(name).endswith(CLASSIFIER_SUFFIX) for name in architectures)


def head_learning_rate_argument(model: Any, learning_rate: float) -> dict[str, Any]:
    """Return the training argument for a separate learning rate of the classification head; 0: none."""
    names = [name for name, _ in model.named_parameters()]
    head = next((pattern for pattern in HEAD_PATTERNS if any(re.search(pattern, name) for name in names)), None)
    return {"learning_rate_mapping": {head: learning_rate}} if head and learning_rate else {}


def _encode_distinct(model: Any, groups: QueryTextGroups) -> tuple[Any, Any, list[int], list[int]]:
    """Encode distinct queries and texts; returns both encodings, and each pair's query index and text index."""
    queries = {query: index for index, query in enumerate(dict.fromkeys(groups.queries))}
    texts = {text: index for index, text in enumerate(dict.fromkeys(groups.texts))}
    query_vectors = model.encode_query(list(queries), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    text_vectors = model.encode_document(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    query_index = [queries[groups.queries[group]] for group in groups.group_index.tolist()]
    return query_vectors, text_vectors, query_index, [texts[text] for text in groups.texts]


def _cosine_scores(model: Any, groups: QueryTextGroups) -> Scores:
    """Score pairs by the cosine of their vectors."""
    query_vectors, text_vectors, query_index, text_index = _encode_distinct(model, groups)
    query_vectors, text_vectors = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        for vectors in (query_vectors, text_vectors)
    )
    return np.asarray(np.einsum("nd,nd->n", query_vectors[query_index], text_vectors[text_index]), np.float32)


def _maxsim_scores(model: Any, groups: QueryTextGroups) -> Scores:
    """Score pairs by the MaxSim of their token vectors."""
    query_vectors, text_vectors, query_index, text_index = _encode_distinct(model, groups)
    chunks: list[Scores] = [np.empty(0, np.float32)]
    for start in range(0, len(text_index), CHUNK):
        part = slice(start, start + CHUNK)
        pairs = [query_vectors[n] for n in query_index[part]], [text_vectors[n] for n in text_index[part]]
        chunks.append(np.asarray(model.similarity_pairwise(*pairs).cpu(), np.float32))
    return np.concatenate(chunks)


def cross_encoder_scores(model: Any, groups: QueryTextGroups) -> Scores:
    """Score pairs by the logits of a cross-encoder."""
    pairs = [
        (groups.queries[group], text) for group, text in zip(groups.group_index.tolist(), groups.texts, strict=True)
    ]
    scores = model.predict(pairs, batch_size=64, show_progress_bar=False, activation_fn=torch.nn.Identity())
    return np.asarray(scores, np.float32).reshape(-1)


_DENSE_RUN = _contrastive_run(
    SentenceTransformerTrainer, SentenceTransformerTrainingArguments, MultipleNegativesRankingLoss
)
_TOKEN_RUN = _contrastive_run(
    MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments, MultiVectorMultipleNegativesRankingLoss
)
MODEL_TYPES: dict[str, ModelType] = {
    "bi-encoder": ModelType(
        _build_bi_encoder, lambda folder: SentenceTransformer(str(folder)), _DENSE_RUN, _cosine_scores
    ),
    "dpr": ModelType(_build_two_towers, lambda folder: SentenceTransformer(str(folder)), _DENSE_RUN, _cosine_scores),
    "colbert": ModelType(_build_colbert, lambda folder: MultiVectorEncoder(str(folder)), _TOKEN_RUN, _maxsim_scores),
    "cross-encoder": ModelType(_build_cross_encoder, _load_cross_encoder, _cross_encoder_run, cross_encoder_scores),
}
