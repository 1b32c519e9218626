"""Turns the models of a Metarank config into the settings of feedrank's one ranker, its labels and its recall."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from feedrank.api.metarank.imported_features import ImportedFeatures
from feedrank.api.metarank.section import NoCounterpart, Section, normalised
from feedrank.api.metarank.text_models import set_model
from feedrank.engine.events.interaction_types import InteractionTypes
from feedrank.features.state_spec import StateSettings

_PARAMETERS = {
    "learningRate": "learning_rate", "maxDepth": "max_depth", "numLeaves": "num_leaves", "sampling": "feature_fraction",
    "ndcgCutoff": "lambdarank_truncation_level",
}  # fmt: skip
_METRICS = {"ndcg": "ndcg@{}", "map": "map", "mrr": "mrr"}


def import_models(models: Section, names: Sequence[str], chosen: str | None, found: ImportedFeatures) -> list[str]:
    """Import all models; return the names of the features that the ranker uses, None of them listed: all.

    names: of the models. chosen: the LambdaMART model that becomes the ranker, if there are several.
    """
    sections = {name: _section(models, name, found) for name in names}
    kinds = {name: normalised(str(part.get("type"))) for name, part in sections.items() if part is not None}
    rankers = [name for name, kind in kinds.items() if kind == "lambdamart"]
    if chosen is not None and chosen not in rankers:
        raise NoCounterpart(f"found no lambdamart model {chosen}; there are {', '.join(rankers) or 'none'}")
    if len(rankers) > 1 and chosen is None:
        found.report.problem(
            "models", f"found the lambdamart models {', '.join(rankers)}; a home has one ranker: choose it with "
            "--model, and import each other one into a home of its own",
        )  # fmt: skip
    used: list[str] = []
    for name, part in sections.items():
        if part is None or (kinds[name] == "lambdamart" and name != (chosen or rankers[0])):
            continue
        with _problems(part.where, found):
            convert = _MODELS.get(kinds[name])
            if convert is None:
                raise NoCounterpart(f"found type = {part.get('type')}, expected one of {', '.join(_MODELS)}")
            with _problems(part.where, found):
                _selector(part, found)
            used += convert(part, found)
            part.name_unread(found.report)
    return used


def _section(models: Section, name: str, found: ImportedFeatures) -> Section | None:
    try:
        return models.below(name)
    except NoCounterpart as problem:
        found.report.problem(f"models.{name}", str(problem))
        return None


def _lambdamart(part: Section, found: ImportedFeatures) -> list[str]:
    for key, convert in _PARTS_OF_RANKER.items():
        if part.get(key) is not None:
            with _problems(part.where, found):
                convert(part, found)
    part.get("warmup")  # a server warms up by itself
    return part.texts("features")


@contextmanager
def _problems(where: str, found: ImportedFeatures) -> Iterator[None]:
    """Report what has no counterpart, and go on."""
    try:
        yield
    except NoCounterpart as problem:
        found.report.problem(where, str(problem))


def _backend(part: Section, found: ImportedFeatures) -> None:
    backend, ranker = part.below("backend"), found.sections.setdefault("ranker", {})
    kind = backend.text("type")
    if kind not in ("lightgbm", "xgboost"):
        raise NoCounterpart(f"found backend.type = {kind}, expected lightgbm or xgboost")
    if kind == "xgboost":
        found.report.note(backend.where, "xgboost became LightGBM's LambdaRank, the only booster of feedrank")
    if backend.get("iterations") is not None:
        ranker["rounds"] = int(backend.number("iterations"))
    if backend.get("seed") is not None:
        ranker["seed"] = int(backend.number("seed"))
    for key, parameter in _PARAMETERS.items():
        if backend.get(key) is not None:
            value = backend.number(key)
            ranker.setdefault("parameters", {})[parameter] = value
    debias = backend.get("debias")
    if debias is not None:
        ranker["debias"] = bool(debias) or ranker.get("debias", False)
    backend.name_unread(found.report)


def _weights(part: Section, found: ImportedFeatures) -> None:
    weights = part.get("weights")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise NoCounterpart(f"found weights = {weights!r}, expected interaction types with a number each")
    types = found.sections.setdefault("interactions.types", {})
    for name, weight in weights.items():
        meaning = "positive" if weight > 0 else "negative" if weight < 0 else None
        types[str(name)] = {"meaning": meaning, "weight": float(weight)}
    for name in sorted(_counted_types(found) - set(types) - {"impression"}):
        if InteractionTypes().of(name).weight > 0:
            types[name] = {"weight": 0.0}
            found.report.note(part.where, f"weights has no {name}; it counts for features, but for no label")
    found.report.note(part.where, "interactions of a type that the file does not name mean what its name usually means")
    grades = sorted({float(weight) for weight in weights.values() if weight > 0})
    if len(grades) > 1:
        found.sections["labels"] = {"grade_thresholds": [0.0, *grades[:-1]], "gains": [0.0, *grades]}


def _counted_types(found: ImportedFeatures) -> set[str]:
    declared = [feature for group in found.declared.values() for feature in group]
    return {name for feature in declared for key in ("of", "per") for name in feature.get(key, ())}


def _metric(part: Section, found: ImportedFeatures) -> None:
    metrics = part.texts("eval")
    name, _, cutoff = metrics[0].lower().partition("@")
    if name not in _METRICS:
        raise NoCounterpart(f"found eval = {metrics[0]}, expected NDCG@k, MAP or MRR")
    found.sections.setdefault("retrain.gate", {})["metric"] = _METRICS[name].format(cutoff or 10)
    if len(metrics) > 1 or (cutoff and name != "ndcg"):
        found.report.note(part.where, "`feedrank evaluate` prints all metrics; the first of eval is that of the gate")


def _split(part: Section, found: ImportedFeatures) -> None:
    split = part.text("split")
    kind, _, share = split.partition("=")
    if kind != "time":
        raise NoCounterpart(f"found split = {split}; feedrank tests on the newest part of the log: use time=80%")
    percent = share.strip().removesuffix("%") or "80"
    if not percent.replace(".", "").isdigit() or not 50 <= float(percent) < 100:
        raise NoCounterpart(f"found split = {split}, expected a share from 50% to 99%")
    found.sections.setdefault("retrain", {})["test_share"] = round(1 - float(percent) / 100, 6)


def _selector(part: Section, _: ImportedFeatures) -> None:
    selector = part.get("selector")
    if selector not in (None, {"accept": True}):
        raise NoCounterpart(f"found selector = {selector!r}; import the events that it accepts into another home")


def _trending(part: Section, found: ImportedFeatures) -> list[str]:
    weights = part.get("weights")
    if not isinstance(weights, list):
        raise NoCounterpart(f"found weights = {weights!r}, expected a list")
    half_lives = list(StateSettings().half_lives_h)
    for index, entry in enumerate(weights):
        weight = Section(f"{part.where}.weights[{index}]", entry)
        name, decay = weight.text("interaction"), weight.number("decay", default=1.0)
        if not 0 < decay <= 1:
            raise NoCounterpart(f"found decay = {decay}, expected a number above 0, at most 1")
        found.sections.setdefault("interactions.types", {}).setdefault(name, {})["popularity"] = True
        half_life = math.inf if decay == 1 else round(24 * math.log(0.5) / math.log(decay), 3)
        if half_life not in half_lives:
            half_lives.append(half_life)
        weight.number("weight", default=1.0), weight.hours("window", default=720.0)
        weight.name_unread(found.report)
    if len(half_lives) > len(StateSettings().half_lives_h):
        found.sections.setdefault("state", {})["half_lives_h"] = sorted(half_lives)
    found.report.note(
        part.where,
        "popularity comes from counts with half-lives: a request without a user is answered with the most popular "
        "items; weights and windows of the types are not read",
    )
    return []


def _als(part: Section, found: ImportedFeatures) -> list[str]:
    for name in part.texts("interactions"):
        found.sections.setdefault("interactions.types", {}).setdefault(name, {})["cooccurrence"] = True
    if part.get("factors") is not None:
        found.sections.setdefault("items", {})["cooccurrence_rank"] = int(part.number("factors"))
    part.get("iterations")
    found.report.note(
        part.where, "similar items come from co-occurrence and transitions, at /v1/items/ITEM/similar; they need no "
        "iterations",
    )  # fmt: skip
    return []


def _semantic(part: Section, found: ImportedFeatures) -> list[str]:
    encoder = part.below("encoder")
    if normalised(encoder.text("type", default="bert")) not in ("bert", "biencoder") or encoder.get("model") is None:
        raise NoCounterpart("found an encoder without a model: feedrank embeds texts itself; name a model")
    set_model(encoder, "embedder", part.texts("itemFields"), found)
    encoder.get("dim"), encoder.get("modelFile"), encoder.get("tokenizerFile")
    encoder.name_unread(found.report)
    part.get("store")
    found.report.note(part.where, "the embedding of the document is one of the vectors of recall and similar items")
    return []


def _baseline(part: Section, _: ImportedFeatures) -> list[str]:
    raise NoCounterpart(
        f"found type = {part.get('type')}: feedrank has no model for baselines; `feedrank evaluate` compares "
        "with the order of the list and a random one, and an experiment compares two rankers"
    )


_PARTS_OF_RANKER = {"backend": _backend, "weights": _weights, "eval": _metric, "split": _split}
"""Key of a lambdamart model -> the function that imports it."""
_MODELS = {
    "lambdamart": _lambdamart, "trending": _trending, "als": _als, "semantic": _semantic, "shuffle": _baseline,
    "noop": _baseline,
}  # fmt: skip
"""Type of a model -> the function that imports it, and returns the features that it uses."""
