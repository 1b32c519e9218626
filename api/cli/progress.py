"""Show progress bars and one-line errors in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from feedrank.api.bundle_names import timestamped_name as timestamped_name
from feedrank.api.cli.exit_codes import EXIT_BUSY
from feedrank.api.progress import ShowProgress as ShowProgress
from feedrank.api.progress import embedding_progress as embedding_progress
from feedrank.api.progress import progress_bars as progress_bars
from feedrank.api.training_lock import TrainingBusyError
from feedrank.api.validation_errors import first_error
from feedrank.models.training.position_bias import PositionBias

if TYPE_CHECKING:
    from feedrank.models.training.shuffled_check import ShuffledCheck

console = Console(markup=False, emoji=False, highlight=False)  # print titles verbatim, with their brackets


PIPE_WIDTH = 140
"""Width of a wide table, in characters, where the output is not a terminal."""


class _Busy(click.ClickException):
    exit_code = EXIT_BUSY


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn errors that a user can fix into one line and an exit code; other errors keep their traceback.

    The exit code is 1, or 5 if another training is running.
    """
    try:
        yield
    except TrainingBusyError as problem:
        raise _Busy(str(problem)) from problem
    except ValidationError as problem:
        raise click.ClickException("{}: {}".format(*first_error(problem))) from problem
    except (ValueError, RuntimeError, OSError, ImportError, SQLAlchemyError) as problem:
        raise click.ClickException(str(problem).partition("\n[SQL")[0]) from problem


def print_notes(notes: Sequence[str], warnings: Sequence[str] = ()) -> None:
    """Print what was done with a log and its labels; and to stderr, what is wrong with its ranker."""
    for line in notes:
        click.echo(f"note: {line}")
    for line in warnings:
        click.echo(f"warning: {line}", err=True)


def print_shuffled(shuffled: ShuffledCheck | None) -> None:
    """Print to stderr whether shuffled labels leak; None: the log is too short for the check."""
    click.echo("too few groups to check shuffled labels" if shuffled is None else shuffled.sentence(), err=True)


def print_table(table: Table) -> None:
    """Print a table; where the output is not a terminal, wide enough for most rows."""
    wide = Console(markup=False, emoji=False, highlight=False, width=max(console.width, PIPE_WIDTH))
    (console if console.is_terminal else wide).print(table)


def position_bias_table(bias: PositionBias, max_rows: int = 20) -> Table:
    """Build a table of the position-bias curve: examination propensity per position, relative to the first."""
    table = Table("position", "relative to the first", "", title="learned position bias")
    for position, propensity in zip(
        bias.positions[:max_rows].tolist(), bias.propensities[:max_rows].tolist(), strict=True
    ):
        table.add_row(str(position), f"{propensity:.3f}", "█" * round(min(propensity, 1) * 30))
    return table
