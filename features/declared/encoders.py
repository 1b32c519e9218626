"""The forms in which declared features read fields: as numbers, or as hashes of values, words or letters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from feedrank.engine.events.catalogue import is_true
from feedrank.engine.events.checks import FieldValue, field_text
from feedrank.engine.events.codec import parse_timestamp
from feedrank.engine.events.field_forms import ALL_FIELDS, FieldForm, value_hash
from feedrank.features.text_analyser import TextAnalyser, TextSettings

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_FIXED_OFFSET = 100_000
"""Codes of fixed offsets from UTC: this plus minutes."""
_LEAST_MILLISECONDS = 10**11
"""A time below this number, 1973 in milliseconds, is one in seconds."""
_YES_OR_NO = ("true", "false", "t", "f", "yes", "no", "y", "n", "1", "0", "1.0", "0.0")


def number(source: str, field: str) -> FieldForm:
    """Return the form of a number; a text that is a number counts as it, any other value is missing."""
    return FieldForm(source, field, "number", True, _as_number)


def boolean(source: str, field: str) -> FieldForm:
    """Return the form of yes or no as 1 or 0."""
    return FieldForm(source, field, "boolean", True, _as_boolean)


def moment(source: str, field: str) -> FieldForm:
    """Return the form of a time, as unix seconds; numbers are seconds or milliseconds since 1970, texts ISO-8601."""
    return FieldForm(source, field, "time", True, _as_seconds)


def word_count(source: str, field: str) -> FieldForm:
    """Return the form of the number of words, as BM25 splits them."""
    return FieldForm(source, field, "words", True, _count_words)


def time_zone(source: str, field: str) -> FieldForm:
    """Return the form of the code of a time zone, for `utc_offset_s`."""
    return FieldForm(source, field, "zone", True, zone_code)


def values(source: str, field: str) -> FieldForm:
    """Return the form of the hashes of a value, or of each value of a list."""
    return FieldForm(source, field, "values", False, _as_hashes, texts_of)


def all_numbers(source: str) -> FieldForm:
    """Return the form of all fields of a request or a list that are numbers: the hash of each name, then its bits."""
    return FieldForm(source, ALL_FIELDS, "numbers", False, _name_and_bits, _number_names)


def value_set(source: str, field: str) -> FieldForm:
    """Return the form of the hashes of all values, sorted, each once."""
    return FieldForm(source, field, "set", False, lambda value: sorted(set(_as_hashes(value))))


def list_size(source: str, field: str) -> FieldForm:
    """Return the form of the number of entries of a list; a single value is one."""
    return FieldForm(source, field, "size", True, lambda value: float(len(value)) if isinstance(value, list) else 1.0)


def vector(source: str, field: str) -> FieldForm:
    """Return the form of a list of numbers, each by the bits of its float64; a single number is a list of one.

    A list with anything but numbers is a missing value.
    """
    return FieldForm(source, field, "vector", False, _as_vector)


def local_clock(source: str, field: str) -> FieldForm:
    """Return the form of a time with its zone, as the seconds since 1970 that a local clock shows."""
    return FieldForm(source, field, "clock", True, _as_local_seconds)


def terms(source: str, field: str, language: str = "") -> FieldForm:
    """Return the form of the hashes of the words of a text, sorted, each once."""
    return FieldForm(
        source, field, f"terms {language}".rstrip(), False,
        lambda value: sorted({value_hash(term) for term in _analyser(language).query(_text(value))}),
    )  # fmt: skip


def query_terms(source: str, field: str, language: str) -> FieldForm:
    """Return the form of the hashes of the words that a text asks for, with repeats."""
    return FieldForm(
        source, field, f"query {language}".rstrip(), False,
        lambda value: [value_hash(term) for term in _analyser(language).query(_text(value))],
    )  # fmt: skip


def document(source: str, field: str, language: str) -> FieldForm:
    """Return the form of a text for BM25: its length in words, then the hashes of its words, sorted, with repeats."""

    def encode(value: FieldValue) -> Sequence[int]:
        codes: dict[str, int] = {}
        found = _analyser(language).documents([_text(value)], codes)
        hashes = [value_hash(term) for term in codes]
        return [int(found.lengths[0]), *sorted(hashes[code] for code in found.codes.tolist())] if codes else []

    return FieldForm(source, field, f"document {language}".rstrip(), False, encode)


def ngrams(source: str, field: str, n: int) -> FieldForm:
    """Return the form of the hashes of all runs of n letters of a text, sorted, each once."""

    def encode(value: FieldValue) -> Sequence[int]:
        text = " ".join(_text(value).casefold().split())
        return sorted({value_hash(text[i : i + n]) for i in range(max(len(text) - n + 1, 1))} if text else set())

    return FieldForm(source, field, f"{n}-grams", False, encode)


def parsed(source: str, field: str, name: str, parse: Callable[[str], str]) -> FieldForm:
    """Return the form of the hash of what a function makes of a text; an empty result is a missing value."""

    def texts(value: FieldValue) -> list[str]:
        return [found] if (found := parse(_text(value))) else []

    return FieldForm(source, field, name, False, lambda value: list(map(value_hash, texts(value))), texts)


def texts_of(value: FieldValue) -> list[str]:
    """Return the values of a field as texts: those that `values` hashes."""
    entries: Sequence[Any] = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for entry in entries if (text := field_text(entry))))


def zone_code(value: FieldValue) -> float:
    """Return the code of a time zone: an IANA name such as Europe/Paris, or an offset such as +02:00; NaN: neither."""
    text = _text(value)
    if text in ("UTC", "Z", "GMT"):
        return float(_FIXED_OFFSET)
    if match := _OFFSET.fullmatch(text):
        minutes = int(match[2]) * 60 + int(match[3])
        return float(_FIXED_OFFSET + (minutes if match[1] == "+" else -minutes))
    return float(_zone_codes().get(text, math.nan))


@lru_cache(maxsize=65_536)
def utc_offset_s(code: int, quarter: int) -> float:
    """Return the offset from UTC in seconds of a zone, by its code, at a quarter of an hour since 1970."""
    if code > _FIXED_OFFSET // 2:
        return (code - _FIXED_OFFSET) * 60.0
    zone = ZoneInfo(_zone_names()[code])
    offset = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=15 * quarter)).astimezone(zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


@lru_cache(maxsize=1)
def _zone_names() -> list[str]:
    return sorted(available_timezones())


@lru_cache(maxsize=1)
def _zone_codes() -> dict[str, int]:
    return {name: code for code, name in enumerate(_zone_names())}


def _text(value: FieldValue) -> str:
    return " ".join(map(field_text, value)) if isinstance(value, list) else field_text(value)


def _as_number(value: FieldValue) -> float:
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            return math.nan
        return found if math.isfinite(found) else math.nan
    return math.nan if isinstance(value, list) else float(value)


def _as_boolean(value: FieldValue) -> float:
    if isinstance(value, str) and value.strip().lower() not in _YES_OR_NO:
        return math.nan
    return math.nan if isinstance(value, list) else float(is_true(value))


def _as_seconds(value: FieldValue) -> float:
    try:
        found = parse_timestamp(value)
    except ValueError:
        return math.nan
    is_number = not math.isnan(_as_number(value))
    return float(found) if is_number and abs(found) < _LEAST_MILLISECONDS else found / 1000


def _count_words(value: FieldValue) -> float:
    return float(sum(len(_analyser()._words(chunk)) for chunk in _text(value).split()))


def _numbers_of(fields: Any) -> dict[str, float]:
    found = {name: _as_number(value) for name, value in fields.items() if value is not None}
    return {name: value for name, value in found.items() if value == value}


def _name_and_bits(fields: Any) -> Sequence[int]:
    numbers = _numbers_of(fields)
    bits = np.array(list(numbers.values()), np.float64).view(np.int64).tolist()
    return [part for pair in zip(map(value_hash, numbers), bits, strict=True) for part in pair]


def _number_names(fields: Any) -> list[str]:
    return list(_numbers_of(fields))


def _as_hashes(value: FieldValue) -> Sequence[int]:
    return [value_hash(text) for text in texts_of(value)]


def _as_vector(value: FieldValue) -> Sequence[int]:
    numbers = [_as_number(entry) for entry in (value if isinstance(value, list) else [value])]
    return [] if any(map(math.isnan, numbers)) else np.array(numbers, np.float64).view(np.int64).tolist()


def _as_local_seconds(value: FieldValue) -> float:
    try:
        return datetime.fromisoformat(_text(value)).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return math.nan


@lru_cache(maxsize=32)
def _analyser(language: str = "") -> TextAnalyser:
    return TextAnalyser(TextSettings(language=language))
