"""How a file is to be read: names of its columns, separator, encoding, and the unit and zone of its times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "us", "ns"]
TIME_UNITS: tuple[TimeUnit, ...] = ("auto", "s", "ms", "us", "ns")
Missing: TypeAlias = Literal["zero", "absent"]
MISSING: tuple[Missing, ...] = ("zero", "absent")

_NAMED_SEPARATORS = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}

_PROBE = "\n,a"
"""Text that an encoding of files can hold."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says about a file; whatever is left open is found from the file, or is the reader's default."""

    map: Mapping[str, str] = field(default_factory=dict)
    """Column or JSON key of the file -> our name of it, such as visitorid -> user; or the position of a column from 0
    -> our name, for a file without a header."""
    type_column: str | None = None
    """Column that holds the interaction type, such as RetailRocket's `event`."""
    separator: str | None = None
    """Text between two cells of a row; a named one such as "tab" is understood."""
    encoding: str | None = None
    """Encoding by a name that Python knows, such as cp1252."""
    time_unit: TimeUnit | None = None
    """Unit of times that are numbers; `auto`: from the size of the file's first times."""
    zone: str | None = None
    """Zone of times that have none, such as Europe/Berlin."""
    missing: Missing | None = None
    """What a number is that a sparse line of a feature file leaves out: `zero`, as in SVMlight, or `absent`."""

    def __post_init__(self) -> None:
        if self.type_column is not None:
            others = {name: part for name, part in self.map.items() if name != self.type_column}
            object.__setattr__(self, "map", {**others, self.type_column: "type"})
        if self.separator is not None:
            object.__setattr__(self, "separator", _NAMED_SEPARATORS.get(self.separator, self.separator))
            if not self.separator or "\n" in self.separator or '"' in self.separator:
                raise ValueError(f"separator: found {self.separator!r}, expected text such as ';', '::' or 'tab'")
        if self.time_unit is not None and self.time_unit not in TIME_UNITS:
            raise ValueError(f"time unit: found {self.time_unit!r}, expected one of {', '.join(TIME_UNITS)}")
        if self.missing is not None and self.missing not in MISSING:
            raise ValueError(f"missing: found {self.missing!r}, expected {' or '.join(MISSING)}")
        if self.encoding is not None:
            try:
                is_text = _PROBE.encode(self.encoding, "replace").decode(self.encoding) == _PROBE
            except (LookupError, ValueError):  # unknown, of bytes (such as hex), or of names only (such as idna)
                is_text = False
            if not is_text:
                expected = "one that Python knows, such as utf-8, utf-16, cp1252 or latin-1"
                raise ValueError(f"encoding: found {self.encoding!r}, expected {expected}")
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                expected = "a name of the time zone database, such as Europe/Berlin or UTC"
                raise ValueError(f"zone: found {self.zone!r}, expected {expected}") from None
        repeated = sorted({part for part in self.map.values() if list(self.map.values()).count(part) > 1})
        if repeated:
            raise ValueError(f"map: found two columns for {', '.join(repeated)}, expected one column for each name")

    def names_positions(self, names: Sequence[str]) -> bool:
        """Return whether `map` names columns by their positions from 0, because the file has no header.

        names: the cells of the file's first row; if one of them is meant, it is a header.
        """
        return bool(self.map) and all(name.isdecimal() for name in self.map) and not set(self.map) & set(names)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that differ from their defaults."""
        default = ImportOptions()
        changed = (
            option.name for option in fields(self) if getattr(self, option.name) != getattr(default, option.name)
        )
        return tuple(name for name in changed if name != "map" or set(self.map) != {self.type_column})

    def rename(self, names: Sequence[str], source: str) -> list[str]:
        """Return column names with those of `map` replaced by ours.

        Raises ValueError for a column of `map` that is missing.
        """
        if not self.map:
            return list(names)
        if missing := [name for name in self.map if name not in names]:
            raise ValueError(
                f"{source}: found the columns {', '.join(filter(None, names)) or '(none)'}, expected also"
                f" {', '.join(missing)}, which --map or --type-column names; correct the option"
            )
        return [self.map.get(name, name) for name in names]

    def rename_keys(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a JSON object with the keys of `map` replaced by ours; a key that is missing stays missing."""
        return {self.map.get(name, name): value for name, value in body.items()}


DEFAULTS = ImportOptions()
"""No option is given."""


def parse_map(texts: Sequence[str]) -> dict[str, str]:
    """Parse texts such as "visitorid=user,itemid=item" to source column -> our column. Raises ValueError."""
    parsed: dict[str, str] = {}
    for text in (part for given in texts for part in given.split(",")):
        source, equals, part = (piece.strip() for piece in text.rpartition("="))
        if not equals or not source or not part:
            raise ValueError(f"map: found {text!r}, expected column=name pairs such as visitorid=user,itemid=item")
        if source in parsed:
            raise ValueError(f"map: found the column {source!r} twice, expected each column once")
        parsed[source] = part
    return parsed
