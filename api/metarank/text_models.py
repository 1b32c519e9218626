"""Turns models of texts in a Metarank config into the sections of feedrank's embedder and cross-encoder."""

from __future__ import annotations

from feedrank.api.metarank.imported_features import ImportedFeatures
from feedrank.api.metarank.section import NoCounterpart, Section, normalised

TEXT_MODELS = {"biencoder": "embedder", "bert": "embedder", "transformer": "embedder", "crossencoder": "cross_encoder"}
"""Methods of field_match that built-in families of feedrank compute -> section of their model."""


def match_by_model(section: Section, method: Section, requested: str, item: str, found: ImportedFeatures) -> None:
    """Turn on the built-in features of an embedder or a cross-encoder; they read the query and the document.

    requested, item: the fields of the ranking and of items that Metarank compares. Raises NoCounterpart.
    """
    model_section = TEXT_MODELS[normalised(method.text("type"))]
    if requested != "query":
        raise NoCounterpart(
            f"found rankingField = ranking.{requested}: text models read the query of a request alone; send the "
            "text as ranking.query"
        )
    distance, norm = section.text("distance", default="cos"), section.text("norm", default="noop")
    if normalised(distance) not in ("cos", "cosine"):
        raise NoCounterpart(f"found distance = {distance}, expected cos")
    if norm != "noop":
        raise NoCounterpart(f"found norm = {norm}, expected noop; trees need no scaled scores")
    if method.get("model") is None:
        raise NoCounterpart("found no model: feedrank computes texts itself; name a model in method.model")
    set_model(method, model_section, [item], found)
    for cache in ("itemFieldCache", "rankingFieldCache", "cache"):
        if method.get(cache) is not None:
            found.report.note(section.where, f"{cache} is not read; feedrank has caches of its own")
    method.get("dim"), method.get("modelFile"), method.get("tokenizerFile")
    method.name_unread(found.report)
    feature = "query_cosine" if model_section == "embedder" else "ce_score"
    found.report.note(section.where, f"became the built-in feature {feature}, which reads the query and the document")


def set_model(method: Section, model_section: str, fields: list[str], found: ImportedFeatures) -> None:
    """Set the model of a section and add fields to the document. Raises NoCounterpart for a second model."""
    model = _model_name(method.text("model"))
    settings = found.sections.setdefault(model_section, {})
    if settings.setdefault("model", model) != model:
        raise NoCounterpart(f"found the model {model} beside {settings['model']}, expected one for all features")
    document = found.sections.setdefault("embedder", {}).setdefault("document", [])
    document += [name for name in fields if name not in document]


def _model_name(handle: str) -> str:
    """Return the name of a model for sentence-transformers: Metarank's exports have those of their originals."""
    if handle.startswith("file://"):
        return handle.removeprefix("file://")
    owner, _, name = handle.rpartition("/")
    if owner != "metarank":
        return handle
    if name == "ce-msmarco-MiniLM-L6-v2":
        return "cross-encoder/ms-marco-MiniLM-L6-v2"
    if name.startswith(("all-", "multi-qa-", "msmarco-", "paraphrase-")):
        return f"sentence-transformers/{name}"
    raise NoCounterpart(f"found the model {handle}, an ONNX file of Metarank; name the model that it was made of")
