"""Run all parts, or those that are named in FEEDRANK_FAULTS, such as FEEDRANK_FAULTS=poison,disk."""

from __future__ import annotations

import importlib
import os

from benchmarks.bars import Bar, console, measure

PARTS = ("poison", "event_order", "callers", "disk", "clocks", "start_stop")
"""Modules of this package, each with a function `bars() -> list[Bar]`."""


def faults() -> list[Bar]:
    """Run the parts in order; return their bars."""
    chosen = os.environ.get("FEEDRANK_FAULTS", ",".join(PARTS)).split(",")
    bars: list[Bar] = []
    for part in chosen:
        console.print(f"[bold]{part}[/]")
        bars += importlib.import_module(f"benchmarks.faults.{part}").bars()
    return bars


if __name__ == "__main__":
    measure("faults", faults)
