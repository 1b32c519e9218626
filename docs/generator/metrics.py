"""The reference page of the Prometheus metrics, from the registry that the service exports."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generator.markdown import code, table, text
from feedrank.api.metrics import Metrics

INTRO = """# Prometheus metrics

`GET /metrics` returns the metrics of all worker processes of one machine. It needs a key with the scope `read`.
`docs/grafana/feedrank.json` is a Grafana dashboard. `docs/deploy/alerts.yml` has alerts.
"""


def families() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield (name as scraped, type, label names, meaning) of each metric."""
    registry = Metrics(clock=lambda: 0.0).registry
    for collector in registry._collector_to_names:
        family = next(iter(collector.describe() if hasattr(collector, "describe") else collector.collect()))
        suffix = "_total" if family.type == "counter" else ""
        yield family.name + suffix, family.type, tuple(getattr(collector, "_labelnames", ())), family.documentation


def page() -> str:
    """Return the page: one row per metric."""
    rows = [
        (code(name), kind, ", ".join(code(label) for label in labels), text(meaning))
        for name, kind, labels, meaning in families()
    ]
    return f"{INTRO}\n{table(('metric', 'type', 'labels', 'meaning'), rows)}"
