"""Runs the parts of a benchmark that is a package: all of them, or those that an environment variable names."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from benchmarks.bars import Bar, console, measure


def measure_parts(name: str, parts: Sequence[str]) -> None:
    """Run the modules of `benchmarks.NAME` in order; each has a function `bars() -> list[Bar]`.

    FEEDRANK_NAME, in capitals, chooses some of them, such as FEEDRANK_FAULTS=poison,disk.
    """

    def run() -> list[Bar]:
        chosen = os.environ.get(f"FEEDRANK_{name.upper()}", ",".join(parts)).split(",")
        bars: list[Bar] = []
        for part in chosen:
            console.print(f"[bold]{part}[/]")
            bars += importlib.import_module(f"benchmarks.{name}.{part}").bars()
        return bars

    measure(name, run)
