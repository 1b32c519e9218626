"""`feedrank tune`: hyper-parameters of the ranker, searched on the validation slice."""

from __future__ import annotations

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps, texts
from api.config import Config
from api.home import Home


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="No trial begins after this long.")  # fmt: skip
@click.option("--trials", default=None, type=click.IntRange(min=1), help="End after so many trials of this session.")
@click.pass_obj
def tune(obj: tuple[Home, Config], minutes: float, trials: int | None) -> None:
    """Search LightGBM's parameters on the validation slice, by Optuna.

    The first trial is what is used today, so the best is never worse on that slice. Trials are kept in HOME/tuning.db:
    called again on the same journal, the search goes on, also after it was killed. The best parameters go to
    HOME/tuned.toml; `feedrank train --tuned` and `feedrank retrain --tuned` use them, and the gate of retraining says
    whether they are worth it on data that chose nothing.
    """
    from api import compose
    from models import tuning
    from models.files import written_aside

    home, config = obj
    with command_errors():
        with steps() as show, config.training.store() as store:
            made = compose.material(home, config, texts(show))
            prepared = compose.prepare(made, config, store, show)

            def told(done: int, best: float) -> None:
                show(f"trials: {done}, best so far {best:.4f}", 0, 0)

            tuned = tuning.tune(prepared, home.tuning, minutes, trials, told)
        with written_aside(home.tuned) as aside:
            aside.write_text(tuning.as_toml(tuned))
    table = Table("parameter", "best", title=f"{tuned.trials} trials")
    for name, value in tuned.parameters.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    click.echo(
        f"validation: {tuned.value:.4f}, with the parameters before {tuned.usual:.4f} (chosen on that slice, so it"
        f" flatters)\nwritten to {home.tuned}; use it with `feedrank retrain --tuned`"
    )
