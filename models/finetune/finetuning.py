"""Fine-tuning of text models on pairs, by the trainers of sentence-transformers.

Four kinds: `bi-encoder` (one vector a text; Reimers & Gurevych 2019), `dpr` (a tower for queries and one for documents;
Karpukhin et al. 2020), `colbert` (a vector a token; Khattab & Zaharia 2020) and `cross-encoder` (reads both texts
together; Nogueira & Cho 2019). The first three learn to tell a query's answer from its hard negatives and from the
other answers of the batch; a cross-encoder learns to put a query's candidates in order.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.finetune import model_folder
from models.finetune.pairs import PairGroups
from models.text.weights import DEFAULT_EMBEDDER, find_weights
from models.training import Progress

KINDS = ("bi-encoder", "dpr", "colbert", "cross-encoder")
LOSSES = ("softmax", "lambda", "listmle", "bce")


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """What fine-tuning is told, whatever the kind."""

    epochs: int = 3
    batch_size: int = 32
    """Queries a step; with bce, pairs."""
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    """Of a cross-encoder's last layer while it is new; 0: as the rest."""
    head_start: int = 1
    """Epochs before all others in which a cross-encoder that is made from a bi-encoder is held to what that says."""
    freeze_words: bool = False
    """A cross-encoder's word vectors stay as they are."""
    warmup_share: float = 0.1
    """Of the steps: how long the learning rate rises, before it falls to nothing."""
    weight_decay: float = 0.01
    negatives: int = 4
    """Texts that do not answer beside each one that does; a cross-encoder sees so many a query."""
    max_tokens: int = 128
    """The model reads no more of a text (a cross-encoder: of both together); 0: as much as its base."""
    patience: int = 3
    """Evaluations without a better validation value before training stops."""
    evaluations: int = 2
    """Evaluations an epoch; each also writes a checkpoint."""
    loss: str = "softmax"
    """Of a cross-encoder: softmax (over a query's candidates), lambda (LambdaLoss), listmle or bce (pair by pair)."""
    validation_share: float = 0.1
    """Of the queries."""
    validation_groups: int = 400
    """At most so many are measured on."""
    validation_texts: int = 30
    """Candidates a validation group at most."""
    bfloat16: bool = False
    """Half as many bytes in forward and backward; quicker where the processor has instructions for it."""
    minutes: float = 0.0
    """No step begins after this long; called again, training goes on. 0: no limit."""
    seed: int = 7

    def __post_init__(self) -> None:
        check_pace(self)
        check_least(self, negatives=0, head_learning_rate=0, head_start=0)
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected {', '.join(LOSSES)}")


def check_pace(settings: Any) -> None:
    """Raises ValueError where what all training is told can't be."""
    check_least(
        settings, epochs=1, batch_size=1, max_tokens=0, patience=1, evaluations=1, validation_groups=1,
        validation_texts=2, minutes=0, weight_decay=0,
    )  # fmt: skip
    if settings.learning_rate <= 0:
        raise ValueError(f"learning_rate is {settings.learning_rate}; expected more than 0")
    for name in ("warmup_share", "validation_share"):
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected 0 to less than 1")


def check_least(settings: Any, **least: float) -> None:
    """Raises ValueError for a setting that is less than this."""
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected at least {value}")


DEFAULTS: dict[str, dict[str, Any]] = {
    "bi-encoder": {},
    "dpr": {},
    "colbert": {"learning_rate": 1e-5},
    "cross-encoder": {
        "epochs": 4,
        "learning_rate": 8e-5,
        "batch_size": 8,
        "negatives": 10,
        "freeze_words": True,
        "patience": 4,
    },
}
"""What a kind's settings are where nobody says otherwise, beside the defaults of all."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model that was trained, and how well it orders the validation groups."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def before(self) -> dict[str, float]:
        """Validation metrics of the model as it was."""
        return dict(self.card["validation"]["before"])

    @property
    def after(self) -> dict[str, float]:
        """Validation metrics of what was written."""
        return dict(self.card["validation"]["after"])

    @property
    def finished(self) -> bool:
        """False where time was up: called again with the same settings, training goes on."""
        return bool(self.card["finished"])


def settings_for(kind: str, **given: Any) -> FinetuneSettings:
    """The settings of a kind, with what is given (None: not given)."""
    return FinetuneSettings(**{**DEFAULTS[_known(kind)], **{key: one for key, one in given.items() if one is not None}})


def finetune(
    kind: str,
    groups: PairGroups,
    out: Path,
    settings: FinetuneSettings | None = None,
    base: Sequence[str] = (DEFAULT_EMBEDDER,),
    revision: str | None = None,
    trained_on: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
    validation: PairGroups | None = None,
) -> Learnt:
    """Train a model of a kind on groups and write it to the folder `out`, with a card in feedrank.json.

    base: name or folder of what it begins as; for `dpr` two may be given, for queries and for documents.
    trained_on: what the card says of where the groups come from. validation: groups that are measured on instead of a
    share of the others.
    A run that is broken off, or whose minutes are up, goes on from its last checkpoint when called again with the same
    groups, base and settings. Raises ValueError where something else is at `out`, or a library is missing.
    """
    started = time.perf_counter()
    settings = settings or settings_for(kind)
    if not 1 <= len(base) <= (2 if _known(kind) == "dpr" else 1):
        raise ValueError(f"found {len(base)} base models, expected 1{' or 2' if kind == 'dpr' else ''} for {kind}")
    check_libraries()
    folders = [find_weights(one, revision) for one in base]
    bases = [model_folder.origin(folder, name, revision) for folder, name in zip(folders, base, strict=True)]
    told = {key: value for key, value in asdict(settings).items() if key != "minutes"}
    about = {"kind": kind, "bases": [one["digest"] for one in bases], "settings": told, "groups": groups.digest}
    about |= {} if validation is None else {"validation": validation.digest}
    mark = model_folder.fingerprint(about)
    work = model_folder.unfinished(out, mark)
    train, apart = (
        groups.split(settings.validation_share, settings.seed) if validation is None else (groups, validation)
    )
    validation = apart.thinned(settings.validation_groups, settings.validation_texts, settings.seed)
    progress("loading the model", 0, 0)
    from models.finetune import head_start, text_kinds, text_training  # they import torch, which takes seconds

    text_training.quiet()
    text_training.seeded(settings.seed)
    made = text_kinds.KINDS[kind]
    model = made.make(folders, settings)
    measure = text_kinds.measure(made, validation)
    taught = settings
    first: text_training.Passed | None = None
    if kind == "cross-encoder" and text_kinds.has_head(folders[0]):
        taught = replace(settings, head_learning_rate=0.0)
    elif kind == "cross-encoder" and head_start.applies(folders[0], settings):
        first = head_start.give(model, folders[0], train, measure, settings, work, progress)
        taught = replace(settings, head_learning_rate=settings.head_learning_rate / 3)
    if first is None or first.finished:
        if settings.minutes:
            taught = replace(taught, minutes=max(settings.minutes - (time.perf_counter() - started) / 60, 1e-3))
        passed = text_training.train(made.teach(model, train, taught, measure), taught, work, kind, progress)
        passed = passed if first is None else first.then(passed)
    else:
        passed = first
    card = {
        "kind": kind,
        "base": bases,
        "licence": bases[0]["licence"] if len({one["licence"] for one in bases}) == 1 else "unknown",
        "trained_on": dict(trained_on or {}),
        "groups": {"training": len(train), "validation": len(validation)},
        "settings": told,
        "seed": settings.seed,
        "fingerprint": mark,
        **passed.card,
    }
    progress("writing the model", 0, 0)
    model_folder.publish(out, lambda aside: model.save_pretrained(str(aside), create_model_card=False), card)
    if passed.finished:
        shutil.rmtree(work, ignore_errors=True)
    return Learnt(out, card)


def check_libraries() -> None:
    """Raises ValueError where the trainers' own libraries are not installed."""
    missing = [name for name in ("accelerate", "datasets") if find_spec(name) is None]
    if missing:
        raise ValueError(f"training wants {' and '.join(missing)}, not installed: pip install 'feedrank[train]'")


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"found the kind {kind!r}, expected {', '.join(KINDS)}")
    return kind
