"""What a server on a home takes: the figures of docs/how-to/operate.md. `python -m benchmarks.sizing HOME`"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from rich.table import Table

from benchmarks.bars import console
from benchmarks.serving import children, feeds, memory, serving
from feedrank.models.bundles import registry

FEEDS, SECONDS = 50, 20


def sizing(home: Path) -> Table:
    """On a copy of the home, which is served twice: the second start finds a snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "home"
        shutil.copytree(home, copy, symlinks=True)
        current = registry.current_name(copy / "bundles")
        if current is None:
            raise SystemExit(f"there is no bundle in {home}; make one with `feedrank train`")
        megabytes = registry.bundle_size(copy / "bundles" / current) / 1e6
        with serving(copy, settle=False):
            pass
        started = time.perf_counter()
        with serving(copy, settle=False) as (port, parent):
            start = time.perf_counter() - started
            before = _bytes(copy)
            found = feeds(port, FEEDS, SECONDS)
            workers = children(parent)
            parts = [memory([pid]) for pid in (parent, *workers)]
            grown = _bytes(copy) - before
    table = Table("bundle", "start", "memory, first process", "each more", "journal, a ranking of 10")
    table.add_row(
        f"{megabytes:.0f} MB", f"{start:.1f} s", f"{parts[0]:.0f} MB", f"{sum(parts[1:]) / len(workers):.0f} MB",
        f"{grown / len(found.status) / 1000:.1f} KB",
    )  # fmt: skip
    return table


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("journal.db*"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing")
    parser.add_argument("home", type=Path)
    console.print(sizing(parser.parse_args().home))
