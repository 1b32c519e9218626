"""The main job: ranking quality on MovieLens-100K and the MIND sample, and what a feed costs.

Runs the demo in a folder of its own (data from the package index), the tests, an evaluation on MIND (from
FEEDRANK_DATA) and a server on loopback. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.bars import DATA, PROJECT, Bar, console, measure

FEEDS = 500
WARM_UP = 50
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def quality() -> list[Bar]:
    """All bars, in the order they were set."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "demo"
        seconds, peak = _timed(["make", "demo", f"DEMO={home}"])
        found = {(row["dataset"], row["method"], row["metric"]): row["value"] for row in _rows(home / "report.json")}
        mind = _mind(Path(folder) / "mind")
        bars = [
            Bar("MovieLens-100K, last item out: recall@100", found["movielens-100k", "lambdarank", "recall@100"], "",
                0.60, "higher"),
            Bar("MovieLens-100K, last item out: nDCG@10", found["movielens-100k", "lambdarank", "ndcg@10"], "", 0.11,
                "higher"),
            Bar("MIND sample, by time 70/10/20: AUC", mind["auc"], "", 0.685, "higher"),
            Bar("MIND sample, by time 70/10/20: nDCG@10", mind["ndcg@10"], "", 0.405, "higher"),
            Bar("one feed, 100 candidates, in process, one thread: p50", _in_process(home), "ms", 5, "lower"),
            Bar("one feed, 100 candidates, over HTTP on loopback: p50", _over_http(home), "ms", 8, "lower"),
            Bar("make demo, after the install", seconds / 60, "min", 3, "lower"),
            Bar("make demo: peak memory of its largest process", peak, "GB", 2, "lower"),
        ]  # fmt: skip
    seconds, _ = _timed(["make", "test"])
    return [*bars, Bar("make test, after the install", seconds / 60, "min", 4, "lower")]


def _mind(home: Path) -> dict[str, float]:
    """The ranker's values on the sample's test slice; NaN where the sample is absent."""
    source = DATA / "mind_sample"
    if not source.is_dir():
        console.print(f"no MIND sample at {source}; set FEEDRANK_DATA")
        return {"auc": float("nan"), "ndcg@10": float("nan")}
    config = str(PROJECT / "benchmarks" / "mind.toml")
    report = home / "report.json"
    for command in (["import", str(source)], ["evaluate", "--dataset", "mind", "--json", str(report)]):
        _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "--config", config, *command])
    return {row["metric"]: row["value"] for row in _rows(report) if row["method"] == "lambdarank"}


def _in_process(home: Path) -> float:
    """Median milliseconds of a whole feed, the write to the journal included, in a process of its own."""
    script = "from benchmarks.quality import feeds; import sys; print(feeds(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(home)], cwd=PROJECT, env=os.environ | ONE_THREAD, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def feeds(home: str) -> float:
    """Median milliseconds a feed, after warm-up."""
    from feedrank.api import compose
    from feedrank.api.config import Config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.serving.request import RecommendationRequest

    recommender = compose.build_recommender(HomePaths(Path(home)), Config())

    def ask(user: str) -> None:
        recommender.recommend(str(uuid.uuid4()), time.time(), RecommendationRequest(user))

    return _median_ms(ask)


def _over_http(home: Path) -> float:
    """Median milliseconds of POST /v1/recommend on a kept connection, from this process to a server on loopback."""
    server = subprocess.Popen(
        [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), "serve", "--port", "0", "--no-keys"],
        cwd=PROJECT, env=os.environ | ONE_THREAD | {"COLUMNS": "200"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def ask(user: str) -> None:
            body = json.dumps({"user": user})
            connection.request("POST", "/v1/recommend", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            shown = json.loads(answer.read())
            if answer.status != 200 or len(shown["items"]) != 10:
                raise RuntimeError(f"found {answer.status}: {shown}, expected a feed of 10 items")

        return _median_ms(ask)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def _median_ms(ask: Callable[[str], None]) -> float:
    people = np.random.default_rng(1).integers(1, 944, WARM_UP + FEEDS)
    times = []
    for person in people.tolist():
        started = time.perf_counter()
        ask(str(person))
        times.append(time.perf_counter() - started)
    return float(np.median(times[WARM_UP:]) * 1000)


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the peak memory of the largest of its processes in GB."""
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    _run(command)
    peak = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before)
    return time.perf_counter() - started, peak * 1024 / 1e9


def _run(command: list[str]) -> None:
    console.print(f"[dim]$ {' '.join(command)}[/]")
    subprocess.run(command, cwd=PROJECT, check=True)


def _rows(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(path.read_text())["rows"]
    return rows


if __name__ == "__main__":
    measure("quality", quality)
