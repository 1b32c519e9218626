"""Turns each kind of Metarank's features into declared features of feedrank."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from feedrank.api.metarank.fields import field_of, key_of_scope, parse_field
from feedrank.api.metarank.imported_features import Declared, ImportedFeatures
from feedrank.api.metarank.section import NoCounterpart, Section, normalised
from feedrank.api.metarank.text_models import TEXT_MODELS, match_by_model

_LANGUAGES = {
    "en": "english", "cz": "czech", "cs": "czech", "da": "danish", "nl": "dutch", "et": "estonian", "fi": "finnish",
    "fr": "french", "de": "german", "gr": "greek", "el": "greek", "it": "italian", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "es": "spanish", "sv": "swedish", "tr": "turkish", "ar": "arabic", "generic": "", "zh": "",
    "ja": "",
}  # fmt: skip
_TIME_PARTS = {
    "timeofday": "hour", "dayofweek": "weekday", "dayofmonth": "day", "monthofyear": "month", "year": "year",
    "second": "timestamp",
}  # fmt: skip
_REDUCTIONS = {
    "first": "first", "last": "last", "min": "min", "max": "max", "avg": "mean", "sum": "sum", "size": "size",
    "euclideandistance": "norm",
}  # fmt: skip


def import_feature(section: Section, found: ImportedFeatures) -> None:
    """Import one feature. Raises NoCounterpart."""
    kind = section.text("type")
    name = section.text("name")
    if name in found.declared:
        raise NoCounterpart("found the name twice, expected each feature once")
    convert = KINDS.get(normalised(kind))
    if convert is None:
        raise NoCounterpart(f"found type = {kind}, expected one of {', '.join(KINDS)}")
    section.get("refresh", "ttl")  # values are always up to date, and are kept
    section.get("ttl")
    declared = convert(section, name, found)
    section.name_unread(found.report)
    found.declared[name] = declared


def _origin(section: Section) -> Declared:
    """Return where a scalar comes from: the list first, as it may bring newer values of its items."""
    entity, name = field_of(section)
    scope = section.text("scope", default="")
    if scope == "global":
        raise NoCounterpart("found scope = global; send the value with each ranking, as ranking.FIELD")
    if entity == "item":
        return {"from": f"list.{name}", "fallback": f"item.{name}"}
    if entity == "request" and scope == "item":
        return {"from": f"list.{name}", "fallback": f"request.{name}"}
    return {"from": f"{entity}.{name}"}


def _number(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    return [{"name": name, "kind": "number", **_origin(section)}]


def _relative_number(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    section.get("method")
    found.report.note(section.where, "became the number with its place between the least and the greatest of the list")
    return [{"name": name, "kind": "number", **_origin(section), "within": ["minmax"]}]


def _boolean(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    return [{"name": name, "kind": "boolean", **_origin(section)}]


def _string(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    encode = normalised(section.text("encode", default="onehot"))
    if encode not in ("onehot", "index"):
        raise NoCounterpart(f"found encode = {encode}, expected onehot or index")
    kind = "category" if encode == "index" else "list"
    return [{"name": name, "kind": kind, **_origin(section), "values": section.texts("values")}]


def _vector(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    section.get("scope")
    reduce = section.texts("reduce") if section.get("reduce") is not None else ["min", "max", "size", "avg"]
    reductions, dimensions = [], 0
    for entry in reduce:
        plain = normalised(entry)
        if match := re.fullmatch(r"vector(\d+)", plain):
            dimensions = max(dimensions, int(match[1]))
            reductions.append("values")
        elif plain in _REDUCTIONS:
            reductions.append(_REDUCTIONS[plain])
        else:
            instead = "; declare a feature of the type random instead" if plain == "random" else ""
            raise NoCounterpart(f"found reduce = {entry}, expected {', '.join(_REDUCTIONS)} or vectorN{instead}")
    declared: Declared = {"name": name, "kind": "vector", "from": f"{entity}.{field_name}"}
    declared["reduce"] = list(dict.fromkeys(reductions))
    return [declared | ({"dimensions": dimensions} if dimensions else {})]


def _list_size(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    section.get("scope")
    return [{"name": name, "kind": "vector", "from": f"{entity}.{field_name}", "reduce": ["size"]}]


def _word_count(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    section.get("scope")
    return [{"name": name, "kind": "word_count", "from": f"{entity}.{field_name}"}]


def _item_age(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    section.get("scope")
    if entity != "item":
        raise NoCounterpart(f"found the source {entity}.{field_name}, expected a field of items, or item.timestamp")
    return [{"name": name, "kind": "item_age", "from": f"item.{field_name}"}]


def _local_time(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    parse = section.text("parse")
    if entity != "request":
        raise NoCounterpart(f"found the source {entity}.{field_name}, expected a field of the ranking")
    if normalised(parse) not in _TIME_PARTS:
        raise NoCounterpart(f"found parse = {parse}, expected one of {', '.join(_TIME_PARTS)}")
    declared: Declared = {"name": name, "kind": "local_time", "part": _TIME_PARTS[normalised(parse)]}
    return [declared if field_name == "timestamp" else declared | {"from": f"request.{field_name}"}]


def _user_agent(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    entity, field_name = parse_field(section.text("source"))
    part = section.text("field")
    if part not in ("platform", "os", "browser", "bot"):
        raise NoCounterpart(f"found field = {part}, expected platform, os, browser or bot")
    return [{"name": name, "kind": "user_agent", "from": f"{entity}.{field_name}", "part": part}]


def _referer(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    section.get("scope")
    if entity == "request":
        found.report.note(section.where, "is the referer of the request itself; those of earlier requests do not count")
    return [{"name": name, "kind": "referer", "from": f"{entity}.{field_name}", "part": "medium"}]


def _relevancy(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    section.get("scope")
    return [{"name": name, "kind": "number", "from": "list.relevancy"}]


def _interaction_count(section: Section, name: str, _: ImportedFeatures) -> list[Declared]:
    of, key = section.text("interaction"), key_of_scope(section.text("scope"))
    return [{"name": name, "kind": "count", "of": [of], "key": key, "half_lives_h": [math.inf]}]


def _windows(section: Section) -> Declared:
    """Return the windows of a count: bucket and periods, which older versions call bucket_size and windows."""
    bucket = section.hours("bucket", "bucket_size")
    periods = section.numbers("periods", "windows")
    return {"windows_h": [period * bucket for period in dict.fromkeys(periods)], "bucket_h": bucket}


def _window_count(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    of, key = section.text("interaction"), key_of_scope(section.text("scope"))
    if section.get("count") is not None:
        found.report.note(section.where, "count is not read, by Metarank neither")
    return [{"name": name, "kind": "count", "of": [of], "key": key, **_windows(section)}]


def _rate(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    top, bottom = section.text("top"), section.text("bottom")
    scope = section.text("scope", default="item")
    if scope in ("global", "user", "session"):
        raise NoCounterpart(f"found scope = {scope}, expected item, item.FIELD or ranking.FIELD")
    declared: Declared = {"name": name, "kind": "rate", "of": [top], "per": [bottom]}
    declared |= {"key": key_of_scope(scope, with_item=True), **_windows(section)}
    if section.get("normalize") is None:
        declared["smoothing"] = 0.0
    else:
        normalise = section.below("normalize")
        declared["prior_of"] = float(normalise.number("weight", default=10))
        normalise.name_unread(found.report)
    if "impression" in (top, bottom):
        found.report.note(section.where, "every item that was shown is an impression, not only those above a click")
    return [declared]


def _interacted_with(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    of, fields = section.text("interaction"), [parse_field(entry) for entry in section.texts("field")]
    by = section.text("scope")
    if by not in ("user", "session"):
        raise NoCounterpart(f"found scope = {by}, expected user or session")
    if other := [f"{entity}.{field_name}" for entity, field_name in fields if entity != "item"]:
        raise NoCounterpart(f"found the field {other[0]}, expected fields of items")
    latest, window = int(section.number("count", default=100)), section.hours("duration", default=24.0)
    return [
        {
            "name": name if len(fields) == 1 else f"{name}_{field_name}", "kind": "interacted_with",
            "from": f"item.{field_name}", "of": [of], "by": by, "latest": latest, "windows_h": [window],
            "share": False,
        }
        for _, field_name in fields
    ]  # fmt: skip


def _field_match(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    requested, item = (parse_field(section.text(key)) for key in ("rankingField", "itemField"))
    if requested[0] != "request" or item[0] != "item":
        raise NoCounterpart("expected a field of the ranking in rankingField, and one of items in itemField")
    method = section.below("method")
    kind = normalised(method.text("type"))
    if kind in TEXT_MODELS:
        match_by_model(section, method, requested[1], item[1], found)
        return []
    if kind not in ("term", "ngram", "bm25"):
        raise NoCounterpart(f"found method {kind}, expected term, ngram, bm25, bi-encoder or cross-encoder")
    language = method.text("language", default="generic").lower()
    snowball = _LANGUAGES.get(language, language)
    declared: Declared = {"name": name, "kind": "match", "from": f"request.{requested[1]}", "to": f"item.{item[1]}"}
    declared["method"] = kind
    if kind == "ngram":
        declared["n"] = int(method.number("n"))
    elif snowball:
        declared["language"] = snowball
    if kind == "bm25" and method.get("termFreq") is not None:
        found.report.note(section.where, "termFreq is not read; training counts the words of the catalogue itself")
    method.name_unread(found.report)
    return [declared]


def _diversity(section: Section, name: str, found: ImportedFeatures) -> list[Declared]:
    entity, field_name = field_of(section)
    if entity != "item":
        raise NoCounterpart(f"found the source {entity}.{field_name}, expected a field of items")
    if section.get("top") is not None:
        found.report.note(
            section.where, "top is not read: all candidates count, as their order is not known in advance"
        )
    declared: Declared = {"name": name, "kind": "diversity", "from": f"item.{field_name}"}
    if field_name in found.number_fields:
        return [declared | {"method": "number"}]
    if field_name in found.text_fields:
        return [declared]
    found.report.note(
        section.where, f"nothing says whether item.{field_name} is a number or a text; there is a feature for each"
    )
    return [declared, {**declared, "name": f"{name}_number", "method": "number"}]


def _position(section: Section, _: str, found: ImportedFeatures) -> list[Declared]:
    section.get("position")
    found.sections.setdefault("ranker", {})["debias"] = True
    found.report.note(
        section.where,
        "the position is never a feature; training takes its effect out of the clicks ([ranker] debias), for which "
        "rankings need the positions of their items",
    )
    return []


def _random(_: Section, name: str, __: ImportedFeatures) -> list[Declared]:
    return [{"name": name, "kind": "random"}]


KINDS: Mapping[str, Callable[[Section, str, ImportedFeatures], list[Declared]]] = {
    "number": _number, "boolean": _boolean, "string": _string, "vector": _vector, "wordcount": _word_count,
    "itemage": _item_age, "localtime": _local_time, "ua": _user_agent, "referer": _referer, "relevancy": _relevancy,
    "interactioncount": _interaction_count, "windowcount": _window_count, "rate": _rate,
    "interactedwith": _interacted_with, "fieldmatch": _field_match, "diversity": _diversity, "position": _position,
    "random": _random,
    # names in Metarank's pages, and of older versions
    "numvector": _vector, "useragent": _user_agent, "referermedium": _referer, "interactioncounter": _interaction_count,
    "windowcounter": _window_count, "windoweventcount": _window_count, "windowedcount": _window_count,
    "relativenumber": _relative_number, "listsize": _list_size, "timediff": _item_age,
}  # fmt: skip
"""Kind of Metarank, in lower case without separators -> the function that turns it into declared features."""
