"""Show the progress of long work as bars on stderr, one per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

ShowProgress = Callable[[str, int, int], None]
"""Called with (label, steps done, total steps or 0 if unknown)."""


@contextmanager
def progress_bars(enabled: bool = True) -> Iterator[ShowProgress]:
    """Show progress bars, one per task; they stay visible when the task is done. enabled: False shows nothing."""
    if not enabled:
        yield lambda what, done, total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            key = what.split(":")[0]
            if key not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=1, total=1)
                tasks[key] = progress.add_task(what, total=total or None)
            progress.update(tasks[key], description=what, completed=done, total=total or None)

        yield show
        for task in tasks.values():
            progress.update(task, completed=1, total=1)


def embedding_progress(progress: ShowProgress) -> Callable[[int, int], None]:
    """Return a progress callback for an embedder."""
    return lambda done, total: progress("texts embedded", done, total)
