"""A cross-encoder's first lesson: to say what the bi-encoder that it is made from says, and what the labels say.

A new last layer knows nothing, and a few thousand labels are not enough for a small model to learn to compare two
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

from engine.space import unit_rows
from engine.types import Matrix, Scores
from models.files import written_aside
from models.finetune import pair_draws, text_kinds
from models.finetune.finetuning import FinetuneSettings
from models.finetune.pairs import PairGroups
from models.finetune.score_loss import ScoreLoss, Weights, with_scores
from models.finetune.text_training import Course, Measure, Passed, train
from models.training import Progress

WEIGHTS = "head-start.safetensors"
DONE = "head-start.json"
QUICKER = 2.0
"""How much higher the learning rate is than afterwards."""


def applies(folder: Path, settings: FinetuneSettings) -> bool:
    """Whether a base is a bi-encoder, whose opinion is worth having."""
    return settings.head_start > 0 and (folder / "modules.json").is_file() and not text_kinds.has_head(folder)


def give(
    model: Any, base: Path, groups: PairGroups, measure: Measure, settings: FinetuneSettings, work: Path,
    progress: Progress,
) -> Passed:  # fmt: skip
    """Teach the model in place; where an earlier session had done so, its weights are read."""
    done, weights = work / DONE, work / WEIGHTS
    if done.exists():
        load_model(model, str(weights))
        return Passed(**json.loads(done.read_text(encoding="utf-8")))
    progress("scores of the bi-encoder", 0, 0)
    columns = pair_draws.lists(groups, settings.negatives, settings.head_start, settings.seed + 1)
    drawn = pair_draws.drawn(columns)
    scores = opinions(base, drawn, settings.max_tokens)
    course = Course(
        model, CrossEncoderTrainer, CrossEncoderTrainingArguments, with_scores(columns, drawn, scores.tolist()),
        ScoreLoss(model, Weights(squares=1.0, answers=1.0)), measure,
        text_kinds.head_apart(model, settings.head_learning_rate),
    )  # fmt: skip
    pace = replace(settings, epochs=settings.head_start, learning_rate=QUICKER * settings.learning_rate)
    with _without_dropout(model):  # it would teach to score smaller than wanted
        passed = train(course, pace, work / "head-start", "head start", progress)
    if passed.finished:
        with written_aside(weights) as aside:
            save_model(model, str(aside))
        with written_aside(done) as aside:
            aside.write_text(json.dumps(asdict(passed)), encoding="utf-8")
    return passed


def opinions(folder: Path, groups: PairGroups, most: int) -> Scores:
    """(N,) cosine plus MaxSim of a bi-encoder for each pair, both standardised, and so is their sum."""
    model = text_kinds.shortened(SentenceTransformer(str(folder)), most)
    queries, query_tokens = _vectors(model.encode_query, dict.fromkeys(groups.queries))
    texts, text_tokens = _vectors(model.encode_document, dict.fromkeys(groups.texts))
    found = np.empty((len(groups.texts), 2))
    for place, (owner, text) in enumerate(zip(groups.owner.tolist(), groups.texts, strict=True)):
        query = groups.queries[owner]
        found[place, 0] = queries[query] @ texts[text]
        products = query_tokens[query] @ text_tokens[text].T
        found[place, 1] = products.max(axis=1).mean() if products.size else 0.0
    total = _standardised(found).sum(axis=1)
    return np.asarray(_standardised(total), np.float32)


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    layers = [(one, one.p) for one in model.modules() if isinstance(one, nn.Dropout)]
    for layer, _ in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, share in layers:
            layer.p = share


def _standardised(values: Any) -> Any:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _vectors(encode: Any, texts: dict[str, None]) -> tuple[dict[str, Matrix], dict[str, Matrix]]:
    """Text -> its vector, and -> the vectors of its tokens without those that mark its ends; all of length 1."""
    found = encode(list(texts), batch_size=64, show_progress_bar=False, output_value=None)
    whole = unit_rows(np.stack([one["sentence_embedding"].float().cpu().numpy() for one in found]))
    tokens = [
        unit_rows(one["token_embeddings"][one["attention_mask"].bool()][1:-1].float().cpu().numpy()) for one in found
    ]
    return dict(zip(texts, whole, strict=True)), dict(zip(texts, tokens, strict=True))
