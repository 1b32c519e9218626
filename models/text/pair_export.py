"""From a cross-encoder checkpoint to what `PairModel` runs: ONNX, int8 where asked, tokenizer, pair template."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.files import written_aside
from models.text.pair_model import FILES, MODEL, TEMPLATE, TOKENIZER, PairTemplate
from models.text.weights import find_weights, settings_of, weights_digest

LAYOUT = "first-token"
"""Stands in the name of what is exported: another for another graph, so that what was made before is not taken."""


@dataclass(frozen=True, slots=True)
class PairSettings:
    """[cross_encoder] A score of request text and item together: which model, and for which candidates."""

    model: str = ""
    """A CrossEncoder checkpoint with one output, by name or folder; empty: no cross-encoder."""
    revision: str | None = None
    text_tokens: int = 24
    """Tokens of a request's text that are read."""
    item_tokens: int = 32
    int8: bool = True
    """Weights in int8: about twice as fast on a CPU, and scores differ a little."""
    best: int = 30
    """Candidates of a live request that are scored where no cache knows them: those that the first phase puts first."""
    ready_share: float = 0.5
    """Share of requests whose candidates will all have been scored ahead; training leaves out scores accordingly."""
    cache: int = 20_000
    """Request texts whose scores are kept on disk."""
    ahead: int = 1_000
    """People who may wait for their next feed to be scored ahead; 0: nothing is scored ahead."""
    threads: int = 0
    """Of the model; 0: all cores."""

    def __post_init__(self) -> None:
        least = {"text_tokens": 1, "item_tokens": 1, "best": 0, "cache": 0, "ahead": 0, "threads": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {smallest}")
        if not 0 <= self.ready_share <= 1:
            raise ValueError(f"ready_share is {self.ready_share}; expected 0 to 1")


def exported(settings: PairSettings, cache: Path) -> Path:
    """The folder with the model as `PairModel` takes it, made in `cache` where it is not there yet.

    Raises WeightsNotFoundError, or ValueError where the checkpoint is no classifier with one output, or where the
    packages to export with are not installed.
    """
    folder = find_weights(settings.model, settings.revision)
    digest = weights_digest(folder)
    numbers = "int8" if settings.int8 else "float32"
    kept = cache / f"{digest}-{settings.text_tokens}-{settings.item_tokens}-{numbers}-{LAYOUT}"
    if not all((kept / name).is_file() for name in FILES):
        about = (
            ("model", settings.model), ("revision", settings.revision or ""), ("licence", licence(folder)),
            ("digest", f"{digest}-{numbers}"),
        )  # fmt: skip
        export(folder, kept, settings, about)
    return kept


def export(folder: Path, to: Path, settings: PairSettings, about: Sequence[tuple[str, str]] = ()) -> None:
    """Write the three files of a checkpoint; the template last, so that a broken-off export is made again."""
    try:
        import onnx  # noqa: F401  # asked for here, so that the error names the extra
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as problem:
        raise ValueError(
            f"exporting a cross-encoder wants {problem.name}, which is not installed: pip install 'feedrank[onnx]'"
        ) from None
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as model_logging

    model_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder), attn_implementation="eager").eval()
    if model.config.num_labels != 1:
        raise ValueError(
            f"{folder} has {model.config.num_labels} outputs, expected one: a cross-encoder's score; train one with"
            " `feedrank finetune cross-encoder`"
        )
    takes = tokenizer("a", "b").keys()
    inputs = tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in takes)
    to.mkdir(parents=True, exist_ok=True)
    with written_aside(to / MODEL) as aside:
        _write(model, inputs, aside, settings.int8)
    with written_aside(to / TOKENIZER) as aside:
        tokenizer.backend_tokenizer.save(str(aside))
    with written_aside(to / TEMPLATE) as aside:
        template(tokenizer, inputs, settings, about).save(aside)


def template(
    tokenizer: Any, inputs: tuple[str, ...], settings: PairSettings, about: Sequence[tuple[str, str]] = ()
) -> PairTemplate:
    """How a tokenizer joins two texts, found by having it join two."""
    joined = tokenizer("a", "b", return_token_type_ids=True)
    parts = joined.sequence_ids(0)
    ids, kinds = joined["input_ids"], joined["token_type_ids"]
    first, last = parts.index(0), len(parts) - 1 - parts[::-1].index(0)
    second, end = parts.index(1), len(parts) - 1 - parts[::-1].index(1)

    def kind(place: int) -> int:
        return int(kinds[place]) if 0 <= place < len(kinds) else 0

    return PairTemplate(
        before=tuple(ids[:first]),
        between=tuple(ids[last + 1 : second]),
        after=tuple(ids[end + 1 :]),
        types=(kind(0), kind(first), kind(last + 1), kind(second), kind(len(ids) - 1)),
        pad=int(tokenizer.pad_token_id or 0),
        text_tokens=settings.text_tokens,
        item_tokens=settings.item_tokens,
        inputs=inputs,
        about=tuple(about),
    )


def licence(folder: Path) -> str:
    """What a model folder says of its licence: in what feedrank wrote beside a trained one, or in its model card."""
    told = settings_of(folder, "feedrank.json").get("licence")
    if told:
        return str(told)
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()[:60]
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "unknown")


def _write(model: Any, inputs: tuple[str, ...], path: Path, int8: bool) -> None:
    import torch

    from models.text.first_token import heard_alone

    class Logits(torch.nn.Module):
        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(**dict(zip(inputs, given, strict=True))).logits
            return logits

    wrapped = Logits()
    wrapped.model = heard_alone(model)  # so that the weights are the module's own
    ids = torch.full((3, 7), 5)
    examples = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    rows, width = torch.export.Dim("rows", min=1, max=4_096), torch.export.Dim("width", min=2, max=512)
    with TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # exporter and quantiser talk of their own affairs
        try:
            whole = Path(work) / "model.onnx"
            torch.onnx.export(
                wrapped, tuple(examples[name] for name in inputs), str(whole), input_names=list(inputs),
                output_names=["logits"], dynamic_shapes=({"given": tuple({0: rows, 1: width} for _ in inputs)}),
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
            if int8:
                from onnxruntime.quantization import QuantType, quantize_dynamic

                small = Path(work) / "small.onnx"
                quantize_dynamic(str(whole), str(small), weight_type=QuantType.QInt8)
                whole = small
        finally:
            logging.disable(logging.NOTSET)
        shutil.copyfile(whole, path)
