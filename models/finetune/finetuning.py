"""Fine-tune text models on labelled query-text groups with the trainers of sentence-transformers.

There are four model types: `bi-encoder` (one vector per text; Reimers & Gurevych 2019), `dpr` (a tower for queries and
one for documents; Karpukhin et al. 2020), `colbert` (one vector per token; Khattab & Zaharia 2020) and `cross-encoder`
(reads both texts together; Nogueira & Cho 2019). The first three use a contrastive loss with hard and in-batch
negatives; a cross-encoder learns to rank a query's candidates.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from feedrank.models.finetune import model_folder
from feedrank.models.finetune.finetune_settings import FinetuneSettings, check_model_type, settings_for
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.text.model_weights import DEFAULT_EMBEDDER, find_weights
from feedrank.models.training.training import Progress


@dataclass(frozen=True, slots=True)
class BaseModels:
    """The models that fine-tuning starts from."""

    names: tuple[str, ...] = (DEFAULT_EMBEDDER,)
    """Names or folders: one, or for `dpr` also two, for queries and for documents."""
    revision: str | None = None
    """Revision on the hub; None: the latest."""


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """A trained model, with its model card and validation metrics."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def metrics_before(self) -> dict[str, float]:
        """Validation metrics before training."""
        return dict(self.card["validation"]["before"])

    @property
    def metrics_after(self) -> dict[str, float]:
        """Validation metrics of the saved model."""
        return dict(self.card["validation"]["after"])

    @property
    def finished(self) -> bool:
        """False if the time limit was reached; call again with the same settings to resume."""
        return bool(self.card["finished"])


def finetune(
    model_type: str,
    groups: QueryTextGroups,
    out: Path,
    settings: FinetuneSettings | None = None,
    base: BaseModels | None = None,
    trained_on: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
    validation: QueryTextGroups | None = None,
) -> FinetuneResult:
    """Fine-tune a model on labelled groups and write it to the folder `out`, with a model card in feedrank.json.

    base: None: the default embedder. trained_on: description of the data for the model card. validation: groups to
    validate on instead of a share of `groups`.
    A run that was interrupted, or reached its time limit, resumes from its last checkpoint when called again with the
    same groups, base and settings. Raises ValueError if `out` holds something else or a library is missing.
    """
    started = time.perf_counter()
    settings, base = settings or settings_for(model_type), base or BaseModels()
    if not 1 <= len(base.names) <= (2 if check_model_type(model_type) == "dpr" else 1):
        raise ValueError(
            f"found {len(base.names)} base models, expected 1{' or 2' if model_type == 'dpr' else ''} for {model_type}"
        )
    check_libraries()
    folders = [find_weights(name, base.revision) for name in base.names]
    named = zip(folders, base.names, strict=True)
    bases = [model_folder.provenance(folder, name, base.revision) for folder, name in named]
    used_settings = {key: value for key, value in asdict(settings).items() if key != "minutes"}
    run_inputs = {
        "model_type": model_type,
        "bases": [info["digest"] for info in bases],
        "settings": used_settings,
        "groups": groups.digest,
    }
    run_inputs |= {} if validation is None else {"validation": validation.digest}
    fingerprint = model_folder.run_fingerprint(run_inputs)
    work = model_folder.work_folder(out, fingerprint)
    train, held_out = (
        groups.split(settings.validation_share, settings.seed) if validation is None else (groups, validation)
    )
    validation = held_out.subsample(settings.validation_groups, settings.validation_texts, settings.seed)
    progress("loading the model", 0, 0)
    # these import torch, which takes seconds
    from feedrank.models.finetune import bi_encoder_distillation, model_types, text_training

    text_training.silence_libraries()
    text_training.seed_everything(settings.seed)
    spec = model_types.MODEL_TYPES[model_type]
    model = spec.build(folders, settings)
    metrics_of = model_types.mrr_function(spec, validation)
    run_settings = settings
    distilled: text_training.TrainingResult | None = None
    if model_type == "cross-encoder" and model_types.has_classification_head(folders[0]):
        run_settings = replace(settings, head_learning_rate=0.0)
    elif model_type == "cross-encoder" and bi_encoder_distillation.is_applicable(folders[0], settings):
        distilled = bi_encoder_distillation.distill_bi_encoder(
            model, folders[0], train, metrics_of, settings, work, progress
        )
        run_settings = replace(settings, head_learning_rate=settings.head_learning_rate / 3)
    if distilled is None or distilled.finished:
        if settings.minutes:
            run_settings = replace(
                run_settings, minutes=max(settings.minutes - (time.perf_counter() - started) / 60, 1e-3)
            )
        result = text_training.train(
            spec.training_run(model, train, run_settings, metrics_of), run_settings, work, model_type, progress
        )
        result = result if distilled is None else distilled.continued_by(result)
    else:
        result = distilled
    card = {
        "model_type": model_type,
        "base": bases,
        "licence": bases[0]["licence"] if len({info["licence"] for info in bases}) == 1 else "unknown",
        "trained_on": dict(trained_on or {}),
        "groups": {"training": len(train), "validation": len(validation)},
        "settings": used_settings,
        "seed": settings.seed,
        "fingerprint": fingerprint,
        **result.card_fields,
    }
    progress("writing the model", 0, 0)
    model_folder.publish(out, lambda temporary: model.save_pretrained(str(temporary), create_model_card=False), card)
    if result.finished:
        shutil.rmtree(work, ignore_errors=True)
    return FinetuneResult(out, card)


def check_libraries() -> None:
    """Check that the training libraries are installed. Raises ValueError if one is missing."""
    missing = [name for name in ("accelerate", "datasets") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"training needs {' and '.join(missing)}, which is not installed: pip install 'feedrank[train]'"
        )
