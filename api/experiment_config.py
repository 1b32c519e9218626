"""Parse an experiment spec from a TOML file or from a body of the HTTP API."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from feedrank.api.renamed_keys import renamed_experiment_key
from feedrank.api.validation_errors import first_error
from feedrank.engine.events.codec import parse_timestamp
from feedrank.engine.experiments.spec import ExperimentSpec, nest_plan


def load_experiment(path: Path) -> ExperimentSpec:
    """Load the experiment spec in a TOML file. Raises ValueError that names the key."""
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} is not TOML: {problem}") from None
    return parse_experiment(body, str(path))


def parse_experiment(body: Mapping[str, Any], source: str) -> ExperimentSpec:
    """Parse an experiment spec from a decoded object; `source` names it in errors.

    `start` and `end` may be epoch milliseconds, ISO-8601 text or TOML datetimes. Raises ValueError that names the key.
    """
    given = dict(body)
    for name in ("start", "end"):
        if given.get(name) is not None:
            value = given[name]
            given[name] = parse_timestamp(value.isoformat() if hasattr(value, "isoformat") else value, name)
    try:
        experiment = TypeAdapter(ExperimentSpec).validate_json(json.dumps(nest_plan(given), default=str), strict=True)
    except ValidationError as problem:
        path, message = first_error(problem)
        key = "" if path == "plan" else path.removeprefix("plan.")  # a declaration has no table of that name
        raise ValueError(": ".join(filter(None, (source, key, message)))) from None
    _reject_unknown_keys(given, experiment.to_dict(), source, "")
    return experiment


def _reject_unknown_keys(given: Any, parsed: Any, source: str, prefix: str) -> None:
    if isinstance(given, list):
        for index, (given_entry, parsed_entry) in enumerate(zip(given, parsed, strict=False)):
            _reject_unknown_keys(given_entry, parsed_entry, source, f"{prefix[:-1]}[{index}].")
    elif isinstance(given, dict) and isinstance(parsed, dict):
        for key, value in given.items():
            if key not in parsed and (new := renamed_experiment_key(f"{prefix}{key}")):
                raise ValueError(f"{source}: {prefix}{key} is now named {new}; rename the key")
            if key not in parsed:
                raise ValueError(f"{source}: unknown key {prefix}{key}; the keys there are {', '.join(parsed)}")
            _reject_unknown_keys(value, parsed[key], source, f"{prefix}{key}.")
