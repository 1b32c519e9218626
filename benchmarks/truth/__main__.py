"""Run all parts, or those that are named in FEEDRANK_TRUTH, such as FEEDRANK_TRUTH=grades,languages."""

from __future__ import annotations

import importlib
import os

from benchmarks.bars import Bar, console, measure

PARTS = ("interaction_types", "leakage", "import_files", "formats", "grades", "catalogues", "languages", "speed")
"""Modules of this package, each with a function `bars() -> list[Bar]`."""


def truth() -> list[Bar]:
    """Run the parts in order; return their bars."""
    chosen = os.environ.get("FEEDRANK_TRUTH", ",".join(PARTS)).split(",")
    bars: list[Bar] = []
    for part in chosen:
        console.print(f"[bold]{part}[/]")
        bars += importlib.import_module(f"benchmarks.truth.{part}").bars()
    return bars


if __name__ == "__main__":
    measure("truth", truth)
