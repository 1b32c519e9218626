"""Which fields no feature is suggested for, and why: ids, constants, and values that hold the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from feedrank.engine.events.catalogue import RANK_ONLY, REMOVED
from feedrank.engine.events.field_forms import ALL_FIELDS, ITEM, LIST, REQUEST, USER
from feedrank.features.survey.field_summary import MAX_VALUES, FieldSummary
from feedrank.features.survey.field_type import EPOCH_MS
from feedrank.features.survey.survey_context import Context

FEW_VALUES = 100
"""A field with at most this many values can be a category; one with more is counted by its values only."""
MAX_MISSING = 0.99
"""A field that more are without is left out."""
MIN_KNOWN = 0.02
"""A field that was set before fewer of the rankings is left out: nearly all of its training values would be missing."""
LATE_KNOWN = 0.8
"""A field that was set before fewer of the rankings gets a warning."""
ID_SHARE, MIN_FOR_ID = 0.9, 20
"""A field with more distinct values than this share of its values, of at least so many, is an id, or a name."""
LEAK_AUC = 0.95
"""A number that alone ranks the clicks so well holds the answer, in either direction."""
LEAK_SHARE = 0.5
"""A request field whose values name items of its own ranking so often was written after the click."""
_TOTAL = re.compile(
    r"(^|_)(n|num|nb|count|counts|clicks?|views?|sales|sold|purchases?|orders?|impressions?|likes|votes|popularity"
    r"|ratings?|reviews?|plays?|downloads?|ctr|cvr|conversions?)($|_)",
    re.IGNORECASE,
)
_CODE = re.compile(r"(^|_|[a-z](?=I|C|K))(id|code|key|sku|ean|isbn)$", re.IGNORECASE)
_OUTCOME = re.compile(
    r"(^|_)(clicks?|clicked|labels?|targets?|outcome|dwell|purchased?|bought|convert(ed)?|conversion|reward|position"
    r"|ranks?|score|relevance)($|_)",
    re.IGNORECASE,
)
_OWN = {
    REMOVED: "it hides an item", RANK_ONLY: "it hides an item", "query": "the text signals read it",
    "history": "the request's history", "surface": "", "published": "the built-in features of item age read it",
}  # fmt: skip


def left_out(summary: FieldSummary, context: Context) -> str:
    """Return why nothing is suggested for a field; empty if something may be."""
    is_of_all = summary.type == "number" and f"{summary.source}.{ALL_FIELDS}" in context.declared
    if summary.name in context.declared or is_of_all:
        return "the config declares features of it"
    if summary.field in _OWN and (reason := _OWN[summary.field]):
        return reason
    if not summary.entities or summary.type == "empty" or summary.missing_share > MAX_MISSING:
        return f"missing in {summary.missing_share:.1%}"
    if summary.known_share is not None and summary.known_share < MIN_KNOWN:
        return (
            f"set before {summary.known_share:.1%} of the rankings that need it: its events are later than the"
            " rankings, so training would see no value; import the values with the times from which they held"
        )
    return _leak(summary) or _of_no_use(summary)


def _leak(summary: FieldSummary) -> str:
    """Return why a field probably holds the answer, or comes after it; empty if it does not look so."""
    if summary.label_auc is not None and max(summary.label_auc, 1 - summary.label_auc) > LEAK_AUC:
        return f"it alone tells what was clicked (AUC {summary.label_auc:.2f}), so it was probably written afterwards"
    if summary.shown_share > LEAK_SHARE:
        return f"{summary.shown_share:.0%} of its values name an item of the ranking, so it was written afterwards"
    if summary.source in (REQUEST, LIST) and _OUTCOME.search(summary.field):
        return "by its name it is an outcome; declare it by hand if it is known before the ranking"
    is_fixed = summary.source in (ITEM, USER) and summary.type == "number" and not summary.changes
    if is_fixed and _TOTAL.search(summary.field):
        return (
            "by its name a total of outcomes, and it never changes: it may count what came after the rankings;"
            " declare it by hand if it does not"
        )
    return ""


def _of_no_use(summary: FieldSummary) -> str:
    """Return why the values of a field say nothing; empty if they may."""
    if summary.distinct == 1 and summary.missing_share < 0.05:
        return "constant"
    match summary.type:
        case "mixed":
            return "values of several types; write one type"
        case "time without zone":
            return "times without a zone; write Z or an offset such as +02:00 behind them"
        case "web address" if summary.source in (ITEM, LIST):
            return "web addresses of items"
        case "time" if summary.source not in (ITEM, LIST):
            return "a time; only those of items are suggested"
    if summary.type != "text" or summary.mean_words >= 3 or summary.entities < MIN_FOR_ID:
        return ""
    if summary.source in (ITEM, USER):
        is_id = summary.has_more or summary.distinct > ID_SHARE * summary.entities
    else:
        is_id = summary.distinct > max(ID_SHARE * min(summary.entities, MAX_VALUES), FEW_VALUES)
    return f"an id or a name: {count_text(summary)} values in {summary.entities:,}" if is_id else ""


def late_warning(summary: FieldSummary) -> str:
    """Return that many rankings were before the first value of a field; empty if not."""
    known = summary.known_share
    if known is None or known >= LATE_KNOWN or summary.source not in (ITEM, USER):
        return ""
    whose = "shown items" if summary.source == ITEM else "users"
    return f"for {1 - known:.0%} of the {whose} that have a value, it was set after the ranking, where it is missing"


def is_category(summary: FieldSummary) -> bool:
    """Check whether a field has few values that occur often enough to be learnt."""
    often = summary.distinct <= max(0.5 * summary.entities, 2)
    return summary.distinct <= FEW_VALUES and not summary.has_more and often


def with_meanings(summaries: Iterable[FieldSummary]) -> list[FieldSummary]:
    """Return the summaries, where numbers of the size of epoch milliseconds are times, and codes are texts.

    A number is a code if it is whole and the field's name says so, such as brand_id.
    """
    return [_with_meaning(summary) for summary in summaries]


def _with_meaning(summary: FieldSummary) -> FieldSummary:
    if _is_time(summary):
        return replace(summary, type="time")
    is_code = summary.type == "number" and summary.is_whole and _CODE.search(summary.field)
    return replace(summary, type="text", mean_words=1.0, quantiles=()) if is_code else summary


def _is_time(summary: FieldSummary) -> bool:
    if summary.type != "number" or not summary.is_whole or not summary.quantiles:
        return False
    return EPOCH_MS[0] <= summary.quantiles[0] and summary.quantiles[-1] <= EPOCH_MS[1]


def count_text(summary: FieldSummary) -> str:
    return f"more than {summary.distinct:,}" if summary.has_more else f"{summary.distinct:,}"
