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
from feedrank.models.finetune.finetuning import FinetuneSettings
from feedrank.models.finetune.samples import PairGroups
from feedrank.models.finetune.text_training import METRIC, Course, Measure, mean_reciprocal_rank
from feedrank.models.text.token_encoder import is_colbert

CHUNK = 1_024
"""Query-text pairs per MaxSim computation."""
CLASSIFIER = "ForSequenceClassification"
"""Suffix of the architecture name of a model with a classification head."""
HEADS = (r"\bclassifier\b", r"\bscore\b")
"""Patterns of the head's parameter names."""
NOTHING = 1e-9
"""Label of a negative in the listwise softmax loss, since log(0) is undefined."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Define how one model type is built, loaded, trained and scored."""

    make: Callable[[Sequence[Path], FinetuneSettings], Any]
    """Build the untrained model from the folders of its base models."""
    load: Callable[[Path], Any]
    """Load a trained model with the class that is used in serving."""
    teach: Callable[[Any, PairGroups, FinetuneSettings, Measure], Course]
    """Build the training run."""
    score: Callable[[Any, PairGroups], Scores]
    """Score each text against its query: (N,), higher is better."""


def measure(kind: Kind, validation: PairGroups) -> Measure:
    """Return a function that computes a model's MRR on the validation groups."""
    return lambda model: {METRIC: mean_reciprocal_rank(kind.score(model, validation), validation)}


def shortened(model: Any, most: int) -> Any:
    """Limit a model's input length in place and return it; 0: no limit."""
    for module in model.modules():
        if most and isinstance(module, Transformer):
            module.max_seq_length = min(most, module.max_seq_length or most)
    return model


def _bi_encoder(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    return shortened(SentenceTransformer(str(bases[0])), settings.max_tokens)


def _two_towers(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    query, document = (_modules(base) for base in (bases[0], bases[-1]))
    router = Router.for_query_document(query_modules=query, document_modules=document)
    return shortened(SentenceTransformer(modules=[router]), settings.max_tokens)


def _modules(base: Path) -> list[Any]:
    return list(SentenceTransformer(str(base)).children())


def _colbert(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    """Build a ColBERT model; a base that is none contributes its token vectors without a new projection layer."""
    if is_colbert(bases[0]):
        return shortened(MultiVectorEncoder(str(bases[0])), settings.max_tokens)
    base_modules = SentenceTransformer(str(bases[0])).modules()
    transformer = next(module for module in base_modules if isinstance(module, Transformer))
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return shortened(MultiVectorEncoder(modules=modules), settings.max_tokens)


def _cross_encoder(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    # no activation: logits do not saturate, and a student can be regressed on them
    model = CrossEncoder(str(bases[0]), num_labels=1, activation_fn=torch.nn.Identity())
    if settings.freeze_words:
        model[0].model.get_input_embeddings().requires_grad_(False)
    return shortened(model, settings.max_tokens)


def _load_cross_encoder(folder: Path) -> Any:
    return CrossEncoder(str(folder))


def _teach_tuples(
    trainer: Any, arguments: Any, loss: Callable[[Any], Any]
) -> Callable[[Any, PairGroups, FinetuneSettings, Measure], Course]:
    def build_run(model: Any, groups: PairGroups, settings: FinetuneSettings, metrics_of: Measure) -> Course:
        columns = training_samples.tuples(groups, settings.negatives, settings.epochs, settings.seed)
        sides = {name: "query" if name == "anchor" else "document" for name in columns}
        prompts = {name: model.prompts[side] for name, side in sides.items() if model.prompts.get(side)}
        extra: dict[str, Any] = {"batch_sampler": "no_duplicates", "prompts": prompts or None}
        if any(isinstance(module, Router) for module in model.modules()):
            extra["router_mapping"] = sides
        return Course(model, trainer, arguments, columns, loss(model), metrics_of, extra)

    return build_run


def _teach_cross_encoder(model: Any, groups: PairGroups, settings: FinetuneSettings, measure: Measure) -> Course:
    sample = training_samples.pairs if settings.loss == "bce" else training_samples.lists
    columns = sample(groups, settings.negatives, settings.epochs, settings.seed)
    if settings.loss == "softmax":
        # ListNet's target is the softmax of the labels; with log labels, that is label / sum of labels
        columns["labels"] = [np.log(np.maximum(labels, NOTHING)).tolist() for labels in columns["labels"]]  # type: ignore[call-overload]
    losses: dict[str, Callable[[], Any]] = {
        "softmax": lambda: cross_losses.ListNetLoss(model, mini_batch_size=-1),
        "lambda": lambda: cross_losses.LambdaLoss(model, mini_batch_size=-1),
        "listmle": lambda: cross_losses.ListMLELoss(model, mini_batch_size=-1),
        "bce": lambda: cross_losses.BinaryCrossEntropyLoss(model),
    }
    return Course(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, columns, losses[settings.loss](), measure,
        head_apart(model, settings.head_learning_rate),
    )  # fmt: skip


def has_head(folder: Path) -> bool:
    """Return True if a model folder has a classification head."""
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return any(str(name).endswith(CLASSIFIER) for name in architectures)


def head_apart(model: Any, learning_rate: float) -> dict[str, Any]:
    """Return the training argument for a separate learning rate of the classification head; 0: none."""
    names = [name for name, _ in model.named_parameters()]
    head = next((pattern for pattern in HEADS if any(re.search(pattern, name) for name in names)), None)
    return {"learning_rate_mapping": {head: learning_rate}} if head and learning_rate else {}


def _encoded(model: Any, groups: PairGroups) -> tuple[Any, Any, list[int], list[int]]:
    """Encode distinct queries and texts; returns both encodings, and each pair's query index and text index."""
    queries = {query: index for index, query in enumerate(dict.fromkeys(groups.queries))}
    texts = {text: index for index, text in enumerate(dict.fromkeys(groups.texts))}
    query_vectors = model.encode_query(list(queries), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    text_vectors = model.encode_document(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    query_index = [queries[groups.queries[group]] for group in groups.owner.tolist()]
    return query_vectors, text_vectors, query_index, [texts[text] for text in groups.texts]


def _score_vectors(model: Any, groups: PairGroups) -> Scores:
    """Score pairs by the cosine of their vectors."""
    query_vectors, text_vectors, query_index, text_index = _encoded(model, groups)
    query_vectors, text_vectors = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        for vectors in (query_vectors, text_vectors)
    )
    return np.asarray(np.einsum("nd,nd->n", query_vectors[query_index], text_vectors[text_index]), np.float32)


def _score_tokens(model: Any, groups: PairGroups) -> Scores:
    """Score pairs by the MaxSim of their token vectors."""
    query_vectors, text_vectors, query_index, text_index = _encoded(model, groups)
    chunks: list[Scores] = [np.empty(0, np.float32)]
    for start in range(0, len(text_index), CHUNK):
        part = slice(start, start + CHUNK)
        pairs = [query_vectors[n] for n in query_index[part]], [text_vectors[n] for n in text_index[part]]
        chunks.append(np.asarray(model.similarity_pairwise(*pairs).cpu(), np.float32))
    return np.concatenate(chunks)


def score_pairs(model: Any, groups: PairGroups) -> Scores:
    """Score pairs by the logits of a cross-encoder."""
    pairs = [(groups.queries[group], text) for group, text in zip(groups.owner.tolist(), groups.texts, strict=True)]
    scores = model.predict(pairs, batch_size=64, show_progress_bar=False, activation_fn=torch.nn.Identity())
    return np.asarray(scores, np.float32).reshape(-1)


_DENSE = _teach_tuples(SentenceTransformerTrainer, SentenceTransformerTrainingArguments, MultipleNegativesRankingLoss)
_TOKENS = _teach_tuples(
    MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments, MultiVectorMultipleNegativesRankingLoss
)
KINDS: dict[str, Kind] = {
    "bi-encoder": Kind(_bi_encoder, lambda folder: SentenceTransformer(str(folder)), _DENSE, _score_vectors),
    "dpr": Kind(_two_towers, lambda folder: SentenceTransformer(str(folder)), _DENSE, _score_vectors),
    "colbert": Kind(_colbert, lambda folder: MultiVectorEncoder(str(folder)), _TOKENS, _score_tokens),
    "cross-encoder": Kind(_cross_encoder, _load_cross_encoder, _teach_cross_encoder, score_pairs),
}
