"""Define the `feedrank` command and register its subcommands, one module per topic."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from feedrank import __version__
from feedrank.api.cli.bundles import bundles
from feedrank.api.cli.config import config
from feedrank.api.cli.evaluation import evaluate
from feedrank.api.cli.experiment_planning import experiment, power, simulate
from feedrank.api.cli.feature_pruning import prune
from feedrank.api.cli.feature_suggestion import suggest
from feedrank.api.cli.features import features
from feedrank.api.cli.feeds import recommend, serve
from feedrank.api.cli.finetune import distill, finetune
from feedrank.api.cli.import_ import import_events
from feedrank.api.cli.import_config import import_config
from feedrank.api.cli.journal import forget, journal, purge, snapshot
from feedrank.api.cli.journal_copies import backup, restore
from feedrank.api.cli.keys import keys
from feedrank.api.cli.off_policy import ope
from feedrank.api.cli.progress import command_errors
from feedrank.api.cli.retrain import retrain
from feedrank.api.cli.training import index, train
from feedrank.api.cli.tune import tune
from feedrank.api.config import Config
from feedrank.api.config import load_config as load_config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.private_files import use_private_umask


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--home", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), envvar="FEEDRANK_HOME",
    show_default=True, show_envvar=True,
    help="Folder of the journal, bundles and caches; `feedrank import` creates it.",
)  # fmt: skip
@click.option(
    "--config", "config_path", type=click.Path(dir_okay=False, path_type=Path), default=None, envvar="FEEDRANK_CONFIG",
    show_envvar=True, help="TOML config file; by default HOME/feedrank.toml if it exists.",
)  # fmt: skip
@click.version_option(__version__, prog_name="feedrank")
@click.pass_context
def main(context: click.Context, folder: Path, config_path: Path | None) -> None:
    """Serve recommendation feeds: embedding recall through Annoy, features, LightGBM LambdaRank.

    \b
    Steps from a click log to a feed:
      feedrank import movielens-100k  load a catalogue and a click log into the journal
      feedrank evaluate               compare the ranker with baselines on held-out data
      feedrank train                  train a ranker on the whole journal and make it the current bundle
      feedrank recommend --user 42    print one feed
      feedrank serve                  serve feeds over HTTP
    """
    use_private_umask()
    home = HomePaths(folder, config_path)
    if context.invoked_subcommand in (config.name, import_config.name):  # they help with a file that can't be loaded
        context.obj = (home, Config())
        return
    with command_errors():
        context.obj = (home, load_config(home.config))


COMMANDS = (
    import_events, import_config, index, train, evaluate, recommend, serve, retrain, tune, finetune, distill, features,
    bundles, experiment, ope, keys, config, snapshot, purge, forget, journal,
)  # fmt: skip
WITHOUT_HOME = (import_events, import_config, restore, config, features, power, simulate)
"""Commands that create the home, or need none. All others refuse a folder that does not exist: it may be a typo."""


def _require_home(command: click.Command) -> None:
    """Let a command and those below it refuse a home that does not exist."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _require_home(below)
    elif command not in WITHOUT_HOME and (callback := command.callback) is not None:

        @functools.wraps(callback)
        def checked(*arguments: Any, **options: Any) -> Any:
            home, _ = click.get_current_context().obj
            with command_errors():
                home.check_exists()
            return callback(*arguments, **options)

        command.callback = checked


def _name_help_options(command: click.Command) -> None:
    """Give a command and those below it the group's names of the help option, however it is invoked first.

    Click caches the option at its first use, so a command that is invoked without the group would never know -h.
    """
    command.context_settings.setdefault("help_option_names", main.context_settings["help_option_names"])
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _name_help_options(below)


journal.add_command(backup)
journal.add_command(restore)
features.add_command(suggest)
features.add_command(prune)
for command in COMMANDS:
    main.add_command(command)
    _require_home(command)
    _name_help_options(command)
main.add_command(import_events, "data")  # alias
