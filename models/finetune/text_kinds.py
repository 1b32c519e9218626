"""The kinds of text models that are fine-tuned: how each is made from a base, taught, and asked for scores."""

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

from engine.types import Scores
from models.finetune import pair_draws
from models.finetune.finetuning import FinetuneSettings
from models.finetune.pairs import PairGroups
from models.finetune.text_training import METRIC, Course, Measure, mean_reciprocal_rank
from models.text.token_encoder import is_colbert

CHUNK = 1_024
"""Pairs whose token vectors are compared at a time."""
CLASSIFIER = "ForSequenceClassification"
"""What a base that has a cross-encoder's last layer is called."""
HEADS = (r"\bclassifier\b", r"\bscore\b")
"""What that layer is called."""
NOTHING = 1e-9
"""The share of a text that does not answer, in the listwise loss."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model."""

    make: Callable[[Sequence[Path], FinetuneSettings], Any]
    """The model as it is before training, from the folders of its bases."""
    load: Callable[[Path], Any]
    """A trained model, by the class that serves it."""
    teach: Callable[[Any, PairGroups, FinetuneSettings, Measure], Course]
    score: Callable[[Any, PairGroups], Scores]
    """(N,) how well each text answers its query; higher is better."""


def measure(kind: Kind, validation: PairGroups) -> Measure:
    """How well a model of the kind orders the validation groups."""
    return lambda model: {METRIC: mean_reciprocal_rank(kind.score(model, validation), validation)}


def shortened(model: Any, most: int) -> Any:
    """The model, reading no more than so many tokens."""
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
    """A ColBERT checkpoint goes on; another model's token vectors are taken as they are, so nothing is unlearnt."""
    if is_colbert(bases[0]):
        return shortened(MultiVectorEncoder(str(bases[0])), settings.max_tokens)
    transformer = next(one for one in SentenceTransformer(str(bases[0])).modules() if isinstance(one, Transformer))
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return shortened(MultiVectorEncoder(modules=modules), settings.max_tokens)


def _cross_encoder(bases: Sequence[Path], settings: FinetuneSettings) -> Any:
    # without an activation scores are logits, which a student can be held to and which do not saturate
    model = CrossEncoder(str(bases[0]), num_labels=1, activation_fn=torch.nn.Identity())
    if settings.freeze_words:
        model[0].model.get_input_embeddings().requires_grad_(False)
    return shortened(model, settings.max_tokens)


def _load_cross_encoder(folder: Path) -> Any:
    return CrossEncoder(str(folder))


def _teach_tuples(
    trainer: Any, arguments: Any, loss: Callable[[Any], Any]
) -> Callable[[Any, PairGroups, FinetuneSettings, Measure], Course]:
    def teach(model: Any, groups: PairGroups, settings: FinetuneSettings, measure: Measure) -> Course:
        columns = pair_draws.tuples(groups, settings.negatives, settings.epochs, settings.seed)
        sides = {name: "query" if name == "anchor" else "document" for name in columns}
        prompts = {name: model.prompts[side] for name, side in sides.items() if model.prompts.get(side)}
        extra: dict[str, Any] = {"batch_sampler": "no_duplicates", "prompts": prompts or None}
        if any(isinstance(module, Router) for module in model.modules()):
            extra["router_mapping"] = sides
        return Course(model, trainer, arguments, columns, loss(model), measure, extra)

    return teach


def _teach_cross_encoder(model: Any, groups: PairGroups, settings: FinetuneSettings, measure: Measure) -> Course:
    draw = pair_draws.pairs if settings.loss == "bce" else pair_draws.lists
    columns = draw(groups, settings.negatives, settings.epochs, settings.seed)
    if settings.loss == "softmax":
        # ListNet takes the softmax of the labels for what is wanted; of their logarithms, that is each label's share
        columns["labels"] = [np.log(np.maximum(one, NOTHING)).tolist() for one in columns["labels"]]  # type: ignore[call-overload]
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
    """Whether a model folder has a cross-encoder's last layer."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return any(str(name).endswith(CLASSIFIER) for name in found)


def head_apart(model: Any, learning_rate: float) -> dict[str, Any]:
    """The training argument that gives the last layer a learning rate of its own; 0: none."""
    names = [name for name, _ in model.named_parameters()]
    head = next((pattern for pattern in HEADS if any(re.search(pattern, name) for name in names)), None)
    return {"learning_rate_mapping": {head: learning_rate}} if head and learning_rate else {}


def _encoded(model: Any, groups: PairGroups) -> tuple[Any, Any, list[int], list[int]]:
    """What the distinct queries and texts are encoded as, and the place of each pair's among them."""
    queries = {query: place for place, query in enumerate(dict.fromkeys(groups.queries))}
    texts = {text: place for place, text in enumerate(dict.fromkeys(groups.texts))}
    asked = model.encode_query(list(queries), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    found = model.encode_document(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
    owners = [queries[groups.queries[place]] for place in groups.owner.tolist()]
    return asked, found, owners, [texts[text] for text in groups.texts]


def _score_vectors(model: Any, groups: PairGroups) -> Scores:
    """Cosines."""
    asked, found, owners, places = _encoded(model, groups)
    asked, found = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9) for vectors in (asked, found)
    )
    return np.asarray(np.einsum("nd,nd->n", asked[owners], found[places]), np.float32)


def _score_tokens(model: Any, groups: PairGroups) -> Scores:
    """MaxSim."""
    asked, found, owners, places = _encoded(model, groups)
    out: list[Scores] = [np.empty(0, np.float32)]
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        pairs = [asked[one] for one in owners[part]], [found[one] for one in places[part]]
        out.append(np.asarray(model.similarity_pairwise(*pairs).cpu(), np.float32))
    return np.concatenate(out)


def score_pairs(model: Any, groups: PairGroups) -> Scores:
    """Logits of a cross-encoder."""
    pairs = [(groups.queries[place], text) for place, text in zip(groups.owner.tolist(), groups.texts, strict=True)]
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
