"""Turns a Metarank config file into the text of a feedrank.toml.

What has no counterpart is named, all of it at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from feedrank.api.config import Config, ConfigError, load_config
from feedrank.api.metarank.feature_kinds import import_feature
from feedrank.api.metarank.fields import field_types
from feedrank.api.metarank.imported_features import Declared, ImportedFeatures
from feedrank.api.metarank.models import import_models
from feedrank.api.metarank.section import NoCounterpart, Report, Section
from feedrank.api.metarank.yaml_file import read_yaml
from feedrank.api.toml_text import to_toml
from feedrank.api.validation_errors import first_error
from feedrank.features.catalog import all_features
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.state_spec import StateSpec

_SUFFIX = "_declared"
_STORAGE = {
    "state": "events are stored in the journal: an SQLite file in the home, or PostgreSQL with [journal] url",
    "train": "training reads the journal; there is no second store",
    "core": "interactions belong to the ranking that they name, whenever they come; nothing is sent to anybody",
}


@dataclass(frozen=True, slots=True)
class ImportedConfig:
    """The result of an import."""

    text: str
    """The config file."""
    report: Report
    names: tuple[str, ...]
    """Names of Metarank's features that were turned into something."""
    declared: int
    """Number of declared features that they became."""


def import_metarank(path: Path, model: str | None = None) -> ImportedConfig:
    """Import a Metarank config file. model: the LambdaMART model that becomes the ranker, if there are several.

    Problems are collected in the report; the text holds what can be used. Raises ValueError if nothing of the file can
    be used, or the text is no config.
    """
    report = Report()
    found = ImportedFeatures(report)
    try:
        top = Section(str(path), read_yaml(path))
    except NoCounterpart as problem:
        raise ValueError(f"{path}: {problem}") from None
    _import_features(top.get("features") or [], found)
    used: list[str] = []
    if top.get("models") is not None:
        try:
            used = import_models(Section("models", top.get("models")), list(map(str, top.get("models"))), model, found)
        except NoCounterpart as problem:
            report.problem("models", str(problem))
    elif model is not None:
        report.problem("models", f"found no models, expected {model}")
    for name in dict.fromkeys(used):
        if name not in found.declared and not any(entry.startswith(f"features.{name}:") for entry in report.problems):
            report.problem("models", f"found the feature {name}, which features does not have")
    _import_rest(top, found)
    top.name_unread(report)
    unused = [name for name in found.declared if used and name not in used]
    if unused:
        report.note("features", f"no model uses {', '.join(unused)}; they are in the file as comments")
    taken = frozenset(feature.name for feature in all_features())
    declared = {name: _checked(name, group, taken, report) for name, group in found.declared.items()}
    text = _toml(path, declared, set(unused), found.sections, report)
    _check(text, path)
    names = tuple(name for name in found.declared if declared[name] is not None)
    return ImportedConfig(text, report, names, sum(len(group or ()) for group in declared.values()))


def _import_features(features: object, found: ImportedFeatures) -> None:
    if not isinstance(features, list):
        found.report.problem("features", f"found {type(features).__name__}, expected a list")
        return
    found.number_fields, found.text_fields = field_types(features)
    for index, entry in enumerate(features):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        where = f"features.{name}" if isinstance(name, str) else f"features[{index}]"
        try:
            import_feature(Section(where, entry), found)
        except NoCounterpart as problem:
            found.report.problem(where, str(problem))


def _import_rest(top: Section, found: ImportedFeatures) -> None:
    """Import the sections besides features and models."""
    report = found.report
    for name, sentence in _STORAGE.items():
        if top.get(name) is not None:
            report.note(name, sentence)
    if top.get("api") is not None:
        try:
            api = top.below("api")
            serve = found.sections.setdefault("serve", {})
            if api.get("port") is not None:
                serve["port"] = int(api.number("port"))
            if api.get("host") is not None:
                serve["host"] = api.text("host")
            api.get("timeout")
            api.name_unread(report)
        except NoCounterpart as problem:
            report.problem("api", str(problem))
    source = top.get("source", "input")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if source is not None and kind == "file":
        report.note("source", f"load the events with `feedrank import {source.get('path', 'FILE')}`")
    elif source is not None:
        report.problem("source", f"found type = {kind}; feedrank reads files, and takes events at POST /v1/events")
    if top.get("inference"):
        report.problem("inference", "feedrank has no routes for models of texts; call the models themselves")


def _checked(name: str, group: list[Declared], taken: frozenset[str], report: Report) -> list[Declared] | None:
    """Return the declared features that are valid; report the others, and return None if none is left of some.

    taken: names of the built-in features; a feature with one of them gets a longer name.
    """
    valid = []
    for declared in group:
        values = {"from_" if key == "from" else key: value for key, value in declared.items()}
        try:
            feature = TypeAdapter(DeclaredFeature).validate_python(values)
        except ValidationError as problem:
            report.problem(f"features.{name}", first_error(problem)[1])
            continue
        columns = all_features(FeatureSettings(families=(), declared=(feature,)), StateSpec(declared=(feature,)))
        if same := [column.name for column in columns if column.name in taken]:
            longer = f"{declared['name']}{_SUFFIX}"
            report.note(f"features.{name}", f"is called {longer}, as feedrank has a feature of the name {same[0]}")
            declared = {**declared, "name": longer}
        valid.append(declared)
    return valid if valid or not group else None


def _toml(
    path: Path, declared: Mapping[str, list[Declared] | None], unused: set[str],
    sections: Mapping[str, Mapping[str, Any]], report: Report,
) -> str:  # fmt: skip
    lines = [f"# Made of {path.name} by `feedrank import-config`.", *(f"# {note}" for note in report.notes)]
    lines += [f"# NOT IMPORTED: {problem}" for problem in report.problems]
    for section, keys in sections.items():
        if keys:
            lines += ["", f"[{section}]", *(f"{_key(key)} = {to_toml(value)}" for key, value in keys.items())]
    for name, group in declared.items():
        comment = "# " if name in unused else ""
        for feature in group or ():
            lines += ["", f"{comment}[[features.declared]]"]
            lines += [f"{comment}{key} = {to_toml(value)}" for key, value in feature.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return to_toml({name: 0})[1:].partition(" = ")[0]


def _check(text: str, path: Path) -> None:
    """Load the text as a config, with all features. Raises ValueError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feedrank.toml"
        file.write_text(text, encoding="utf-8")
        try:
            config: Config = load_config(file)
            all_features(config.features, config.state_spec)
        except (ConfigError, ValueError) as problem:
            message = str(problem).removeprefix(f"{file}: ")
            raise ValueError(f"{path} gives a config that can't be used: {message}") from None
