"""Suggests declared features for the fields of a survey, each with its reason, and says what is left out and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from feedrank.engine.events.field_forms import ALL_FIELDS, ITEM, LIST, REQUEST, USER
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.survey.exclusion import count_text, is_category, late_warning, left_out, with_meanings
from feedrank.features.survey.field_summary import FieldSummary
from feedrank.features.survey.survey_context import Context

MAX_LIST_COLUMNS = 30
"""Columns of a list of values, one for each of the most frequent ones."""
OVERLAP = 0.5
"""Two fields have the same values if this share of the values of the one are values of the other."""
MANY_NUMBERS = 10
"""From so many numbers of lists on, as feature files have them, one feature reads them all."""
MAX_FEATURES = 200
"""Number of features that are suggested; further ones are left to the reader."""
_PRICE = re.compile(
    r"price|cost|amount|salary|wage|rent|fee|bid|preis|prix|precio|income|budget|revenue", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class FieldSuggestion:
    """What is suggested for one field, or why it is left out."""

    summary: FieldSummary
    features: tuple[DeclaredFeature, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why each feature is suggested; aligned with `features`."""
    left_out: str = ""
    """Why nothing is suggested; empty if something is."""
    warning: str = ""
    """What may be wrong with the field; empty if nothing is."""


def suggest(summaries: Sequence[FieldSummary], context: Context) -> list[FieldSuggestion]:
    """Return a suggestion for each field, in their order."""
    summaries = with_meanings(summaries)
    by_name = {summary.name: summary for summary in summaries}
    rules = _Rules(context, by_name, _item_category(summaries, context))
    return _limited(_with_all_numbers([rules.suggest(summary) for summary in summaries]))


def suggest_clock(summaries: Sequence[FieldSummary], context: Context) -> FieldSuggestion | None:
    """Suggest the hour of the request in UTC if requests are logged and none of their fields is a time zone."""
    if not context.has_rankings or any(one.source == REQUEST and one.type == "time zone" for one in summaries):
        return None
    name = next(name for name in ("hour", "request_hour", "utc_hour") if name not in context.taken)
    feature = DeclaredFeature(name, "local_time", part="hour")
    reason = "in UTC, as no request field is a time zone; set zone to that of your users"
    return FieldSuggestion(FieldSummary(REQUEST, "time", "time", 0, 0.0, 0, False, {}), (feature,), (reason,))


class _Rules:
    """Chooses features for one field after another."""

    def __init__(self, context: Context, by_name: Mapping[str, FieldSummary], category: FieldSummary | None) -> None:
        self._context = context
        self._by_name = by_name
        self._category = category
        self._taken = set(context.taken)

    def suggest(self, summary: FieldSummary) -> FieldSuggestion:
        if reason := left_out(summary, self._context):
            return FieldSuggestion(summary, left_out=reason)
        features = list(self._features(summary))
        if not features:
            vectors = "a vector; to compare it, items and users or requests need one of the same name"
            reason = vectors if summary.type == "list of numbers" else "its values are no numbers, texts or times"
            return FieldSuggestion(summary, left_out=reason)
        declared, reasons = zip(*features, strict=True)
        return FieldSuggestion(summary, declared, reasons, warning=late_warning(summary))

    def _features(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        name = summary.name
        match summary.type:
            case "number":
                yield from self._numbers(summary)
            case "boolean":
                yield self._feature(summary, "", "boolean", "yes or no", from_=name)
            case "user agent":
                for part in ("platform", "os"):
                    yield self._feature(
                        summary, part, "user_agent", f"the {part} of the user agent", from_=name, part=part
                    )
            case "web address" if summary.source in (REQUEST, USER):
                yield self._feature(
                    summary, "medium", "referer", "where the visitor came from", from_=name, part="medium"
                )
            case "time zone" if summary.source == REQUEST:
                for part in ("hour", "weekday"):
                    yield self._feature(summary, part, "local_time", f"the {part} at the user", part=part, zone=name)
            case "time":
                yield self._feature(summary, "age", "item_age", "time since then", from_=name)
            case "list":
                yield from self._lists(summary)
            case "list of numbers" if summary.source in (USER, REQUEST):
                yield from self._products(summary)
            case "text" if summary.mean_words >= 3 and not is_category(summary):
                yield from self._texts(summary)
            case "text" | "time zone":
                yield from self._values(summary)
            case _:
                return

    def _numbers(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        name, skewed = summary.name, is_skewed(summary)
        is_price = bool(_PRICE.search(summary.field))
        transform: dict[str, Any] = {"transform": "log1p"} if skewed or (is_price and summary.quantiles[0] >= 0) else {}
        reason = "a few large numbers, so as log1p" if transform else "a number"
        yield self._feature(summary, "", "number", reason, from_=name, **transform)
        if summary.source in (ITEM, LIST) and (is_price or (summary.source == ITEM and transform)):
            other = name if summary.source == ITEM else f"item.{summary.field}"
            if other in self._by_name and self._by_name[other].type == "number":
                to = f"user.recent({other})"
                yield self._feature(
                    summary, "fit", "distance", "how far from what the user lately took", from_=name, to=to, **transform
                )
        if summary.source in (USER, REQUEST):
            other = f"item.{summary.field}"
            if other in self._by_name and self._by_name[other].type == "number":
                yield self._feature(
                    summary, "fit", "distance", f"how far {other} is from it", from_=other, to=name, **transform
                )

    def _values(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        name = summary.name
        if is_category(summary):
            yield self._feature(summary, "", "category", f"{summary.distinct} values", from_=name)
            if summary.source == ITEM:
                yield from self._shares(summary)
                yield from self._rate(summary, ("user", name), "what the user takes of it")
            elif summary.source in (USER, REQUEST):
                yield from self._context_rate(summary)
        elif summary.source == ITEM:
            yield from self._rate(summary, (name,), f"{count_text(summary)} values, too many for a category")
        elif summary.source in (USER, REQUEST):
            yield from self._context_rate(summary)
        yield from self._matches(summary)

    def _lists(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        name = summary.name
        if is_category(summary):
            columns = min(summary.distinct, MAX_LIST_COLUMNS)
            more = {"max_values": MAX_LIST_COLUMNS} if summary.distinct > columns else {}
            reason = f"lists of {summary.distinct} values; a column for each of the {columns} most frequent"
            yield self._feature(summary, "has", "list", reason, from_=name, **more)
        if summary.source == ITEM:
            yield from self._shares(summary)
            if is_category(summary):
                yield from self._rate(summary, ("user", name), "what the user takes of them")
        yield from self._matches(summary)

    def _products(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        """Yield the product of a vector of users or requests with that of items, if both have the same name."""
        other = self._by_name.get(f"{ITEM}.{summary.field}")
        if other is not None and other.type == "list of numbers":
            reason = f"how alike it is to {other.name}"
            yield self._feature(
                summary, "likeness", "vector", reason, from_=other.name, to=summary.name, reduce=("cosine",)
            )

    def _texts(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        name = summary.name
        yield self._feature(summary, "words", "word_count", f"texts of {summary.mean_words:.0f} words", from_=name)
        if summary.source == ITEM and self._context.has_queries:
            is_document = summary.field in self._context.documents
            method = "ngram" if is_document else "term"
            reason = "BM25 compares its words; this finds parts of words" if is_document else "how well it fits a query"
            yield self._feature(summary, "query", "match", reason, from_=name, to="request.query", method=method)

    def _shares(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        yield self._feature(
            summary, "share", "interacted_with", "how often the user took the same", from_=summary.name,
            of=self._context.of, half_lives_h=(math.inf,),
        )  # fmt: skip

    def _context_rate(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        if self._category is not None:
            key = (self._category.name, summary.name)
            yield from self._rate(summary, key, f"how {self._category.name} does there: it lets the order depend on it")
        elif not is_category(summary):
            yield from self._rate(summary, ("item", summary.name), "how the item does there")

    def _rate(
        self, summary: FieldSummary, key: tuple[str, ...], reason: str
    ) -> Iterable[tuple[DeclaredFeature, str]]:  # fmt: skip
        if self._context.has_rankings:
            yield self._feature(summary, "rate", "rate", reason, of=self._context.of, key=key, half_lives_h=(math.inf,))

    def _matches(self, summary: FieldSummary) -> Iterable[tuple[DeclaredFeature, str]]:
        """Yield the match of a field of users or requests with the item fields of the same values."""
        if summary.source not in (USER, REQUEST) or summary.distinct < 2:
            return
        usable = replace(self._context, declared=())
        for other in self._by_name.values():
            if other.source != ITEM or other.type not in ("text", "list") or left_out(other, usable):
                continue
            if (shared := sum(value in other.top for value in summary.top)) >= OVERLAP * summary.distinct:
                reason = f"{shared} of its {count_text(summary)} values are values of {other.name}"
                suffix = f"{other.field}_match"
                yield self._feature(summary, suffix, "match", reason, from_=other.name, to=summary.name)

    def _feature(
        self, summary: FieldSummary, suffix: str, kind: Any, reason: str, **keys: Any
    ) -> tuple[DeclaredFeature, str]:
        base = re.sub(r"[^\w.-]+", "_", summary.field)
        name = f"{base}_{suffix}" if suffix else base
        if name in self._taken:
            name = f"{summary.source}_{name}"
        number = 2
        while name in self._taken:
            name, number = f"{name.removesuffix(f'_{number - 1}')}_{number}", number + 1
        self._taken.add(name)
        return DeclaredFeature(name, kind, **keys), reason


def is_skewed(summary: FieldSummary) -> bool:
    """Check whether numbers have a long tail: none below 0, and the greatest far above the middle."""
    if len(summary.quantiles) < 5 or summary.quantiles[0] < 0:
        return False
    _, _, middle, upper, greatest = summary.quantiles
    return greatest > 20 and greatest > 8 * max(middle, 1e-9) and greatest > 3 * max(upper, 1e-9)


def _item_category(summaries: Sequence[FieldSummary], context: Context) -> FieldSummary | None:
    """Return the item field that rates are keyed with: `category`, or the category that most items have."""
    usable = replace(context, declared=())
    fits = [
        summary
        for summary in summaries
        if summary.source == ITEM and summary.type in ("text", "list") and is_category(summary)
        and summary.distinct > 1 and summary.missing_share < 0.5 and not left_out(summary, usable)
    ]  # fmt: skip
    named = [summary for summary in fits if summary.field == "category"]
    ranked = named or sorted(fits, key=lambda summary: (summary.missing_share, summary.distinct))
    return ranked[0] if ranked else None


def _with_all_numbers(suggestions: list[FieldSuggestion]) -> list[FieldSuggestion]:
    """Return the suggestions, where one feature reads all numbers of lists if there are many, and none is left out."""
    numbers = [one for one in suggestions if one.summary.source == LIST and one.summary.type == "number"]
    if len(numbers) < MANY_NUMBERS or any(one.left_out for one in numbers):
        return suggestions
    every = DeclaredFeature("list", "numbers", from_=f"{LIST}.{ALL_FIELDS}", max_values=max(len(numbers), 100))
    reason = f"lists bring {len(numbers)} numbers; one column for each"
    first = replace(numbers[0], features=(every,), reasons=(reason,))
    return [
        first if one is numbers[0] else replace(one, features=(), reasons=(), left_out=f"{every.name} has its column")
        if one in numbers else one
        for one in suggestions
    ]  # fmt: skip


def _limited(suggestions: Sequence[FieldSuggestion]) -> list[FieldSuggestion]:
    """Return the suggestions with at most `MAX_FEATURES` features: the first of each field, then the second, ..."""
    places = [(rank, number) for number, one in enumerate(suggestions) for rank in range(len(one.features))]
    kept = set(sorted(places)[:MAX_FEATURES])
    limited = []
    for number, one in enumerate(suggestions):
        ranks = [rank for rank in range(len(one.features)) if (rank, number) in kept]
        cut = f"there are more than {MAX_FEATURES} features already" if one.features and not ranks else one.left_out
        limited.append(
            replace(
                one, features=tuple(one.features[rank] for rank in ranks),
                reasons=tuple(one.reasons[rank] for rank in ranks), left_out=cut,
            )
        )  # fmt: skip
    return limited
