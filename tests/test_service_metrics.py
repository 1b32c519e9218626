"""The service's metrics: what is counted, that workers' counts add up, and that the dashboard shows them all."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT
from prometheus_client.parser import text_string_to_metric_families

from feedrank.api import metrics
from feedrank.api.drift_monitor import DriftMonitor
from feedrank.api.metrics import Metrics
from feedrank.models.retraining.drift import PSI_LARGE, PSI_MODERATE, FeatureHistogram

NOW = 1_800_000_000.0
DASHBOARD = PROJECT / "docs" / "grafana" / "feedrank.json"
NAMES = ["a", "b"]


class Clock:
    """A clock in seconds that a test advances."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(Name, labels) -> value."""
    families = text_string_to_metric_families(text.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(service_metrics: Metrics, name: str, **labels: str) -> float:
    """The exposed value of a metric by name and labels."""
    return samples(service_metrics.render()[0])[f"feedrank_{name}", frozenset(labels.items())]


def normal(rows: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """(rows, 2) feature rows."""
    return (np.random.default_rng(seed).normal(size=(rows, 2)) + shift).astype(np.float32)


# --- what is counted


def test_requests_stages_and_parts_are_counted() -> None:
    service_metrics = Metrics()
    for _ in range(3):
        service_metrics.observe_request("/v1/recommend", "POST", 200, 0.004)
    service_metrics.observe_stages({"recall": 0.002, "rank": 0.001, "a new one": 0.5})
    service_metrics.observe_candidates("annoy", 100)
    for level in ("full", "popular"):
        service_metrics.count_fallback(level)
    service_metrics.count_degraded(["cross_encoder", "full", "no_neural"])
    service_metrics.count_cross_encoder_scores("cache", 70)
    service_metrics.count_cross_encoder_scores("missing", 30)
    service_metrics.count_events("interaction", "accepted", 5)
    service_metrics.count_events("nonsense", "rejected")
    service_metrics.count_journal_failure()
    service_metrics.set_state_lag(0.25)
    service_metrics.count_exposure("ab", "usual")
    service_metrics.set_item_count(12)
    assert value(service_metrics, "requests_total", route="/v1/recommend", method="POST", status="200") == 3
    assert value(service_metrics, "request_seconds_sum", route="/v1/recommend") == pytest.approx(0.012)
    assert value(service_metrics, "request_seconds_bucket", route="/v1/recommend", le="0.003") == 0
    assert value(service_metrics, "request_seconds_bucket", route="/v1/recommend", le="0.004") == 3
    assert value(service_metrics, "stage_seconds_count", stage="recall") == 1
    assert value(service_metrics, "stage_seconds_sum", stage="other") == 0.5
    assert value(service_metrics, "candidates_sum", source="annoy") == 100
    assert value(service_metrics, "exposures_total", experiment="ab", variant="usual") == 1
    assert [value(service_metrics, "fallbacks_total", level=level) for level in metrics.FALLBACK_LEVELS] == [0, 1, 0]
    assert [value(service_metrics, "degraded_total", part=part) for part in metrics.DEGRADABLE_PARTS] == [
        0,
        0,
        0,
        0,
        1,
        0,
    ]
    assert value(service_metrics, "cross_encoder_scores_total", origin="cache") == 70
    assert value(service_metrics, "cross_encoder_scores_total", origin="live") == 0
    assert value(service_metrics, "events_total", kind="interaction", outcome="accepted") == 5
    assert value(service_metrics, "events_total", kind="other", outcome="rejected") == 1
    assert value(service_metrics, "journal_failures_total") == 1
    assert value(service_metrics, "state_lag_seconds") == 0.25
    assert value(service_metrics, "items") == 12


def test_prefetch_counts_are_added_once() -> None:
    service_metrics = Metrics()
    for completed, dropped, failed in ((2, 0, 1), (5, 1, 1), (5, 1, 1)):
        service_metrics.update_prefetch(completed, dropped, failed)
    assert [value(service_metrics, "prefetch_total", outcome=outcome) for outcome in metrics.PREFETCH_OUTCOMES] == [
        5,
        1,
        1,
    ]


def test_two_in_one_process_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.count_journal_failure()
    assert (value(one, "journal_failures_total"), value(other, "journal_failures_total")) == (1, 0)


def test_labels_are_bounded_whatever_a_client_sends() -> None:
    service_metrics = Metrics()
    for number in range(1_000):
        service_metrics.observe_request(f"/users/{number}", f"VERB{number}", 404, 0.001)
    service_metrics.observe_request(None, "GET", 404, 0.001)
    seen = [dict(labels) for name, labels in samples(service_metrics.render()[0]) if name == "feedrank_requests_total"]
    assert {one["method"] for one in seen} == {"GET", metrics.OTHER}
    assert len({one["route"] for one in seen}) == metrics.MAX_ROUTES + 2
    assert value(service_metrics, "requests_total", route=metrics.UNMATCHED, method="GET", status="404") == 1


def test_the_exposition_is_prometheus_text() -> None:
    text, content_type = Metrics().render()
    assert content_type.startswith("text/plain; version=")
    assert b"# TYPE feedrank_requests_total counter" in text


# --- the bundle, and drift


def test_the_age_of_a_bundle_grows_until_the_next() -> None:
    clock = Clock()
    service_metrics = Metrics(clock)
    service_metrics.set_bundle("first", NOW - 60, None, NAMES)
    clock.now += 5
    assert value(service_metrics, "bundle_age_seconds") == 65
    assert value(service_metrics, "bundle_info", bundle="first") == 1
    service_metrics.set_bundle("second", NOW, None, NAMES)
    assert value(service_metrics, "bundle_age_seconds") == 5
    assert [value(service_metrics, "bundle_info", bundle=name) for name in ("first", "second")] == [0, 1]


def test_drift_names_the_features_that_moved() -> None:
    watch = DriftMonitor(FeatureHistogram.from_matrix(normal(20_000), NAMES), NAMES)
    for seed in range(600):
        rows = normal(10, seed=seed + 1)
        rows[:, 1] += 1
        # the scores move after the first KEPT
        watch.add(rows, rows[:, 0] + (2 if seed >= 500 else 0))
    drift = watch.report(NOW)
    assert drift is not None
    assert drift.feature_psi["a"] < PSI_MODERATE
    assert drift.feature_psi["b"] > PSI_LARGE
    assert drift.score_psi is not None
    assert drift.score_psi > PSI_MODERATE
    assert drift.mean_score == pytest.approx(2 * 1_000 / DriftMonitor.WINDOW_ROWS, abs=0.05)


def test_drift_waits_for_rows_and_rests_between_readings() -> None:
    watch = DriftMonitor(FeatureHistogram.from_matrix(normal(20_000), NAMES), NAMES)
    watch.add(normal(DriftMonitor.MIN_ROWS - 1)[:100], np.zeros(100, np.float32))
    assert watch.report(NOW) is None
    for seed in range(10):
        watch.add(normal(100, seed=seed), np.zeros(100, np.float32))
    first = watch.report(NOW)
    assert first is not None
    assert first.score_psi is None
    watch.add(normal(100, 5.0), np.ones(100, np.float32))
    assert watch.report(NOW + DriftMonitor.MIN_INTERVAL_S - 1) is first
    assert watch.report(NOW + DriftMonitor.MIN_INTERVAL_S) is not first


def test_a_long_feed_is_thinned_and_foreign_rows_are_passed_over() -> None:
    watch = DriftMonitor(None, NAMES)
    watch.add(np.empty((0, 2), np.float32), np.ones(600, np.float32))
    watch.add(np.zeros((600, 3), np.float32), np.ones(600, np.float32))
    assert watch.report(NOW) is None
    for _ in range(5):
        watch.add(np.zeros((1_000, 2), np.float32), np.arange(1_000, dtype=np.float32))
    drift = watch.report(NOW)
    assert drift is not None
    assert drift == ({}, None, pytest.approx(495))


def test_scores_that_are_not_numbers_do_no_harm() -> None:
    watch = DriftMonitor(None, NAMES)
    for _ in range(5):
        watch.add(np.zeros((100, 2), np.float32), np.full(100, np.nan, np.float32))
    drift = watch.report(NOW)
    assert drift is not None
    assert math.isnan(drift.mean_score)


def test_drift_is_exposed_and_begins_anew_with_a_bundle() -> None:
    clock = Clock()
    service_metrics = Metrics(clock)
    service_metrics.add_drift_rows(normal(10), np.zeros(10, np.float32))
    service_metrics.set_bundle("first", NOW, FeatureHistogram.from_matrix(normal(20_000), NAMES), NAMES)
    assert math.isnan(value(service_metrics, "score_mean"))
    for seed in range(10):
        service_metrics.add_drift_rows(normal(100, 3.0, seed), np.full(100, 0.5, np.float32))
    assert value(service_metrics, "feature_psi", feature="a") > PSI_LARGE
    assert value(service_metrics, "score_mean") == 0.5
    service_metrics.set_bundle("second", NOW, FeatureHistogram.from_matrix(normal(20_000), NAMES), NAMES)
    assert math.isnan(value(service_metrics, "feature_psi", feature="a"))
    assert math.isnan(value(service_metrics, "score_mean"))


# --- several processes


WORKER = """
import sys, time
import numpy as np
from feedrank.api.metrics import Metrics
made = Metrics(lambda: 1_800_000_000.0)
count = int(sys.argv[1])
for _ in range(count):
    made.observe_request("/v1/recommend", "POST", 200, 0.004)
made.update_prefetch(count, 0, 0)
made.set_state_lag(count)
made.set_item_count(count)
made.set_bundle("toy", 1_800_000_000.0 - count, None, ["a"])
for _ in range(5):
    made.add_drift_rows(np.zeros((100, 1), np.float32), np.full(100, count, np.float32))
print(made.render()[0].decode(), end="")
"""
MASTER = """
import subprocess, sys
from pathlib import Path
from feedrank.api import metrics
folder, worker = Path(sys.argv[1]), sys.argv[2]
metrics.prepare_multiprocess(folder)
children = []
for count in "43":
    children.append(subprocess.Popen([sys.executable, "-c", worker, count], stdout=subprocess.PIPE, text=True))
    out, _ = children[-1].communicate()
    assert children[-1].returncode == 0
made = metrics.Metrics()
print(out, "=====", made.render()[0].decode(), sep="\\n")
metrics.worker_died(children[0].pid)
print("=====", made.render()[0].decode(), sep="\\n")
metrics.prepare_multiprocess(folder)
print("=====", *sorted(file.name for file in folder.iterdir()), sep="\\n")
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python process that has not imported anything yet."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {name: one for name, one in os.environ.items() if name != metrics.MULTIPROC_DIR_VARIABLE}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=PROJECT, env=environment, timeout=120, check=False
    )


def test_counts_of_two_workers_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"left by the last run")
    (folder / "mine.txt").write_text("not a count")
    done = run(MASTER, folder, WORKER)
    assert done.returncode == 0, done.stderr
    second, both, after, left = done.stdout.split("=====\n")
    labels = frozenset({"route": "/v1/recommend", "method": "POST", "status": "200"}.items())
    for text in (second, both, after):  # whichever process is asked, and when a worker is gone
        found = samples(text.encode())
        assert found["feedrank_requests_total", labels] == 7
        assert found["feedrank_request_seconds_count", frozenset({("route", "/v1/recommend")})] == 7
        assert found["feedrank_prefetch_total", frozenset({("outcome", "completed")})] == 7
    alone = frozenset[tuple[str, str]]()
    gauges = ("feedrank_state_lag_seconds", "feedrank_bundle_age_seconds", "feedrank_items", "feedrank_score_mean")
    # the largest of two of them, the latest of the others
    assert [samples(both.encode())[name, alone] for name in gauges] == [4, 4, 3, 3]
    assert [samples(after.encode())[name, alone] for name in gauges] == [3, 3, 3, 3]
    assert samples(both.encode())["feedrank_bundle_info", frozenset({("bundle", "toy")})] == 1
    assert left.split() == ["mine.txt"]


def test_to_prepare_too_late_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(
        "import pathlib, prometheus_client\nfrom feedrank.api import metrics\n"
        "metrics.prepare_multiprocess(pathlib.Path('x'))"
    )
    assert done.returncode == 1
    assert "call it first" in done.stderr
    monkeypatch.setenv(metrics.MULTIPROC_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match=r"call prepare_multiprocess\(\) first"):
        Metrics()


def test_without_a_folder_a_death_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(metrics.MULTIPROC_DIR_VARIABLE, raising=False)
    metrics.worker_died(1)


def test_importing_the_module_does_not_import_the_client() -> None:
    done = run("import sys, feedrank.api.metrics; print('prometheus_client' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


# --- the dashboard


def dashboard() -> dict[str, Any]:
    """The dashboard as it is stored."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


def expressions() -> Iterator[str]:
    """Every expression of the dashboard's panels."""
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    kept = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    families = list(Metrics().registry.collect())
    exposed = {one.name: {one.name + suffix for suffix in kept[one.type]} for one in families}
    shown = {name for text in expressions() for name in re.findall(r"feedrank_\w+", text)}
    assert shown <= set().union(*exposed.values())
    assert [name for name, forms in exposed.items() if not forms & shown] == []


def test_the_dashboard_names_labels_that_there_are() -> None:
    service_metrics = Metrics()
    service_metrics.observe_request("/", "GET", 200, 0.1)
    service_metrics.observe_candidates("annoy", 1)
    service_metrics.count_exposure("ab", "usual")
    service_metrics.set_bundle("toy", NOW, None, NAMES)
    there = {name for _, labels in samples(service_metrics.render()[0]) for name, _ in labels} | {
        "feature",
        "job",
        "instance",
    }
    for text in expressions():
        grouped = re.findall(r"(?:by|ignoring) \(([^)]*)\)", text)
        assert {label.strip() for one in grouped for label in one.split(",")} <= there, text
        assert set(re.findall(r'(\w+)=~?"', text)) <= there, text
        assert text.count("(") == text.count(")"), text


def test_the_dashboard_is_ready_to_import() -> None:
    board = dashboard()
    panels = board["panels"]
    assert board["id"] is None
    assert board["schemaVersion"] >= 38
    assert [one["name"] for one in board["templating"]["list"] if one["type"] == "datasource"] == ["datasource"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & cells, f"{panel['title']} lies over another panel"
        assert grid["x"] + grid["w"] <= 24
        cells |= own
        for part in [panel, *panel["targets"]] if panel["type"] != "row" else []:
            assert part["datasource"]["uid"] == "${datasource}", panel["title"]
