"""A measured value beside its bar: printed as a table, written as JSON with machine and date."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from feedrank.models.atomic_files import atomic_write

PROJECT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FEEDRANK_DATA", PROJECT.parent / "shared" / "data"))
console = Console()


@dataclass(frozen=True, slots=True)
class Bar:
    """What was measured, and what was asked for."""

    what: str
    value: float
    unit: str
    bar: float
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        """Whether the value reaches the bar."""
        return bool(self.value >= self.bar if self.better == "higher" else self.value <= self.bar)


def measure(name: str, benchmark: Callable[[], Sequence[Bar]]) -> None:
    """Run a benchmark from the command line: print its table and, with --json, write its rows."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    bars = benchmark()
    console.print(table(name, bars))
    if arguments.json:
        write(arguments.json, bars)


def table(name: str, bars: Sequence[Bar]) -> Table:
    """What, measured, bar, met."""
    drawn = Table("what", "measured", "bar", "met", title=f"benchmarks.{name}")
    for bar in bars:
        sign = ">=" if bar.better == "higher" else "<="
        met = "[green]yes[/]" if bar.met else "[red]no[/]"
        drawn.add_row(bar.what, f"{bar.value:.4g} {bar.unit}", f"{sign} {bar.bar:g} {bar.unit}", met)
    return drawn


def write(path: Path, bars: Sequence[Bar]) -> None:
    """The rows, with machine and date."""
    body = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}",
        "rows": [{**asdict(bar), "value": float(bar.value), "met": bar.met} for bar in bars],
    }
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(body, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
