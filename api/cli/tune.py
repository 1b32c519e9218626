"""Implement `feedrank tune`: search the ranker's hyper-parameters on the validation slice."""

from __future__ import annotations

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, embedding_progress, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="Time limit: no trial starts after it.")  # fmt: skip
@click.option("--trials", default=None, type=click.IntRange(min=1), help="Maximum number of trials in this session.")
@click.pass_obj
def tune(obj: tuple[HomePaths, Config], minutes: float, trials: int | None) -> None:
    """Search LightGBM's parameters on the validation slice with Optuna.

    The first trial uses the current parameters, so the best is never worse on that slice. Trials are stored in
    HOME/tuning.db: called again on the same journal, the search resumes, even after it was killed. The best parameters
    are written to HOME/tuned.toml for `feedrank train --tuned` and `feedrank retrain --tuned`. The retraining gate
    measures on independent test data whether they help.
    """
    from feedrank.api import compose
    from feedrank.models.atomic_files import atomic_write
    from feedrank.models.training import tuning

    home, config = obj
    with command_errors():
        with progress_bars() as show, config.training.matrix_store() as store:
            inputs = compose.load_training_inputs(home, config, embedding_progress(show))
            prepared = compose.prepare_training_data(inputs, config, store, show)

            def report_trial(done: int, best: float) -> None:
                show(f"trials: {done}, best so far {best:.4f}", 0, 0)

            tuned = tuning.tune(prepared, home.tuning_trials, minutes, trials, report_trial)
        with atomic_write(home.tuned_config) as temporary:
            temporary.write_text(tuning.as_toml(tuned))
    for note in prepared.notes:
        click.echo(f"note: {note}")
    table = Table("parameter", "best", title=f"{tuned.trials} trials")
    for name, value in tuned.parameters.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    click.echo(
        f"validation: {tuned.best_value:.4f}, with the previous parameters {tuned.baseline_value:.4f}"
        " (the search used this"
        f" slice, so the value is optimistic)\nwritten to {home.tuned_config}; use it with `feedrank retrain --tuned`"
    )
