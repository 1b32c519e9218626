"""What an experiment adds to a feed: with an A/B test of two bundles, and with their lists interleaved.

In process, on MovieLens-100K, one thread; feeds with and without the experiment take turns, each for another person.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import PROJECT, Bar, console

ROUNDS = 1_500
PEOPLE = 943


def request_cost() -> list[Bar]:
    """In a process of its own, so that its threads are one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "two.toml").write_text("[ranker]\nseed = 8\n")  # as large as the other
        for command in (["import", "movielens-100k"], ["--config", str(home / "two.toml"), "train", "--name", "two"],
                        ["train", "--name", "one"]):  # fmt: skip
            console.print(f"[dim]$ feedrank {' '.join(command)}[/]")
            subprocess.run(
                [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command], cwd=PROJECT, check=True
            )
        script = "from benchmarks.request_cost import measured; import sys; measured(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", script, str(home)], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
        )
    plain, ab, mixed, scoring = map(float, done.stdout.split()[-4:])
    console.print(
        f"a feed: p50 {plain:.2f} ms; in an A/B test {ab:+.3f} ms; interleaved {mixed:+.3f} ms, of which the second"
        f" ranker's own recall, features and scores take {scoring:.2f} ms"
    )
    return [
        Bar("added to a feed by an A/B test of two bundles, p50", ab, "ms", 0.2, "lower"),
        Bar("added by interleaving two bundles, beyond the second one's own list, p50", mixed - scoring, "ms", 1,
            "lower"),
    ]  # fmt: skip


def measured(folder: str) -> None:
    """Print milliseconds: a feed's median, and what the two kinds add to it, by medians of paired differences."""
    from feedrank.api import compose, server
    from feedrank.api.compose.arm_loader import ArmLoader
    from feedrank.api.compose.experiments import ExperimentService
    from feedrank.api.config import load_config
    from feedrank.api.experiment_config import parse_experiment
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.experiments.arm_servers import ArmServers
    from feedrank.engine.experiments.registry import ExperimentRegistry
    from feedrank.engine.serving.request import RecommendationRequest
    from feedrank.engine.types import QueryVectors

    server.limit_blas_threads()
    home = HomePaths(Path(folder))
    config, journal = load_config(home.config), home.journal()
    desk = ExperimentService(home, journal)
    recommender = compose.build_recommender(home, config)
    arms: dict[str, Any] = {"usual": {}, "other": {"bundle": "two"}}
    rosters = {"plain": ExperimentRegistry()}
    for kind in ("ab", "interleave"):
        desk.create(parse_experiment({"name": kind, "kind": kind, "arms": arms}, kind), time.time())
        desk.start(kind, time.time())
        rosters[kind] = desk.experiment_registry
        desk.change(kind, "stop", {}, time.time())
    recommender.arm_servers = ArmServers(rosters["ab"])
    ArmLoader(home, config, journal, recommender, time.time).sync()
    seconds: dict[str, list[float]] = {kind: [] for kind in rosters}
    own: list[float] = []
    random = np.random.default_rng(0)
    for step in range(ROUNDS):
        for kind, roster in rosters.items():
            recommender.arm_servers.registry = roster
            user = str(int(random.integers(1, PEOPLE + 1)))
            started = time.perf_counter()
            recommender.recommend(f"{kind} {step}", time.time(), RecommendationRequest(user))
            seconds[kind].append(time.perf_counter() - started)
        if step % 7 == 0:  # as the thread of a server does, every fifth of a second
            recommender.catch_up(time.time())
        live = recommender.arm_servers.snapshot_for_user("two", recommender.snapshot, None)
        assert live is not None
        started = time.perf_counter()
        live.pipeline.run(live.resolve(time.time(), RecommendationRequest(user), QueryVectors()))
        own.append(time.perf_counter() - started)
    settled = {kind: 1000 * np.array(column[200:]) for kind, column in seconds.items()}
    added = [float(np.median(settled[kind]) - np.median(settled["plain"])) for kind in ("ab", "interleave")]
    print(float(np.median(settled["plain"])), *added, 1000 * float(np.median(own[200:])))
