"""Read files that are laid out as the exports of their sources, without being told the format."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.bars import Bar, console
from benchmarks.truth.exports import EXPORTS


def bars() -> list[Bar]:
    """Import each export; one is right if its format is guessed and no event or part of one differs."""
    right = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, export in enumerate(EXPORTS):
            try:
                faults = export.faults(export.write(Path(folder) / str(number)))
            except (ValueError, OSError) as problem:
                faults = [str(problem)]
            right += not faults
            for fault in faults:
                console.print(f"{export.name}: {fault}", markup=False)
    return [Bar("formats laid out as their source's export, read right", right, "exports", len(EXPORTS), "higher")]
