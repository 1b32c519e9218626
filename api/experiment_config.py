"""Parse an experiment spec from a TOML file or from a body of the HTTP API."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from feedrank.api.validation_errors import explained
from feedrank.engine.events.events import parse_timestamp
from feedrank.engine.experiments.spec import Experiment


def load(path: Path) -> Experiment:
    """Load the experiment spec in a TOML file. Raises ValueError that names the key."""
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} is not TOML: {problem}") from None
    return declared(body, str(path))


def declared(body: Mapping[str, Any], where: str) -> Experiment:
    """Parse an experiment spec from a decoded object; `source` names it in errors.

    `start` and `end` may be epoch milliseconds, ISO-8601 text or TOML datetimes. Raises ValueError that names the key.
    """
    given = dict(body)
    for name in ("start", "end"):
        if given.get(name) is not None:
            value = given[name]
            given[name] = parse_timestamp(value.isoformat() if hasattr(value, "isoformat") else value, name)
    try:
        experiment = TypeAdapter(Experiment).validate_json(json.dumps(given, default=str), strict=True)
    except ValidationError as problem:
        raise ValueError("{}: {}: {}".format(where, *explained(problem))) from None
    _refuse_unknown(given, experiment.body(), where, "")
    return experiment


def _refuse_unknown(told: Any, made: Any, where: str, prefix: str) -> None:
    if isinstance(told, list):
        for index, (given_entry, parsed_entry) in enumerate(zip(told, made, strict=False)):
            _refuse_unknown(given_entry, parsed_entry, where, f"{prefix[:-1]}[{index}].")
    elif isinstance(told, dict) and isinstance(made, dict):
        for key, value in told.items():
            if key not in made:
                raise ValueError(f"{where}: unknown key {prefix}{key}; the keys there are {', '.join(made)}")
            _refuse_unknown(value, made[key], where, f"{prefix}{key}.")
