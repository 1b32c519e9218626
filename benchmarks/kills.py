"""kill -9 at random moments: of processes that write to the journal, and of processes that save and promote bundles."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.bars import PROJECT, Bar

TIMES = 200
PROMOTING = 60
"""Of them; the others write to the journal."""


def kills(times: int = TIMES, seed: int = 0) -> list[Bar]:
    """Three counts, all of which must be 0."""
    chance = random.Random(seed)
    promoting = times * PROMOTING // TIMES
    with tempfile.TemporaryDirectory() as folder:
        lost, doubled = _journal(Path(folder), times - promoting, chance)
        broken = _bundles(Path(folder) / "bundles", promoting, chance)
    what = f"kill -9 at random moments, {times} times"
    return [
        Bar(f"{what}: acknowledged events lost", lost, "", 0, "lower"),
        Bar(f"{what}: events doubled", doubled, "", 0, "lower"),
        Bar(f"{what}: `current` not whole", broken, "", 0, "lower"),
    ]


def _journal(folder: Path, times: int, chance: random.Random) -> tuple[int, int]:
    from feedrank.engine.journal.journal import Journal

    url = f"sqlite:///{folder / 'journal.db'}"
    acknowledged: set[str] = set()
    for number in range(times):
        for line in _killed(f"write({url!r}, {number})", chance.uniform(0, 0.25)):
            acknowledged |= {f"{number}:{n}" for n in range(int(line) - 7, int(line))}
    journal = Journal(url)
    found = [event.id for event in journal.events()]
    journal.close()
    return len(acknowledged - set(found)), len(found) - len(set(found))


def _bundles(bundles: Path, times: int, chance: random.Random) -> int:
    from feedrank.models.bundles import bundle, registry

    broken = 0
    for number in range(times):
        _killed(f"promote({str(bundles)!r}, {number})", chance.uniform(0, 0.4))
        if registry.current_name(bundles) is not None:
            try:
                bundle.load(bundles / bundle.CURRENT)
            except bundle.BundleError:
                broken += 1
    return broken


def _killed(call: str, after: float) -> list[str]:
    """The whole lines that a worker said before it was killed, so many seconds after it was ready."""
    command = [sys.executable, "-c", f"from benchmarks.kills import write, promote; {call}"]
    worker = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    if worker.stdout.readline() != "ready\n":
        raise RuntimeError(f"the worker did not start: {worker.communicate()[1]}")
    time.sleep(after)
    worker.kill()
    said, _ = worker.communicate()
    return [line for line in said.splitlines(keepends=True) if line.endswith("\n")]


def write(url: str, number: int) -> None:
    """Append seven events at a time, and say how many are acknowledged; until killed."""
    from feedrank.engine.events.events import ItemEvent
    from feedrank.engine.journal.journal import Journal

    journal = Journal(url)
    print("ready", flush=True)
    for start in count(0, 7):
        events = [ItemEvent(f"{number}:{n}", n, "x" * 100) for n in range(start, start + 7)]
        assert all(journal.append(events))
        assert not any(journal.append(events[:3]))
        print(start + 7, flush=True)


def promote(folder: str, number: int) -> None:
    """Save and promote small bundles; until killed."""
    import numpy as np

    from feedrank.engine.events.catalogue import Catalogue
    from feedrank.features.bm25 import TermWeights
    from feedrank.features.builder import FeatureBuilder
    from feedrank.features.state_spec import StateSpec
    from feedrank.models.bundles import bundle, registry
    from feedrank.models.items.item_model import ItemSettings, fit_item_views
    from feedrank.models.items.user_histories import UserHistories

    catalogue = Catalogue.from_items({f"i{n}": {"title": f"thing {n}"} for n in range(40)})
    text = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    nothing = np.zeros(0, np.int64)
    touches = UserHistories.plain(np.zeros(1, np.int64), nothing.astype(np.int32), np.zeros(0), np.zeros(0), nothing)
    terms = TermWeights.fit(catalogue.documents())
    knowledge = fit_item_views(catalogue, text, terms, touches, ItemSettings(cooccurrence_rank=2, transition_rank=2))
    builder = FeatureBuilder(knowledge, StateSpec())
    Path(folder).mkdir(parents=True, exist_ok=True)
    print("ready", flush=True)
    for step in count():
        name = f"b{number}-{step}"
        index = {"metric": "dot", "trees": 2, "search_k_factor": 2, "seed": 1}
        bundle.save(Path(folder), name, bundle.BundleParts(builder), index, {})
        registry.promote(Path(folder), name)


if __name__ == "__main__":
    from benchmarks.bars import measure

    measure("kills", kills)
