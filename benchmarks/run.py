"""All benchmarks, one after the other; results under benchmarks/results."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.bars import PROJECT

NAMES = ("house", "quality", "replay", "relevance", "service", "experiments", "truth")

if __name__ == "__main__":
    for name in NAMES:
        result = PROJECT / "benchmarks" / "results" / f"{name}.json"
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(result)], cwd=PROJECT, check=True)
