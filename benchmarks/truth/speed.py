"""Speed beside that of the code before types, times and ids meant anything: import, training matrix, state kernel.

Both versions run on this machine in turn, each in processes of its own with one thread. The code before is taken from
the repository's history.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console

BEFORE = "13fc963"
"""The commit to compare with."""
RUNS = 3
ROWS = 200_000
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def bars() -> list[Bar]:
    """One bar a speed: the median of this version over the median of the version before."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        archive = subprocess.run(["git", "archive", BEFORE], cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder / "before", filter="data")
        sources = {"before": folder / "before" / "src", "now": PROJECT / "src"}
        write_files(folder)
        homes = {}
        for version, source in sources.items():
            homes[version] = folder / f"{version}-movielens"
            for command in (["import", "movielens-100k"], ["index"]):
                run_cli(source, homes[version], command)
        probes = {
            "import of 200,000 interactions, CSV": "imported({folder!r}, 'clicks.csv')",
            "import of 200,000 interactions, JSONL": "imported({folder!r}, 'clicks.jsonl')",
            "training matrix, rows a second": "benchmarks.replay.rows({home!r})",
            "state kernel, interactions a second": "benchmarks.replay.kernel()",
        }
        found = []
        for name, probe in probes.items():
            speeds: dict[str, list[float]] = {version: [] for version in sources}
            for _ in range(RUNS):
                for version, source in sources.items():
                    call = probe.format(folder=str(folder), home=str(homes[version]))
                    speeds[version].append(measured(call, source))
            medians = {version: float(np.median(values)) for version, values in speeds.items()}
            console.print(f"[dim]{name}: {medians['now']:,.0f} now, {medians['before']:,.0f} before[/]")
            ratio = medians["now"] / medians["before"]
            found.append(Bar(f"{name}: ratio to the code before", ratio, "x", 0.9, "higher"))
    return found


def write_files(folder: Path) -> None:
    """Write the same interactions as CSV and as JSONL."""
    random = np.random.default_rng(0)
    users, items = random.integers(0, 20_000, ROWS).tolist(), (random.zipf(1.3, ROWS) % 5_000).tolist()
    entries = [(f"c{n}", 1_750_000_000_000 + n * 50, f"u{users[n]}", f"i{items[n]}") for n in range(ROWS)]
    with (folder / "clicks.csv").open("w") as out:
        out.write("id,timestamp,user,item,type\n")
        out.writelines(f"{key},{at},{user},{item},click\n" for key, at, user, item in entries)
    with (folder / "clicks.jsonl").open("w") as out:
        out.writelines(
            f'{{"event": "interaction", "id": "{key}", "timestamp": {at}, "user": "{user}", "item": "{item}",'
            f' "type": "click"}}\n'
            for key, at, user, item in entries
        )


def imported(folder: str, name: str) -> float:
    """Rows a second of the import command, with its start."""
    import feedrank

    source = Path(str(feedrank.__file__)).parents[1]
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        run_cli(source, Path(home), ["import", str(Path(folder) / name)])
        return ROWS / (time.perf_counter() - started)


def measured(call: str, source: Path) -> float:
    """Return the value of a function, in a process of its own that imports feedrank from `source`.

    It is one of this module, or of a benchmark of that version.
    """
    is_of_version = call.startswith("benchmarks.")
    module = ".".join(call.split("(")[0].split(".")[:-1]) if is_of_version else "benchmarks.truth.speed"
    script = f"import {module}; print('value', {call if is_of_version else f'{module}.{call}'})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source.parent if is_of_version else PROJECT,
        env=os.environ | ONE_CORE | {"PYTHONPATH": str(source)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.rpartition("value ")[2])


def run_cli(source: Path, home: Path, command: list[str]) -> None:
    """Run a command of feedrank from `source`."""
    environment = os.environ | ONE_CORE | {"PYTHONPATH": str(source)}
    full = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command]
    subprocess.run(full, cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL)
