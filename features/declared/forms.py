"""Which forms of fields each kind of declared feature reads."""

from __future__ import annotations

from dataclasses import replace

from feedrank.engine.events.field_forms import ITEM, REQUEST, FieldForm
from feedrank.features.declared import encoders
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.source import RECENT, Source
from feedrank.features.declared.web_texts import REFERER_PARTS, USER_AGENT_PARTS

_NUMBERS = {
    "number": encoders.number,
    "boolean": encoders.boolean,
    "word_count": encoders.word_count,
    "distance": encoders.number,
}


def forms_of(feature: DeclaredFeature) -> tuple[FieldForm, ...]:
    """Return the forms that a feature reads: that of `from`, then that of `to`, if it has one."""
    kind = feature.kind
    if kind == "item_age":
        source = feature.source if feature.from_ else Source(ITEM, "published")
        return (encoders.moment(source.entity, source.field),)
    if kind == "local_time" and feature.from_:
        return (encoders.local_clock(feature.source.entity, feature.source.field),)
    if kind == "local_time":
        zone = zone_source(feature)
        return () if zone is None else (encoders.time_zone(zone.entity, zone.field),)
    if kind == "random" or kind in ("count", "rate", "interacted_with"):
        return ()
    source = feature.source
    if kind == "numbers":
        return (encoders.all_numbers(source.entity),)
    if kind == "match" and feature.method == "bm25":
        other = feature.other
        return (
            encoders.query_terms(source.entity, source.field, feature.language),
            encoders.document(other.entity, other.field, feature.language),
        )
    if kind == "match":
        return tuple(_compared(feature, part) for part in (source, feature.other))
    if kind == "vector":
        sources = (source, feature.other) if feature.to else (source,)
        vectors = tuple(encoders.vector(part.entity, part.field) for part in sources)
        return vectors if feature.to else (*vectors, encoders.list_size(source.entity, source.field))
    if kind == "diversity" and feature.method == "number":
        return (encoders.number(source.entity, source.field),)
    if kind in _NUMBERS:
        forms = [_NUMBERS[kind](source.entity, source.field)]
        if kind == "distance":
            other = feature.other
            forms.append(encoders.number(ITEM if other.entity == RECENT else other.entity, other.field))
        return tuple(forms)
    if kind in ("user_agent", "referer"):
        parse = (USER_AGENT_PARTS if kind == "user_agent" else REFERER_PARTS)[feature.part]
        return (encoders.parsed(source.entity, source.field, f"{kind} {feature.part}", parse),)
    return (encoders.values(source.entity, source.field),)


def all_forms_of(feature: DeclaredFeature) -> tuple[FieldForm, ...]:
    """Return the forms that a feature and its fallback read."""
    if not feature.fallback:
        return forms_of(feature)
    return (*forms_of(feature), *forms_of(replace(feature, from_=feature.fallback, fallback="")))


def zone_source(feature: DeclaredFeature) -> Source | None:
    """Return the field that holds the time zone; None if the zone is fixed."""
    return Source.parse(feature.zone) if feature.zone.startswith(f"{REQUEST}.") else None


def _compared(feature: DeclaredFeature, source: Source) -> FieldForm:
    if feature.method == "value":
        return encoders.value_set(source.entity, source.field)
    if feature.method == "term":
        return encoders.terms(source.entity, source.field, feature.language)
    return encoders.ngrams(source.entity, source.field, feature.n)
