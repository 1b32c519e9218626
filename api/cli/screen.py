"""What the terminal shows: progress of long work, and errors in one line."""

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

from api.schemas import explained
from models.bias import PositionBias

Show = Callable[[str, int, int], None]
"""Called with (what is done, steps done, steps in all; 0 where nobody knows)."""

console = Console(markup=False, emoji=False, highlight=False)  # titles are shown as they are, brackets and all


@contextmanager
def steps() -> Iterator[Show]:
    """Progress lines, one a kind of work; they stay when it is done."""
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


def texts(show: Show) -> Callable[[int, int], None]:
    """Progress of an embedder."""
    return lambda done, total: show("texts embedded", done, total)


@contextmanager
def command_errors() -> Iterator[None]:
    """What a user can mend becomes one line and exit code 1; anything else keeps its traceback."""
    try:
        yield
    except ValidationError as problem:
        raise click.ClickException("{}: {}".format(*explained(problem))) from problem
    except (ValueError, RuntimeError, OSError, ImportError, SQLAlchemyError) as problem:
        raise click.ClickException(str(problem).partition("\n[SQL")[0]) from problem


def stamp(kind: str) -> str:
    """A bundle name made of the time."""
    return time.strftime(f"{kind}-%Y%m%d-%H%M%S", time.gmtime()) + f"-{uuid.uuid4().hex[:4]}"


def bias_table(bias: PositionBias, most: int = 20) -> Table:
    """The learnt position-bias curve: how much more often an item is answered for standing where it does."""
    table = Table("place", "relative to the first", "", title="position bias, as learnt")
    for place, share in zip(bias.positions[:most].tolist(), bias.propensities[:most].tolist(), strict=True):
        table.add_row(str(place), f"{share:.3f}", "█" * round(min(share, 1) * 30))
    return table
