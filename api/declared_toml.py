"""Writes declared features as TOML tables with comments, and drops tables from a config file."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from typing import Any

from feedrank.api.compose.feature_suggestion import SuggestionReport
from feedrank.api.config import key_of
from feedrank.api.toml_text import to_toml
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.survey.field_summary import FieldSummary
from feedrank.features.survey.suggestion import FieldSuggestion

TABLE = "[[features.declared]]"
_LINE = 100
"""Longest line of a comment, in characters."""
_HEADER = re.compile(r"\s*\[")
_NAME = re.compile(r"\s*\"?name\"?\s*=")


def feature_table(feature: DeclaredFeature) -> str:
    """Write a declared feature as a table, without the keys that have their defaults."""
    lines = [TABLE]
    for entry in fields(feature):
        value = getattr(feature, entry.name)
        if entry.name in ("name", "kind") or value != entry.default:
            lines.append(f"{key_of(entry.name)} = {to_toml(value)}")
    return "\n".join(lines) + "\n"


def suggestion_text(report: SuggestionReport) -> str:
    """Write the suggestions as a config file: each field with its numbers and the reasons as comments."""
    found = [suggestion for suggestion in report.fields if suggestion.features]
    rest = [suggestion for suggestion in report.fields if not suggestion.features]
    read = ", ".join(f"{report.read[kind]:,} {kind}" for kind in report.read if report.read[kind])
    head = [f"Declared features that `feedrank features suggest` found in a journal: {read} events."]
    if report.sampled:
        total = ", ".join(f"{report.total[kind]:,} {kind}" for kind in report.sampled)
        head.append(f"The numbers are from a sample: the journal has {total} events.")
    head.append("Keep what you believe in; `feedrank evaluate --ablate` and `feedrank features prune` tell what pays.")
    parts = ["".join(map(comment, head))]
    parts += [_field_text(suggestion) for suggestion in found]
    if rest:
        lines = [f"- {one.summary.name}: {one.left_out}" for one in rest]
        parts.append(comment("Left out:") + "".join(map(comment, lines)))
    return "\n".join(parts)


def field_numbers(summary: FieldSummary) -> str:
    """Describe a field in numbers, in one sentence without its name."""
    if not summary.entities:
        return "the moment of the request"
    distinct = f"more than {summary.distinct:,}" if summary.has_more else f"{summary.distinct:,}"
    said = [summary.type, f"in {summary.entities:,}", f"missing in {summary.missing_share:.1%}"]
    said += [f"{distinct} distinct"] if summary.distinct else []
    if summary.quantiles:
        low, _, middle, _, high = summary.quantiles
        said.append(f"{low:.4g} to {high:.4g}, median {middle:.4g}")
    said += [f"{summary.changes:.2g} changes each"] if summary.changes else []
    return ", ".join(said)


def without_features(text: str, names: Collection[str]) -> str | None:
    """Return a config file without the tables of these declared features, and the comments right above them.

    All else stays as it is. None: the file does not have them as tables [[features.declared]] of their own.
    """
    kept: list[str] = []
    block: list[str] = []
    is_dropped = False
    for line in [*text.splitlines(keepends=True), "["]:
        if _HEADER.match(line):
            comments = _comments_above(block)
            kept += block[len(block) - len(comments) :] if is_dropped else block
            block, is_dropped = [line], False
            continue
        block.append(line)
        if block[0].split("#")[0].replace(" ", "").strip() == TABLE and _NAME.match(line):
            is_dropped = _value(line) in names
            if is_dropped:
                del kept[len(kept) - len(_comments_above(kept)) :]
    found = "".join(kept)
    return found if _drops_only(text, found, names) else None


def comment(text: str) -> str:
    """Write a text as lines of a comment."""
    return textwrap.fill(
        text, _LINE, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    ) + "\n"  # fmt: skip


def _field_text(suggestion: FieldSuggestion) -> str:
    summary = suggestion.summary
    lines = [comment(f"{summary.name}: {field_numbers(summary)}.")]
    lines += [comment(f"Warning: {suggestion.warning}.")] if suggestion.warning else []
    tables = (
        comment(f"{feature.name}: {reason}.") + feature_table(feature)
        for feature, reason in zip(suggestion.features, suggestion.reasons, strict=True)
    )
    return "".join(lines) + "\n" + "\n".join(tables)


def _comments_above(lines: Sequence[str]) -> list[str]:
    """Return the comment lines at the end of some lines."""
    comments: list[str] = []
    for line in reversed(lines):
        if not line.lstrip().startswith("#"):
            break
        comments.insert(0, line)
    return comments


def _value(line: str) -> Any:
    try:
        return next(iter(tomllib.loads(line).values()))
    except tomllib.TOMLDecodeError:
        return None


def _drops_only(before: str, after: str, names: Collection[str]) -> bool:
    """Check that the second file is the first one without these declared features."""
    expected = tomllib.loads(before)
    features = expected.setdefault("features", {})
    declared: Iterable[Any] = features.get("declared", [])
    features["declared"] = [table for table in declared if table.get("name") not in names]
    try:
        found = tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        return False
    found.setdefault("features", {}).setdefault("declared", [])
    return found == expected
