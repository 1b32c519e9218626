"""Load the TOML config file into frozen dataclasses. An unknown key is an error that names its path."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from feedrank.api.renamed_keys import moved_key, renamed_key, renamed_values
from feedrank.api.validation_errors import first_error
from feedrank.engine.events.checks import check_range
from feedrank.engine.events.interaction_types import InteractionTypes
from feedrank.engine.plugins import is_plugin_path
from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.state_spec import StateSettings, StateSpec
from feedrank.features.text_analyser import TextSettings
from feedrank.models.items.item_model import ItemSettings
from feedrank.models.retraining.retraining import RetrainSettings
from feedrank.models.text.cross_encoder_export import CrossEncoderSettings
from feedrank.models.text.embedder import EmbedderSettings
from feedrank.models.text.token_encoder import LateInteractionSettings
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.ranker import LambdaRankSettings
from feedrank.models.training.training_settings import ModelSettings, TrainingSettings

MIN_RANK_ONLY_DAYS = 30
"""An item that training left out can be registered again after this many days."""
MAX_NAMED_KEYS = 8
"""Keys of a section that an error names."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ConfigError(ValueError):
    """Raised for a config file that can't be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """[journal] Where events are stored."""

    url: str | None = None
    """Database URL, such as postgresql+psycopg://user@host/name. Not set: an SQLite file in the home."""
    create_items: bool = True
    """Whether loading data creates an item, without fields, from each id that only interactions or rankings name."""
    max_unknown_share: float = 0.5
    """Highest share of interactions, or of shown items, that may name items or rankings that no event describes, from
    0 to 1. Over it, `import` exits with an error, and nothing is trained."""
    rank_only_days: int = 90
    """Training leaves out items that only /v1/rank requests describe when they were not used for this many days; 0: it
    keeps them all. Unit: days."""

    def __post_init__(self) -> None:
        check_range("max_unknown_share", self.max_unknown_share, 0, 1)
        if self.rank_only_days:
            check_range("rank_only_days", self.rank_only_days, MIN_RANK_ONLY_DAYS, 36_500)


@dataclass(frozen=True, slots=True)
class EmbedderConfig(EmbedderSettings):
    """[embedder] How items and queries are embedded."""

    document: tuple[str, ...] = ("title", "text", "category")
    """Item fields that the embedder and the other text models read, joined into one document, and BM25 by field."""


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """[index] The vector index of embedding recall."""

    kind: str = "annoy"
    """How vectors are searched: annoy, exact (a full scan), or a class of your own as "package.module:Class"."""
    metric: Literal["cosine", "euclidean", "dot"] = "dot"
    """Similarity of two vectors: cosine, dot product or negative euclidean distance. Each bundle keeps its own."""
    trees: int = 30
    """Number of trees that Annoy builds. More trees find more of the true neighbours, but make a larger file."""
    search_k_factor: int = 2
    """Annoy's search_k is trees x candidates x this factor. A higher factor finds more and is slower."""
    exact_below: int = 200_000
    """Annoy searches only catalogues of more items than this. Smaller ones are scanned exactly, which is as fast and
    misses less; 0: never. Unit: items."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for a class of your own, such as {links = 16}; a wrong one is an error."""

    def __post_init__(self) -> None:
        if self.kind not in ("annoy", "exact") and not is_plugin_path(self.kind):
            raise ValueError(f'kind is {self.kind!r}; expected annoy, exact or "package.module:Class"')
        if self.arguments and self.kind in ("annoy", "exact"):
            raise ValueError(
                f"found arguments for the kind {self.kind}, expected none: they are for a class of your own; "
                "the keys of annoy are trees and search_k_factor"
            )
        check_range("trees", self.trees, 1, 10_000)
        check_range("search_k_factor", self.search_k_factor, 1, 10_000)
        check_range("exact_below", self.exact_below, 0, 10_000_000)


@dataclass(frozen=True, slots=True)
class RecallConfig:
    """[recall] How candidates are retrieved for a request."""

    candidates: int = 100
    """Number of candidates that recall passes to the ranker, per request. Unit: items."""
    query_weight: float = 0.7
    """Weight of the query vector, 0 to 1, where a request has both a query and a user; the user vector has the rest."""

    def __post_init__(self) -> None:
        check_range("candidates", self.candidates, 1, 1_000)
        check_range("query_weight", self.query_weight, 0, 1)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """[serve] The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on. Without API keys, only a loopback address is accepted."""
    port: int = 8080
    """TCP port to listen on; 0: any free port."""
    workers: int = 2
    """Number of worker processes; 0: a single process, served by waitress. Unit: processes."""
    threads: int = 4
    """Number of threads per process, each of which serves one request at a time. Unit: threads."""
    deadline_ms: float = 0
    """Deadline of a request that sets none of its own; 0: no deadline."""
    require_api_key: bool = True
    """Whether every request needs an API key. Without keys the service may listen on loopback only."""
    log_requests: bool = True
    """Whether each request writes a log line to stderr."""
    log_json: bool = True
    """Whether log lines are JSON; false: text for a terminal."""
    rate_limit: str = "1000/second"
    """Limit per API key, or per address where there are no keys, such as 1000/second; empty: no limit."""
    rate_limit_storage: str = "process"
    """Where requests are counted for rate_limit: in each process alone, in a file of the home that all processes share
    ("home"), or in a server that several machines share, as a URI that the `limits` library knows, such as
    redis://127.0.0.1:6379."""
    event_quota: str = "5000000/hour"
    """Most events that one API key may send, in all processes together, such as 1000000/day; empty: no limit."""
    item_quota: str = "100000/day"
    """Most items that one API key may register by describing them in /v1/rank; empty: no limit. More are ranked all the
    same, without their fields."""
    request_timeout_s: float = 10
    """Seconds in which a request must arrive and its response be taken, plus one for each 32 KiB. Unit: seconds."""
    max_connections: int = 1_000
    """Largest number of open connections per process; beyond it, the oldest that wait for a client are closed."""
    otlp_endpoint: str = ""
    """OpenTelemetry collector that accepts OTLP over HTTP, such as http://127.0.0.1:4318; empty: no traces."""
    trace_sample_rate: float = 1.0
    """Share of requests that are traced, 0 to 1, among those without a traceparent of their own."""

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65_535)
        check_range("workers", self.workers, 0, 256)
        check_range("threads", self.threads, 1, 1_000)
        check_range("deadline_ms", self.deadline_ms, 0, 60_000)
        check_range("request_timeout_s", self.request_timeout_s, 0.1, 3_600)
        check_range("max_connections", self.max_connections, 10, 100_000)
        check_range("trace_sample_rate", self.trace_sample_rate, 0, 1)
        for name in ("rate_limit", "event_quota", "item_quota"):
            _check_limit(name, getattr(self, name))
        if self.rate_limit_storage not in ("process", "home") and "://" not in self.rate_limit_storage:
            raise ValueError(
                f"rate_limit_storage is {self.rate_limit_storage!r}; expected process, home or a URI such as "
                "redis://127.0.0.1:6379"
            )
        if not self.require_api_key and self.host not in LOOPBACK:
            raise ValueError(
                f"found require_api_key = false with host {self.host!r}, expected one of {', '.join(LOOPBACK)}: "
                "without keys anyone who can reach the address may read and write; create keys with "
                "`feedrank keys create`"
            )


@dataclass(frozen=True, slots=True)
class Config:
    """All sections of the config file; every key has a default."""

    journal: JournalConfig = field(default_factory=JournalConfig)
    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    text: TextSettings = field(default_factory=TextSettings)
    late_interaction: LateInteractionSettings = field(default_factory=LateInteractionSettings)
    cross_encoder: CrossEncoderSettings = field(default_factory=CrossEncoderSettings)
    interactions: InteractionTypes = field(default_factory=InteractionTypes)
    items: ItemSettings = field(default_factory=ItemSettings)
    index: IndexConfig = field(default_factory=IndexConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    state: StateSettings = field(default_factory=StateSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    ranker: LambdaRankSettings = field(default_factory=LambdaRankSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    serve: ServeConfig = field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        if unknown := self.text.field_names - set(self.embedder.document):
            raise ValueError(
                f"text has settings of {', '.join(sorted(unknown))}, which BM25 does not read; expected fields of "
                f"embedder.document: {', '.join(self.embedder.document)}; add the field there"
            )

    @property
    def training_settings(self) -> ModelSettings:
        """The sections that training reads."""
        return ModelSettings(self.items, self.state_spec, self.features, self.training, self.labels, self.ranker)

    @property
    def state_spec(self) -> StateSpec:
        """What the behavioural state stores, and what the interaction types mean."""
        return StateSpec.of(self.state, self.interactions, self.features.declared)


def _check_limit(name: str, text: str) -> None:
    """Check that a limit can be parsed. Raises ValueError."""
    if not text or re.fullmatch(r"[1-9]\d{0,11}/(second|minute|hour|day)", text):
        return
    from limits import parse_many  # takes a moment to import

    try:
        parse_many(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected a number per time, such as 1000/second or 100000/day") from None


def load_config(path: Path | None) -> Config:
    """Load a TOML config file, or the defaults where the path is None. Raises ConfigError."""
    if path is None:
        return Config()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"can't read the config file {path}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not TOML: {problem}") from None
    _reject_unknown_keys(table, Config, path, "")
    for key, old, new in renamed_values(table):
        raise ConfigError(f"{path}: {key} has the value {old!r}, which is now named {new!r}")
    try:
        # validated as JSON: strict about types, but a list may stand for a tuple and a table for a dataclass
        return TypeAdapter(Config).validate_json(json.dumps(_attributes(table, Config), default=str), strict=True)
    except ValidationError as problem:
        raise ConfigError("{}: {}: {}".format(path, *first_error(problem))) from None


def _reject_unknown_keys(table: Mapping[str, Any], section: type, path: Path, prefix: str) -> None:
    types = get_type_hints(section)
    names = [key_of(entry.name) for entry in fields(section)]
    types = {key_of(name): kind for name, kind in types.items()}
    for key, value in table.items():
        if key not in names and (advice := moved_key(f"{prefix}{key}", value)):
            raise ConfigError(f"{path}: {prefix}{key} is now {advice}")
        if key not in names and (new := renamed_key(f"{prefix}{key}")):
            raise ConfigError(f"{path}: {prefix}{key} is now named {new}; rename the key in the config file")
        if key not in names:
            level = f"in [{prefix[:-1]}]" if prefix else "at the top level"
            listed = ", ".join(names[:MAX_NAMED_KEYS]) + (", ..." if len(names) > MAX_NAMED_KEYS else "")
            close = get_close_matches(key, names, 1)
            advice = f"did you mean {prefix}{close[0]}? The" if close else "the"
            raise ConfigError(f"{path}: unknown key {prefix}{key}; {advice} keys {level} are {listed}")
        _reject_nested(value, types[key], path, f"{prefix}{key}.")


def key_of(attribute: str) -> str:
    """Return the key of an attribute in the config file: without the underscore behind a keyword of Python."""
    return attribute.rstrip("_")


def _attributes(value: Any, kind: Any) -> Any:
    """Return a table with the attributes' names for its keys, where these are keywords of Python."""
    if isinstance(value, Mapping) and is_dataclass(kind):
        types, names = get_type_hints(kind), {key_of(entry.name): entry.name for entry in fields(kind)}
        return {names[key]: _attributes(entry, types[names[key]]) for key, entry in value.items()}
    if isinstance(value, list) and get_origin(kind) is tuple:
        return [_attributes(entry, get_args(kind)[0]) for entry in value]
    return value


def _reject_nested(value: Any, kind: Any, path: Path, prefix: str) -> None:
    """Check a table, or each table of a list or of a table with names of the file's own."""
    if isinstance(value, Mapping) and is_dataclass(kind):
        _reject_unknown_keys(value, cast(type, kind), path, prefix)
    elif isinstance(value, list) and get_origin(kind) is tuple:
        for entry in value:
            _reject_nested(entry, get_args(kind)[0], path, prefix)
    elif isinstance(value, Mapping) and get_origin(kind) is Mapping:
        for name, entry in value.items():
            _reject_nested(entry, get_args(kind)[1], path, f"{prefix}{name}.")
