"""The config file: TOML, read once into frozen dataclasses. An unknown key is an error with its path."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from api.schemas import explained
from engine.checks import within
from features.builder import FeatureSettings
from features.state import StateSpec
from models.items import ItemSettings
from models.labels import LabelSettings
from models.ranker import LambdaRankSettings
from models.retraining import RetrainSettings
from models.text.embedder import EmbedderSettings
from models.text.pair_export import PairSettings
from models.text.token_encoder import LateSettings
from models.training import Settings, TrainingSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ConfigError(ValueError):
    """A config file that can't be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """[journal] Where events are written."""

    url: str | None = None
    """A database URL, such as postgresql+psycopg://user@host/name; by default an SQLite file in the home."""


@dataclass(frozen=True, slots=True)
class EmbedderConfig(EmbedderSettings):
    """[embedder] How items and queries become vectors."""

    document: tuple[str, ...] = ("title", "text", "category")
    """The parts of an item that are embedded, and that BM25 and the other text models read."""


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """[index] How the vectors are searched."""

    kind: str = "annoy"
    """annoy, exact, or "package.module:Class" of your own."""
    metric: Literal["cosine", "euclidean", "dot"] = "dot"
    trees: int = 30
    search_factor: int = 2
    """Annoy looks at trees x candidates x this many nodes."""
    whole_up_to: int = 200_000
    """A catalogue of so many items is looked through whole, which costs no more and misses less; 0: never."""

    def __post_init__(self) -> None:
        if self.kind not in ("annoy", "exact") and not all(self.kind.partition(":")):
            raise ValueError(f'kind is {self.kind!r}; expected annoy, exact or "package.module:Class"')
        within("trees", self.trees, 1, 10_000)
        within("search_factor", self.search_factor, 1, 10_000)
        within("whole_up_to", self.whole_up_to, 0, 10_000_000)


@dataclass(frozen=True, slots=True)
class RecallConfig:
    """[recall] What the request asks the index for."""

    candidates: int = 100
    query_share: float = 0.7
    """Share of the query in the vector of a request that has both a query and a person."""

    def __post_init__(self) -> None:
        within("candidates", self.candidates, 1, 1_000)
        within("query_share", self.query_share, 0, 1)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """[serve] The HTTP server."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 2
    """Processes; 0: one, served by waitress."""
    threads: int = 4
    """Of each process."""
    deadline_ms: float = 0
    """Of a request that names none; 0: none."""
    keys: bool = True
    """Whether callers must have an API key; without, the service listens on loopback alone."""
    log_requests: bool = True
    """Whether each request is a line in the log, on stderr."""
    log_json: bool = True
    """JSON; otherwise text for a terminal."""
    rate_limit: str = "1000/second"
    """Of one key, or of one address where there are no keys, in each process; empty: none."""
    traces: str = ""
    """OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; empty: no traces."""
    trace_share: float = 1.0
    """Of the requests that bring no traceparent of their own."""

    def __post_init__(self) -> None:
        within("port", self.port, 0, 65_535)
        within("workers", self.workers, 0, 256)
        within("threads", self.threads, 1, 1_000)
        within("deadline_ms", self.deadline_ms, 0, 60_000)
        within("trace_share", self.trace_share, 0, 1)
        if not self.keys and self.host not in LOOPBACK:
            raise ValueError(
                f"found keys = false with host {self.host!r}, expected one of {', '.join(LOOPBACK)}: without keys "
                "anybody who reaches the address may read and write; make keys with `feedrank keys create`"
            )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file; every key has a default."""

    journal: JournalConfig = field(default_factory=JournalConfig)
    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    late_interaction: LateSettings = field(default_factory=LateSettings)
    cross_encoder: PairSettings = field(default_factory=PairSettings)
    items: ItemSettings = field(default_factory=ItemSettings)
    index: IndexConfig = field(default_factory=IndexConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    state: StateSpec = field(default_factory=StateSpec)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    ranker: LambdaRankSettings = field(default_factory=LambdaRankSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    serve: ServeConfig = field(default_factory=ServeConfig)

    @property
    def settings(self) -> Settings:
        """What training is told."""
        return Settings(self.items, self.state, self.features, self.training, self.labels, self.ranker)


def load(path: Path | None) -> Config:
    """The config in a TOML file; the defaults where there is none. Raises ConfigError."""
    if path is None:
        return Config()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"can't read the config file {path}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not TOML: {problem}") from None
    _refuse_unknown(found, Config, path, "")
    try:
        # by way of JSON: strict about types, and yet a list may stand for a tuple and a table for a dataclass
        return TypeAdapter(Config).validate_json(json.dumps(found, default=str), strict=True)
    except ValidationError as problem:
        raise ConfigError("{}: {}: {}".format(path, *explained(problem))) from None


def _refuse_unknown(found: Mapping[str, Any], section: type, path: Path, prefix: str) -> None:
    types = get_type_hints(section)
    known = [one.name for one in fields(section)]
    for key, value in found.items():
        if key not in known:
            place = f"in [{prefix[:-1]}]" if prefix else "at the top level"
            raise ConfigError(f"{path}: unknown key {prefix}{key}; the keys {place} are {', '.join(known)}")
        if is_dataclass(types[key]) and isinstance(value, Mapping):
            _refuse_unknown(value, types[key], path, f"{prefix}{key}.")
