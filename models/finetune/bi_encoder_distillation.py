"""Distill a bi-encoder's scores into the cross-encoder that is built from it, before the main training.

A new classification head is random, and a few thousand labels are not enough for a small model to learn to compare two
texts. The bi-encoder already compares them, by the cosine of its vectors and by MaxSim of its token vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_model, save_model
from sentence_transformers import CrossEncoderTrainer, CrossEncoderTrainingArguments, SentenceTransformer
from torch import nn

from feedrank.engine.retrieval.embedding_space import unit_rows
from feedrank.engine.types import Matrix, Scores
from feedrank.models.atomic_files import atomic_write
from feedrank.models.finetune import model_types, training_samples
from feedrank.models.finetune.distillation_loss import ScoreDistillationLoss, with_target_scores
from feedrank.models.finetune.distillation_settings import LossWeights
from feedrank.models.finetune.finetune_settings import FinetuneSettings
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.text_training import MetricFunction, TrainingResult, TrainingRun, train
from feedrank.models.training.training import Progress

WEIGHTS_FILE = "bi-encoder-distillation.safetensors"
RESULT_FILE = "bi-encoder-distillation.json"
CHECKPOINT_FOLDER = "bi-encoder-distillation"
LEARNING_RATE_FACTOR = 2.0
"""Learning rate relative to that of the main training."""


def is_applicable(folder: Path, settings: FinetuneSettings) -> bool:
    """Return True if this stage is enabled and the base is a bi-encoder without a classification head."""
    return (
        settings.bi_encoder_distillation_epochs > 0
        and (folder / "modules.json").is_file()
        and not model_types.has_classification_head(folder)
    )


def distill_bi_encoder(
    model: Any,
    bi_encoder: Path,
    groups: QueryTextGroups,
    metrics_of: MetricFunction,
    settings: FinetuneSettings,
    work_folder: Path,
    progress: Progress,
) -> TrainingResult:
    """Distill into the model in place; if an earlier session finished this, load its weights."""
    result_path, weights_path = work_folder / RESULT_FILE, work_folder / WEIGHTS_FILE
    if result_path.exists():
        load_model(model, str(weights_path))
        return TrainingResult(**json.loads(result_path.read_text(encoding="utf-8")))
    progress("scores of the bi-encoder", 0, 0)
    columns = training_samples.listwise_samples(
        groups, settings.negatives, settings.bi_encoder_distillation_epochs, settings.seed + 1
    )
    groups = training_samples.groups_from_columns(columns)
    scores = bi_encoder_scores(bi_encoder, groups, settings.max_tokens)
    run = TrainingRun(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, with_target_scores(columns, groups, scores.tolist()),
        ScoreDistillationLoss(model, LossWeights(mse=1.0, contrastive=1.0)), metrics_of,
        model_types.head_learning_rate_argument(model, settings.head_learning_rate),
    )  # fmt: skip
    trainer_settings = replace(
        settings,
        epochs=settings.bi_encoder_distillation_epochs,
        learning_rate=LEARNING_RATE_FACTOR * settings.learning_rate,
    )
    with _without_dropout(model):  # dropout would bias the scores towards 0
        result = train(run, trainer_settings, work_folder / CHECKPOINT_FOLDER, "bi-encoder distillation", progress)
    if result.finished:
        with atomic_write(weights_path) as temporary:
            save_model(model, str(temporary))
        with atomic_write(result_path) as temporary:
            temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def bi_encoder_scores(folder: Path, groups: QueryTextGroups, max_tokens: int) -> Scores:
    """Score query-text pairs by a bi-encoder's cosine plus MaxSim.

    Returns (N,) float32; both terms are standardised, and so is their sum.
    """
    model = model_types.limit_tokens(SentenceTransformer(str(folder)), max_tokens)
    queries, query_tokens = _encode(model.encode_query, dict.fromkeys(groups.queries))
    texts, text_tokens = _encode(model.encode_document, dict.fromkeys(groups.texts))
    similarities = np.empty((len(groups.texts), 2))
    for row, (owner, text) in enumerate(zip(groups.group_index.tolist(), groups.texts, strict=True)):
        query = groups.queries[owner]
        similarities[row, 0] = queries[query] @ texts[text]
        products = query_tokens[query] @ text_tokens[text].T
        similarities[row, 1] = products.max(axis=1).mean() if products.size else 0.0
    total = _standardised(similarities).sum(axis=1)
    return np.asarray(_standardised(total), np.float32)


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    layers = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    for layer, _ in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in layers:
            layer.p = rate


def _standardised(values: Any) -> Any:
    std = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(std > 0, std, 1.0)


def _encode(encode: Any, texts: dict[str, None]) -> tuple[dict[str, Matrix], dict[str, Matrix]]:
    """Encode texts: text -> vector, and text -> token vectors without the first and last token; all of length 1."""
    outputs = encode(list(texts), batch_size=64, show_progress_bar=False, output_value=None)
    vectors = unit_rows(np.stack([output["sentence_embedding"].float().cpu().numpy() for output in outputs]))
    tokens = [
        unit_rows(output["token_embeddings"][output["attention_mask"].bool()][1:-1].float().cpu().numpy())
        for output in outputs
    ]
    return dict(zip(texts, vectors, strict=True)), dict(zip(texts, tokens, strict=True))
