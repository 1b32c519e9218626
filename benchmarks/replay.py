"""The click log as the source of truth: kernel, matrices, memory, replay, deaths, damage, bias and sameness.

The parts that measure memory run in processes of their own. Ten million events are written to a journal and replayed
from it, which takes some ten minutes and 4 GB of disk; `FEEDRANK_REPLAY_EVENTS` takes another number.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.corruption import corrupted
from benchmarks.kills import kills
from benchmarks.position_bias import position_bias

ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
EVENTS = int(os.environ.get("FEEDRANK_REPLAY_EVENTS", 10_000_000))
PEOPLE, TOUCHES, ITEMS = 1_000_000, 50, 100_000


def replay() -> list[Bar]:
    """All bars, in the order they were set."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        for command in (["import", "movielens-100k"], ["index", "--name", "first"]):
            _run([sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command])
        people = f"{PEOPLE:,} people with {TOUCHES} touched items each, {ITEMS:,} items"
        bars = [
            Bar("state kernel, interactions a second, one core", _asked("kernel()"), "/s", 1_000_000, "higher"),
            Bar("training matrix, all features, candidate rows a second, one core", _asked(f"rows({str(home)!r})"),
                "/s", 150_000, "higher"),
            Bar(f"memory of {people}", _asked("memory()"), "MB", 400, "lower"),
            Bar(f"{EVENTS:,} events replayed to Parquet: peak memory", _asked(f"parquet({folder!r})"), "GB", 4,
                "lower"),
            Bar("matrices served live and rebuilt by replay: differing values", _asked(f"skew({str(home)!r})"), "", 0,
                "lower"),
            *kills(),
            *corrupted(),
            *position_bias(),
            Bar("same log, config and seed, twice: bundle files that differ",
                _asked(f"twice({folder!r}, {str(home)!r})"), "", 0, "lower"),
        ]  # fmt: skip
    return [*bars, Bar("the main job's bars that are not met", _unmet("quality"), "", 0, "lower")]


def kernel() -> float:
    """Median of five runs over two million touches by 100,000 people in 90 days, item popularity by Zipf."""
    from feedrank.engine.events.catalogue import Catalogue
    from feedrank.features.kernel import OP_INTERACTION, Operations
    from feedrank.features.state import BehaviouralState

    random = np.random.default_rng(0)
    catalogue = Catalogue.from_items({f"i{n}": {"category": f"c{n % 300}"} for n in range(ITEMS)})
    touches = 2_000_000
    ops = Operations(
        code=np.full(touches, OP_INTERACTION, np.uint8),
        at=1.7e9 + np.sort(random.random(touches)) * 90 * 86_400,
        user=random.integers(0, 100_000, touches).astype(np.int32),
        session=np.full(touches, -1, np.int32),
        start=np.arange(touches),
        stop=np.arange(1, touches + 1),
        rows=(random.zipf(1.3, touches) % ITEMS).astype(np.int32),
        type_bits=np.zeros(touches, np.int64),
    )
    BehaviouralState(catalogue).observe(ops.segment(0, 1_000))
    return touches / _median(lambda: BehaviouralState(catalogue).observe(ops), 5)


def rows(home: str) -> float:
    """MovieLens-100K: what recall finds for each person's last touches, replayed into the matrix; median of three."""
    from feedrank.api import compose
    from feedrank.api.config import Config
    from feedrank.api.home_paths import HomePaths
    from feedrank.models.bundles import bundle
    from feedrank.models.items.user_histories import UserHistories
    from feedrank.models.training.dataset import feature_chunks, from_recall
    from feedrank.models.training.training import exact_retriever

    made = compose.load_training_inputs(HomePaths(Path(home)), Config())
    builder = bundle.load(HomePaths(Path(home)).current_bundle).builder
    sequences = UserHistories.from_log(made.log)
    targets = np.flatnonzero((sequences.count_after < 3) & (sequences.count_before > 0))
    examples = from_recall(
        made.log, sequences, targets, exact_retriever(builder.item_model), 100, builder.spec.history_length
    )

    def run() -> None:
        for _ in feature_chunks(made.log, builder, examples):
            pass

    run()
    return len(examples.labels) / _median(run, 3)


def memory() -> float:
    """What the process grew by, in MB: the state, and the ids of the people."""
    from feedrank.engine.events.catalogue import Catalogue
    from feedrank.engine.events.vocabulary import Vocabulary
    from feedrank.features.kernel import OP_INTERACTION, Operations
    from feedrank.features.state import BehaviouralState

    random = np.random.default_rng(0)
    catalogue = Catalogue.from_items({f"i{n}": {"category": f"c{n % 300}"} for n in range(ITEMS)})

    def chunk(at: float) -> Operations:
        """One touch of each person, in an order of its own."""
        return Operations(
            code=np.full(PEOPLE, OP_INTERACTION, np.uint8),
            at=at + np.sort(random.random(PEOPLE)) * 2 * 86_400,
            user=random.permutation(PEOPLE).astype(np.int32),
            session=np.full(PEOPLE, -1, np.int32),
            start=np.arange(PEOPLE),
            stop=np.arange(1, PEOPLE + 1),
            rows=random.integers(0, ITEMS, PEOPLE).astype(np.int32),
            type_bits=np.zeros(PEOPLE, np.int64),
        )

    BehaviouralState(catalogue).observe(chunk(0).segment(0, 1_000))  # compiled, and the pages of `chunk` are there
    before = _resident()
    people = Vocabulary(f"user-{n}" for n in range(PEOPLE))
    state = BehaviouralState(catalogue)
    for step in range(TOUCHES):
        state.observe(chunk(1.7e9 + step * 2 * 86_400))
    grown = _resident() - before
    assert len(people) == PEOPLE
    assert len(state.history(PEOPLE - 1)[0]) == TOUCHES
    return grown


def parquet(folder: str) -> float:
    """Peak memory in GB of reading a journal of so many events and writing the training rows of all its rankings."""
    script = f"from benchmarks.replay import fill; fill({folder!r})"
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)
    import resource

    from feedrank.engine.events.catalogue import Catalogue
    from feedrank.engine.events.event_table_builder import sorted_events_to_table
    from feedrank.engine.events.events import ItemEvent
    from feedrank.engine.journal.journal import Journal
    from feedrank.features.bm25 import TermWeights
    from feedrank.features.builder import FeatureBuilder
    from feedrank.features.state_spec import StateSpec
    from feedrank.models.items.item_model import fit_item_views
    from feedrank.models.items.user_histories import UserHistories
    from feedrank.models.training import parquet_dataset
    from feedrank.models.training.dataset import from_rankings

    journal = Journal.open_sqlite(Path(folder) / "large.db")
    catalogue = Catalogue.from_events(one for one in journal.events("item") if isinstance(one, ItemEvent))
    log = sorted_events_to_table((event for _, event in journal.read_by_effective_time()), catalogue.ids)
    assert len(log) == EVENTS - len(catalogue)
    text = np.zeros((len(catalogue), 0), np.float32)
    knowledge = fit_item_views(catalogue, text, TermWeights.fit(catalogue.documents()), UserHistories.from_log(log))
    examples = from_rankings(log, 0, len(log.rankings))
    made = parquet_dataset.write_query_groups(
        Path(folder) / "large.parquet", log, FeatureBuilder(knowledge, StateSpec()), examples
    )
    assert len(made.labels) == len(log.rankings.items)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def fill(folder: str) -> None:
    """A journal of EVENTS events: 10,000 items, one ranking of ten in twenty events, the rest interactions."""
    from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent
    from feedrank.engine.journal.journal import Journal

    random = np.random.default_rng(0)

    def events() -> Iterator[Event]:
        for n in range(10_000):
            yield ItemEvent(f"item {n}", 0, f"i{n}", {"title": f"thing {n % 97} {n}", "category": f"c{n % 50}"})
        step = 100_000
        for start in range(0, EVENTS - 10_000, step):
            items = random.zipf(1.2, (step, 10)) % 10_000
            people = random.integers(0, 300_000, step)
            for n in range(start, min(start + step, EVENTS - 10_000)):
                at, user, row = 1_700_000_000_000 + n * 500, f"u{people[n - start]}", items[n - start]
                if n % 20 == 0:
                    shown = tuple(f"i{item}" for item in dict.fromkeys(row.tolist()))
                    yield RankingEvent(f"r{n}", at, shown, user)
                else:
                    yield InteractionEvent(f"c{n}", at, f"i{row[0]}", "click", user=user)

    Journal.open_sqlite(Path(folder) / "large.db").append(events())


def skew(home: str) -> float:
    """300 feeds with clicks, served with their rows stored; then the same rows from a replay of the journal."""
    from feedrank.api import compose
    from feedrank.api.config import Config
    from feedrank.api.home_paths import HomePaths
    from feedrank.engine.events.events import InteractionEvent, RankingEvent
    from feedrank.engine.serving.request import RecommendationRequest
    from feedrank.models.training.dataset import feature_chunks, from_rankings

    place = HomePaths(Path(home))
    recommender = compose.build_recommender(place, Config())
    random = np.random.default_rng(0)
    now = time.time()
    for step in range(300):
        user = str(random.integers(1, 944)) if step % 7 else f"new {step}"
        feed = recommender.recommend(f"live {step}", now + step, RecommendationRequest(user, n=100))
        clicked = feed.items[int(random.integers(0, len(feed.items)))]
        late = int(random.integers(0, 3_600)) if step % 5 == 0 else 0
        at = round((now + step - late) * 1000)
        click = InteractionEvent(str(uuid.uuid4()), at, clicked, "click", feed.id, user)
        recommender.record([click], now + step + 0.5)
    builder = recommender.pipeline.featurizer
    made = compose.load_training_inputs(place, Config())
    stored = [event for event in place.journal().events("ranking") if isinstance(event, RankingEvent)]
    examples = from_rankings(made.log, 0, len(stored))
    rebuilt = np.concatenate([chunk.matrix for chunk in feature_chunks(made.log, builder, examples)])
    parts = [np.frombuffer(b64decode(event.features["data"]), "<f4") for event in stored]
    served = np.concatenate([part.reshape(-1, len(builder.names)) for part in parts])
    assert served.shape == rebuilt.shape, (served.shape, rebuilt.shape)
    differs = (served.view(np.uint32) != rebuilt.view(np.uint32)) & ~(np.isnan(served) & np.isnan(rebuilt))
    if differs.any():
        counts = {name: int(differs[:, column].sum()) for column, name in enumerate(builder.names)}
        print({name: n for name, n in counts.items() if n}, file=sys.stderr)
    return float(differs.sum())


def twice(folder: str, home: str) -> float:
    """Files of two bundles, trained from the same journal one after the other, whose bytes differ."""
    from feedrank.api import compose
    from feedrank.api.config import Config
    from feedrank.api.home_paths import HomePaths
    from feedrank.models.bundles.bundle import BUILD_INFO
    from feedrank.models.training.training_settings import TrainingSettings

    config = replace(Config(), training=TrainingSettings(folds=2, targets_per_user=1))
    made = compose.load_training_inputs(HomePaths(Path(home)), config)
    found = []
    for number in range(2):
        other = HomePaths(Path(folder) / f"again-{number}")
        trained = compose.train(made, config, lambda *_: None)
        compose.save_trained_bundle(other, config, "same", made, trained, {}, 0.0)
        files = (file for file in (other.bundles / "same").iterdir() if file.name != BUILD_INFO)
        found.append({file.name: file.read_bytes() for file in files})
    assert len(found[0]) > 7
    return float(sum(found[0].get(name) != found[1].get(name) for name in found[0].keys() | found[1].keys()))


def _asked(call: str) -> float:
    """The value of a function of this module, in a process of its own with one thread."""
    console.print(f"[dim]{call.partition('(')[0]}[/]")
    script = f"import benchmarks.replay as r; print('value', r.{call})"
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | ONE_CORE, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout.rpartition("value ")[2])


def _unmet(name: str) -> float:
    path = PROJECT / "benchmarks" / "results" / f"{name}.json"
    return float(sum(not row["met"] for row in json.loads(path.read_text())["rows"]))


def _median(run: object, times: int) -> float:
    assert callable(run)
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _resident() -> float:
    """Resident memory of this process in MB, less what the allocator keeps of arrays that are gone."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    measure("replay", replay)
