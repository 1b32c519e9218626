"""Reads the times of one column of a file as epoch milliseconds; how numbers are read is decided once for the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.engine.events.checks import EventError, as_float, short_repr

MAX_MS = 10**15
"""Epoch milliseconds of a time that no event has any more."""
GUESSED_MS = (100_000_000_000, 4_102_444_800_000)
"""From 1973 to 2100: the times that guesses about units find. No number is such a time in two units."""
_MS_PER_UNIT = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EXCEL_DAYS = (32_874, 73_050)
"""Excel's day numbers of 1990 and 2100."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CUT_NUMBER = re.compile(r"[+-]?\d(\.\d{1,2})?E\+\d+", re.ASCII)
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?", re.ASCII)
_DATE = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
_SLASHES = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?=[ T])", re.ASCII)
_GO_SUFFIX = re.compile(r" m=[+-][\d.]+$", re.ASCII)
_OFFSET = re.compile(r"^(.*\d) ?([+-])(\d\d):?(\d\d)(?: [A-Z]{2,5}| \([^)]*\)|\[[^]]*\])?$", re.ASCII)
_UTC_NAME = re.compile(r"^(.*\d) ?(?:UTC|GMT|Z)$", re.ASCII)
_NAMED_MONTHS = ("%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %Y %H:%M:%S GMT%z")
"""Times of Apache's and nginx's logs, of Twitter, and of JavaScript's Date.toString."""


class TimeReader:
    """Reads the times of one column of one file.

    The unit of numbers is that of the options, or milliseconds; numbers that can only be compact dates (20200920) or
    Excel's day numbers (44094.5) are read as such. It is chosen once, from a sample of the column, and never for one
    row. Raises ValueError if `auto` fits no unit.
    """

    def __init__(
        self, options: ImportOptions = DEFAULTS, name: str = "timestamp", sample: Iterable[object] = (),
        part: str | None = None,
    ) -> None:  # fmt: skip
        """name: the column, for messages. sample: values of its rows; missing ones are passed over. part: what the
        column is in an event, timestamp or published; None: its name says it."""
        self.name = name
        self._may_be_years = (part or name) == "published"
        self._zone: tzinfo | None = None if options.zone is None else ZoneInfo(options.zone)
        self._zone_name = options.zone or "UTC"
        self._has_unit = options.time_unit is not None
        self._counts: Counter[str] = Counter()
        numbers = [number for number in map(_numeric_text, sample) if number is not None]
        self._form = self._choose_form(options, numbers)
        self._is_plain = self._form == "ms"

    def read(self, value: object) -> int:
        """Return the epoch milliseconds of a number or a text. Raises EventError."""
        if isinstance(value, str):
            text = value.strip()
            if text.isdecimal() and text.isascii():
                return self._read_number(text, int(text) if len(text) < 30 else float(text))
            if _NUMBER.fullmatch(text):
                if _CUT_NUMBER.fullmatch(text):
                    cut = "whose digits a spreadsheet has cut off; export the column as whole numbers"
                    raise EventError(self.name, f"found {short_repr(value)}, {cut}")
                return self._read_number(text, float(text))
            return self._read_text(text)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._unreadable(value)
        return self._read_number(None, value)

    def notes(self) -> list[str]:
        """Return what was decided and how often it applied, in sentences."""
        sentences = {
            "numbers": f"numbers in {self.name!r} were read as {self.form_name}",
            "dates": f"dates in {self.name!r} were read as the start of the day in {self._zone_name}",
            "zoneless": f"times without a zone in {self.name!r} were read in {self._zone_name}",
        }
        return [f"{count:,} {sentences[kind]}" for kind, count in self._counts.items()]

    @property
    def form_name(self) -> str:
        """As what numbers are read, such as "epoch seconds"."""
        named = {
            "year": f"years from 1 January in {self._zone_name}",
            "compact": f"compact dates in {self._zone_name}",
            "excel": f"Excel's day numbers in {self._zone_name}",
        }
        return named.get(self._form) or f"epoch {UNIT_NAMES[self._form]}"

    def _choose_form(self, options: ImportOptions, numbers: list[str]) -> str:
        if options.time_unit is not None and options.time_unit != "auto":
            return options.time_unit
        if not numbers:
            return "ms"
        if self._may_be_years and all(len(text) == 4 and 1000 <= float(text) <= 2100 for text in numbers):
            return "year"
        if all(_COMPACT.fullmatch(text) for text in numbers) and 2 * sum(map(_is_compact, numbers)) > len(numbers):
            return "compact"
        middle = sorted(abs(float(text)) for text in numbers)[len(numbers) // 2]
        if _EXCEL_DAYS[0] <= middle <= _EXCEL_DAYS[1]:
            return "excel"
        unit = guess_unit(middle)
        if options.time_unit is None:
            if self._may_be_years and unit not in ("ms", None):
                raise ValueError(
                    f"times in {self.name!r}: found numbers such as {numbers[0]}, which look like epoch"
                    f" {UNIT_NAMES[unit]}; give --time-unit {unit}, or --time-unit auto if the columns differ"
                )
            return "ms"
        if unit is None:
            raise ValueError(
                f"times in {self.name!r}: found numbers such as {numbers[0]}, which are no times from 1973 to 2100 in"
                " seconds, milliseconds, microseconds or nanoseconds; convert them to one of these"
            )
        return unit

    def _read_number(self, text: str | None, number: float) -> int:
        if self._is_plain:
            milliseconds = number
        elif self._form == "compact":
            naive = _compact_time(_without_zeros(str(number) if text is None else text))
            if naive is None:
                raise EventError(self.name, f"found {short_repr(number)}, expected a compact date such as 20200920")
            milliseconds = self._with_zone(naive)
        elif self._form == "year":
            if not 1 <= number <= 9999 or number != int(number):
                raise EventError(self.name, f"found {short_repr(number)}, expected a year such as 1999")
            milliseconds = self._with_zone(datetime(int(number), 1, 1))
        elif self._form == "excel":
            if not 0 < number < 200_000:
                raise EventError(self.name, f"found {short_repr(number)}, expected one of Excel's day numbers")
            naive = _EXCEL_EPOCH + timedelta(milliseconds=round(number * 86_400_000))
            milliseconds = self._with_zone(naive)
        elif isinstance(number, int) and self._form == "ns":
            milliseconds = (number + 500_000) // 1_000_000
        else:
            milliseconds = number * _MS_PER_UNIT[self._form]
        if not -MAX_MS < milliseconds < MAX_MS:
            found = short_repr(number if text is None else text)
            unit = None if self._has_unit else guess_unit(number)
            advice = f"; they look like {UNIT_NAMES[unit]}: give --time-unit {unit}" if unit else ""
            limit = "epoch milliseconds below 1e15" if self._form == "ms" else f"{self.form_name} of a year below 33658"
            raise EventError(self.name, f"found {found}, expected {limit}{advice}")
        if not self._is_plain:
            self._counts["numbers"] += 1
        return round(milliseconds)

    def _read_text(self, text: str) -> int:
        moment, is_date = _parse_text(text)
        if moment is None:
            raise self._unreadable(text)
        if moment.tzinfo is None:
            if is_date:
                self._counts["dates"] += 1
            elif self._zone is None:
                advice = "give --zone NAME, such as --zone UTC, or add a time zone such as 'Z' or '+01:00'"
                raise EventError(self.name, f"{short_repr(text)} has no zone; {advice}")
            else:
                self._counts["zoneless"] += 1
            return self._with_zone(moment)
        return _milliseconds(moment)

    def _with_zone(self, naive: datetime) -> int:
        return _milliseconds(naive.replace(tzinfo=self._zone or UTC))

    def _unreadable(self, value: object) -> EventError:
        expected = "epoch milliseconds or ISO-8601 with a time zone"
        return EventError(self.name, f"found {short_repr(value)}, expected {expected}")


def guess_unit(number: float) -> str | None:
    """Return the unit in which a number is a time from 1973 to 2100: s, ms, us or ns; None: in none of them."""
    size = as_float(number)
    fitting = (unit for unit, scale in _MS_PER_UNIT.items() if size and GUESSED_MS[0] <= size * scale <= GUESSED_MS[1])
    return next(fitting, None)


def _numeric_text(value: object) -> str | None:
    """Return a number or a numeric text as text, without a fraction of zeros; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _without_zeros(str(value)) if as_float(value) is not None else None
    text = value.strip() if isinstance(value, str) else ""
    return _without_zeros(text) if _NUMBER.fullmatch(text) and as_float(text) is not None else None


def _without_zeros(text: str) -> str:
    """Return a numeric text without the `.0` that pandas gives to whole numbers in a column with gaps."""
    whole, _, fraction = text.partition(".")
    return whole if whole.strip("+-") and not fraction.strip("0") else text


@lru_cache(8192)
def _compact_time(text: str) -> datetime | None:
    """Parse 20200920, 202009201530 or 20200920153000; None if it is no time from 1900 to 2100."""
    match = _COMPACT.fullmatch(text)
    if match is None or not 1900 <= int(match[1]) <= 2100:
        return None
    try:
        return datetime(*(int(part) for part in match.groups() if part is not None))  # type: ignore[arg-type]
    except ValueError:
        return None


def _is_compact(text: str) -> bool:
    return _compact_time(text) is not None


@lru_cache(8192)
def _parse_text(text: str) -> tuple[datetime | None, bool]:
    """Parse a time, naive if it has no zone, and say whether it is a bare date; None if it is in no known form."""
    if match := _DATE.fullmatch(text):
        try:
            return datetime(int(match[1]), int(match[3]), int(match[4])), True
        except ValueError:
            return None, False
    text = _SLASHES.sub(r"\1-\2-\3", text)
    try:
        return datetime.fromisoformat(text), False
    except ValueError:
        pass
    text = _GO_SUFFIX.sub("", text)
    try:
        if match := _OFFSET.match(text):  # Go's `2024-03-03 09:00:00 +0000 UTC`, Java's `...+00:00[UTC]`
            offset = timedelta(hours=int(match[3]), minutes=int(match[4])) * (-1 if match[2] == "-" else 1)
            return datetime.fromisoformat(match[1]).replace(tzinfo=timezone(offset)), False
        if match := _UTC_NAME.match(text):
            return datetime.fromisoformat(match[1]).replace(tzinfo=UTC), False
    except ValueError:
        pass
    for form in _NAMED_MONTHS:
        try:
            return datetime.strptime(text.partition(" (")[0], form), False
        except ValueError:
            continue
    if not text[:1].isalpha() and not re.match(r"\d{1,2} [A-Z][a-z]{2} \d{4} ", text):
        return None, False
    try:  # RFC 2822, as e-mail and HTTP have it
        return parsedate_to_datetime(text), False
    except (ValueError, TypeError, IndexError):
        return None, False


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXCEL_EPOCH = datetime(1899, 12, 30)


def _milliseconds(moment: datetime) -> int:
    return round((moment - _EPOCH) / timedelta(milliseconds=1))
