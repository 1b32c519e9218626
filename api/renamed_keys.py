"""Names of config keys and values that were renamed, so that an old config gets an error with the new name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from feedrank.api.toml_text import to_toml

OLD_KEYS: dict[str, str] = {
    "cross_encoder.text_tokens": "cross_encoder.query_tokens",
    "cross_encoder.best": "cross_encoder.top_k",
    "cross_encoder.ready_share": "cross_encoder.precomputed_share",
    "cross_encoder.cache": "cross_encoder.cache_size",
    "cross_encoder.ahead": "cross_encoder.prefetch_queue_size",
    "index.search_factor": "index.search_k_factor",
    "index.whole_up_to": "index.exact_below",
    "items.co_click_rank": "items.cooccurrence_rank",
    "items.co_click_weight": "items.cooccurrence_weight",
    "items.follows_rank": "items.transition_rank",
    "items.follows_weight": "items.transition_weight",
    "items.window": "items.transition_window",
    "items.damping": "items.transition_damping",
    "items.decay": "items.history_decay",
    "items.depth": "items.history_length",
    "items.linear_items": "items.ease_items",
    "labels.by_value": "labels.value_weighted",
    "labels.full_dwell_s": "labels.dwell_saturation_s",
    "labels.grades": "labels.grade_thresholds",
    "labels.examined_past": "labels.examination_window",
    "ranker.seeds": "ranker.ensemble_size",
    "recall.query_share": "recall.query_weight",
    "serve.keys": "serve.require_api_key",
    "serve.traces": "serve.otlp_endpoint",
    "serve.trace_share": "serve.trace_sample_rate",
    "state.depth": "state.history_length",
    "state.counters.per": "state.counters.rate_over",
    "training.targets": "training.targets_per_user",
    "training.least_history": "training.min_history",
    "training.least_rankings": "training.min_rankings",
    "training.served_rows": "training.use_logged_features",
}
"""Old key -> new key, each with its section."""
_WEIGHT = "the weight of each type in [interactions.types]"
_UNLISTED = 'unlisted in [interactions], such as unlisted = "positive"; types with usual names keep their meaning'
MOVED_KEYS: dict[str, str] = {
    "labels.weights": _WEIGHT, "labels.default_weight": _UNLISTED, "labels.other": _UNLISTED,
}  # fmt: skip
"""Old key -> what says it in another section."""
OLD_VALUES: dict[str, dict[str, str]] = {
    "features.families": {
        "vectors": "similarity",
        "late": "late_interaction",
        "pair": "cross_encoder",
        "tables": "item_item",
        "ages": "recency",
        "statistics": "item_stats",
        "declared": "custom_counters",
        "person": "user",
        "standings": "listwise",
    },
    "retrain.gate.rule": {"not-worse": "non-inferior", "better": "superior"},
    "retrain.gate.segments": {"usual": "regular"},
}
"""Key -> old value -> new value."""
OLD_EXPERIMENT_KEYS: dict[str, str] = {
    "minimum_days": "min_days",
    "minimum_units": "min_units",
    "guardrails.worst": "guardrails.max_relative_loss",
    "metrics.*.per": "metrics.*.denominator",
    "arms.*.rescored": "arms.*.rerank_top_k",
}
"""Old key -> new key of an experiment spec; `*` stands for a name that the file chooses."""


def renamed_key(path: str) -> str | None:
    """Return the new name of an old config key, without its section; None if there is none.

    path: the key with its section, such as index.whole_up_to.
    """
    new = OLD_KEYS.get(path)
    return None if new is None else new.rpartition(".")[2]


def moved_key(path: str, value: Any) -> str | None:
    """Return what to write in place of a key that moved to another section; None if the key did not.

    path: the key with its section, such as labels.weights. value: what the config has there.
    """
    advice = MOVED_KEYS.get(path)
    if advice is not None and path == "labels.weights" and isinstance(value, Mapping) and value:
        return f"{advice}: {', '.join(to_toml({name: {'weight': weight}})[1:-1] for name, weight in value.items())}"
    return advice


def renamed_experiment_key(path: str) -> str | None:
    """Return the new name of an old key of an experiment spec, without its table; None if there is none.

    path: the key with its table, such as guardrails[0].worst.
    """
    parts = re.sub(r"\[\d+\]", "", path).split(".")
    new = OLD_EXPERIMENT_KEYS.get(".".join(parts)) or OLD_EXPERIMENT_KEYS.get(".".join([parts[0], "*", *parts[2:]]))
    return None if new is None else new.rpartition(".")[2]


def renamed_values(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, old value, new value) for each renamed value in a config table."""
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from renamed_values(value, f"{key}.")
        elif key in OLD_VALUES:
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, str) and entry in OLD_VALUES[key]:
                    yield key, entry, OLD_VALUES[key][entry]
