"""Show progress bars and one-line errors in the terminal."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from feedrank.api.validation_errors import first_error
from feedrank.models.training.position_bias import PositionBias

ShowProgress = Callable[[str, int, int], None]
"""Called with (label, steps done, total steps or 0 if unknown)."""

console = Console(markup=False, emoji=False, highlight=False)  # print titles verbatim, with their brackets


@contextmanager
def progress_bars() -> Iterator[ShowProgress]:
    """Show progress bars, one per task; they stay visible when the task is done."""
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


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn errors that a user can fix into one line and exit code 1; other errors keep their traceback."""
    try:
        yield
    except ValidationError as problem:
        raise click.ClickException("{}: {}".format(*first_error(problem))) from problem
    except (ValueError, RuntimeError, OSError, ImportError, SQLAlchemyError) as problem:
        raise click.ClickException(str(problem).partition("\n[SQL")[0]) from problem


def timestamped_name(prefix: str) -> str:
    """Build a unique name from a prefix, the UTC time and a random suffix."""
    return time.strftime(f"{prefix}-%Y%m%d-%H%M%S", time.gmtime()) + f"-{uuid.uuid4().hex[:4]}"


def position_bias_table(bias: PositionBias, max_rows: int = 20) -> Table:
    """Build a table of the position-bias curve: examination propensity per position, relative to the first."""
    table = Table("position", "relative to the first", "", title="learned position bias")
    for position, propensity in zip(
        bias.positions[:max_rows].tolist(), bias.propensities[:max_rows].tolist(), strict=True
    ):
        table.add_row(str(position), f"{propensity:.3f}", "█" * round(min(propensity, 1) * 30))
    return table
