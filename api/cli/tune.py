"""Implement `feedrank tune`: search the ranker's hyper-parameters on the validation slice."""

from __future__ import annotations

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, steps, texts
from feedrank.api.config import Config
from feedrank.api.home import Home


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="Time limit: no trial starts after it.")  # fmt: skip
@click.option("--trials", default=None, type=click.IntRange(min=1), help="Maximum number of trials in this session.")
@click.pass_obj
def tune(obj: tuple[Home, Config], minutes: float, trials: int | None) -> None:
    """Search LightGBM's parameters on the validation slice with Optuna.

    The first trial uses the current parameters, so the best is never worse on that slice. Trials are stored in
    HOME/tuning.db: called again on the same journal, the search resumes, even after it was killed. The best parameters
    are written to HOME/tuned.toml for `feedrank train --tuned` and `feedrank retrain --tuned`. The retraining gate
    measures on independent test data whether they help.
    """
    from feedrank.api import compose
    from feedrank.models.atomic_files import written_aside
    from feedrank.models.training import tuning

    home, config = obj
    with command_errors():
        with steps() as show, config.training.store() as store:
            inputs = compose.material(home, config, texts(show))
            prepared = compose.prepare(inputs, config, store, show)

            def report_trial(done: int, best: float) -> None:
                show(f"trials: {done}, best so far {best:.4f}", 0, 0)

            tuned = tuning.tune(prepared, home.tuning, minutes, trials, report_trial)
        with written_aside(home.tuned) as temporary:
            temporary.write_text(tuning.as_toml(tuned))
    table = Table("parameter", "best", title=f"{tuned.trials} trials")
    for name, value in tuned.parameters.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    click.echo(
        f"validation: {tuned.value:.4f}, with the previous parameters {tuned.usual:.4f} (the search used this"
        f" slice, so the value is optimistic)\nwritten to {home.tuned}; use it with `feedrank retrain --tuned`"
    )
