"""Implement `feedrank import-config`: turn the config of Metarank into a feedrank.toml."""

from __future__ import annotations

from pathlib import Path

import click

from feedrank.api.cli.exit_codes import EXIT_INCOMPLETE
from feedrank.api.cli.progress import command_errors
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.metarank.config_import import import_metarank
from feedrank.models.atomic_files import atomic_write

STDOUT = "-"


@click.command("import-config")
@click.argument("source", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--output", default=None, help="File to write; - prints it. By default HOME/feedrank.toml.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--model", default=None, help="The lambdamart model that becomes the ranker, if the file has several.")
@click.option("--skip-unsupported", is_flag=True, help="Write the rest although a part has no counterpart.")
@click.pass_obj
def import_config(
    obj: tuple[HomePaths, Config], source: Path, output: str | None, force: bool, model: str | None,
    skip_unsupported: bool,
) -> None:  # fmt: skip
    """Turn the config file SOURCE of Metarank (YAML) into a feedrank.toml.

    Features become declared features; models become labels, settings of the ranker, text models and half-lives. What
    has no counterpart is an error that says what to use instead: all of them are printed, and nothing is written.

    Exit codes: 0 written, 1 nothing is written, 2 wrong arguments, 6 written without the parts that have no
    counterpart (only with --skip-unsupported).
    """
    home, _ = obj
    target = home.folder / "feedrank.toml" if output is None else Path(output)
    with command_errors():
        if output != STDOUT and target.exists() and not force:
            raise ValueError(f"{target} exists; give --force to overwrite it, or another file with --output")
        imported = import_metarank(source, model)
    for note in imported.report.notes:
        click.echo(f"note: {note}", err=True)
    problems = imported.report.problems
    for problem in problems:
        click.echo(f"no counterpart: {problem}", err=True)
    if problems and not skip_unsupported:
        raise click.ClickException(
            f"{len(problems)} part{'s' * (len(problems) != 1)} of {source} without a counterpart, nothing is written; "
            "change them, or leave them out with --skip-unsupported"
        )
    if output == STDOUT:
        click.echo(imported.text, nl=False)
    else:
        with command_errors(), atomic_write(target) as temporary:
            temporary.write_text(imported.text, encoding="utf-8")
        click.echo(f"{target}: {len(imported.names)} features became {imported.declared} declared features")
    if problems:
        raise SystemExit(EXIT_INCOMPLETE)
