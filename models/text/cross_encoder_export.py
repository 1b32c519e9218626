"""Exports a cross-encoder checkpoint for `CrossEncoderModel`: ONNX graph, tokenizer and input template."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feedrank.models.atomic_files import atomic_write
from feedrank.models.text.cross_encoder_model import FILES, MODEL_FILE, TEMPLATE_FILE, TOKENIZER_FILE, InputTemplate
from feedrank.models.text.model_weights import find_weights, read_model_json, weights_digest

GRAPH_VERSION = "cls-only"
"""Version of the exported graph, part of the cache key: a new graph needs a new export."""


@dataclass(frozen=True, slots=True)
class CrossEncoderSettings:
    """[cross_encoder] Which cross-encoder scores (request text, item) pairs, and for which candidates."""

    model: str = ""
    """A CrossEncoder checkpoint with one output, by name or folder; empty: no cross-encoder."""
    revision: str | None = None
    """Revision of the model on the Hugging Face hub. Not set: the latest."""
    query_tokens: int = 24
    """Maximum number of tokens of a request's text. Unit: tokens."""
    item_tokens: int = 32
    """Maximum number of tokens of an item's text. Unit: tokens."""
    int8: bool = True
    """Whether weights are quantized to int8: about twice as fast on a CPU, with slightly different scores."""
    top_k: int = 30
    """Number of best first-stage candidates that a live request scores if they are not cached. Unit: items."""
    precomputed_share: float = 0.5
    """Share of requests whose candidates all have precomputed scores, 0 to 1; training masks scores to match it."""
    cache_size: int = 20_000
    """Maximum number of request texts in the score cache on disk; 0: no disk cache. Unit: texts."""
    prefetch_queue_size: int = 1_000
    """Maximum number of users in the queue that scores their next candidates ahead; 0: no prefetching. Unit: users."""
    threads: int = 0
    """Number of threads of the model; 0: all cores. Unit: threads."""

    def __post_init__(self) -> None:
        minimum = {
            "query_tokens": 1, "item_tokens": 1, "top_k": 0, "cache_size": 0, "prefetch_queue_size": 0, "threads": 0,
        }  # fmt: skip
        for name, least in minimum.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not 0 <= self.precomputed_share <= 1:
            raise ValueError(f"precomputed_share is {self.precomputed_share}; expected 0 to 1")


def export_cached(settings: CrossEncoderSettings, cache: Path) -> Path:
    """Return the folder of the exported model in `cache`; export it first if it is not there.

    Raises WeightsNotFoundError if there are no weights. Raises ValueError if the checkpoint is not a classifier with
    one output, or if the export packages are not installed.
    """
    folder = find_weights(settings.model, settings.revision)
    digest = weights_digest(folder)
    precision = "int8" if settings.int8 else "float32"
    target = cache / f"{digest}-{settings.query_tokens}-{settings.item_tokens}-{precision}-{GRAPH_VERSION}"
    if not all((target / name).is_file() for name in FILES):
        metadata = (
            ("model", settings.model), ("revision", settings.revision or ""), ("licence", licence(folder)),
            ("digest", f"{digest}-{precision}"),
        )  # fmt: skip
        export(folder, target, settings, metadata)
    return target


def export(
    folder: Path, target: Path, settings: CrossEncoderSettings, metadata: Sequence[tuple[str, str]] = ()
) -> None:
    """Write the three files of an exported checkpoint; the template last, so that an interrupted export is repeated.

    metadata: model, revision, licence and digest. Raises ValueError as `export_cached` does.
    """
    try:
        import onnx  # noqa: F401  # imported here, so that the error names the extra
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as problem:
        raise ValueError(
            f"exporting a cross-encoder needs {problem.name}, which is not installed: pip install 'feedrank[onnx]'"
        ) from None
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as model_logging

    model_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder), attn_implementation="eager").eval()
    if model.config.num_labels != 1:
        raise ValueError(
            f"{folder} has {model.config.num_labels} outputs, expected one: a cross-encoder's score; train one with"
            " `feedrank finetune cross-encoder`"
        )
    accepted = tokenizer("a", "b").keys()
    inputs = tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in accepted)
    target.mkdir(parents=True, exist_ok=True)
    with atomic_write(target / MODEL_FILE) as temporary:
        _write_onnx(model, inputs, temporary, settings.int8)
    with atomic_write(target / TOKENIZER_FILE) as temporary:
        tokenizer.backend_tokenizer.save(str(temporary))
    with atomic_write(target / TEMPLATE_FILE) as temporary:
        input_template(tokenizer, inputs, settings, metadata).save(temporary)


def input_template(
    tokenizer: Any, inputs: tuple[str, ...], settings: CrossEncoderSettings, metadata: Sequence[tuple[str, str]] = ()
) -> InputTemplate:
    """Derive the input template of a tokenizer from one encoded pair of texts."""
    joined = tokenizer("a", "b", return_token_type_ids=True)
    parts = joined.sequence_ids(0)
    ids, token_types = joined["input_ids"], joined["token_type_ids"]
    first, last = parts.index(0), len(parts) - 1 - parts[::-1].index(0)
    second, end = parts.index(1), len(parts) - 1 - parts[::-1].index(1)

    def type_at(index: int) -> int:
        return int(token_types[index]) if 0 <= index < len(token_types) else 0

    return InputTemplate(
        prefix=tuple(ids[:first]),
        separator=tuple(ids[last + 1 : second]),
        suffix=tuple(ids[end + 1 :]),
        token_types=(type_at(0), type_at(first), type_at(last + 1), type_at(second), type_at(len(ids) - 1)),
        pad_id=int(tokenizer.pad_token_id or 0),
        query_tokens=settings.query_tokens,
        item_tokens=settings.item_tokens,
        inputs=inputs,
        metadata=tuple(metadata),
    )


def licence(folder: Path) -> str:
    """Read the licence of a model from its feedrank.json (models trained here) or its model card; else "unknown"."""
    value = read_model_json(folder, "feedrank.json").get("licence")
    if value:
        return str(value)
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()[:60]
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "unknown")


def _write_onnx(model: Any, inputs: tuple[str, ...], path: Path, int8: bool) -> None:
    import torch

    from feedrank.models.text.cls_only import cls_only_last_layer

    class Logits(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(**dict(zip(inputs, tensors, strict=True))).logits
            return logits

    wrapped = Logits()
    wrapped.model = cls_only_last_layer(model)  # registers the weights with the wrapper
    ids = torch.full((3, 7), 5)
    examples = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    rows, width = torch.export.Dim("rows", min=1, max=4_096), torch.export.Dim("width", min=2, max=512)
    with TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # exporter and quantizer warn about internals
        try:
            graph = Path(work) / "model.onnx"
            torch.onnx.export(
                wrapped, tuple(examples[name] for name in inputs), str(graph), input_names=list(inputs),
                output_names=["logits"], dynamic_shapes=({"tensors": tuple({0: rows, 1: width} for _ in inputs)}),
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
            if int8:
                from onnxruntime.quantization import QuantType, quantize_dynamic

                quantized = Path(work) / "small.onnx"
                quantize_dynamic(str(graph), str(quantized), weight_type=QuantType.QInt8)
                graph = quantized
        finally:
            logging.disable(logging.NOTSET)
        shutil.copyfile(graph, path)
