"""Implement `feedrank finetune` and `feedrank distill`: train text models on a file or on the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from feedrank.api.cli.progress import (
    ShowProgress,
    command_errors,
    console,
    embedding_progress,
    progress_bars,
    timestamped_name,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.engine.events.codec import parse_timestamp
from feedrank.models.finetune.finetune_settings import LOSSES, MODEL_TYPE_NAMES, settings_for
from feedrank.models.text.model_weights import DEFAULT_EMBEDDER

if TYPE_CHECKING:
    from feedrank.models.finetune.finetuning import FinetuneResult
    from feedrank.models.finetune.samples import QueryTextGroups

CONFIG_SECTIONS = {
    "bi-encoder": "embedder",
    "dpr": "embedder",
    "colbert": "late_interaction",
    "cross-encoder": "cross_encoder",
    "student": "cross_encoder",
}
"""Model type -> the config section where such a model is set."""
Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@dataclass(frozen=True, slots=True)
class SampleSource:
    """The options of the data to train on."""

    path: Path | None
    """A file of queries and texts; None: the journal."""
    query_column: str
    text_column: str
    label_column: str
    hard_negatives: int | None
    max_groups: int
    until: str | None


_SAMPLE_OPTIONS = _options(
    click.option("--pairs", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
                 help="JSONL, CSV or TSV file of queries and texts, plain, .gz or .zst; by default the journal."),
    click.option("--query-column", default="query", show_default=True, help="Query column in --pairs."),
    click.option("--text-column", default="text", show_default=True, help="Candidate text column in --pairs."),
    click.option("--label-column", default="label", show_default=True,
                 help="Relevance column, 0 or more; without it all texts are positives."),
    click.option("--hard-negatives", type=click.IntRange(min=0), default=None,
                 help="Negatives to add per query from texts of other queries, half of them by BM25; by default 8"
                      " if the data has only positives."),
    click.option("--max-groups", type=click.IntRange(min=2), default=20_000, show_default=True,
                 help="Maximum number of groups from the journal; the latest are used."),
    click.option("--until", default=None,
                 help="Use only journal events before this time: epoch milliseconds, or ISO-8601 with a zone. Train and"
                      " evaluate rankers on later events."),
)  # fmt: skip


def _data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the data, which the command gets as one `source`."""

    @wraps(command)
    def with_source(*arguments: Any, **options: Any) -> None:
        source = SampleSource(**{field.name: options.pop(field.name) for field in fields(SampleSource)})
        command(*arguments, source=source, **options)

    return _SAMPLE_OPTIONS(with_source)


_TRAINER_OPTIONS = _options(
    click.option("--out", type=click.Path(path_type=Path), default=None,
                 help="Folder of the model; by default HOME/models/NAME, where NAME is the model type and the time."
                      " Set it to be able to resume an interrupted run."),
    click.option("--epochs", type=click.IntRange(min=1), default=None, help="Passes over the training groups."),
    click.option("--batch-size", type=click.IntRange(min=1), default=None, help="Queries per step."),
    click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=None,
                 help="Peak learning rate, after warm-up; it decays to 0."),
    click.option("--max-tokens", type=click.IntRange(min=0), default=None,
                 help="Maximum tokens per text; 0: the model's limit."),
    click.option("--patience", type=click.IntRange(min=1), default=None,
                 help="Evaluations without a better validation metric before training stops."),
    click.option("--evaluations", type=click.IntRange(min=1), default=None, help="Evaluations per epoch."),
    click.option("--validation-share", type=click.FloatRange(0, 1, True, True), default=None,
                 help="Share of the queries held out for validation."),
    click.option("--bfloat16", is_flag=True, default=None, help="Train in bfloat16; needs hardware support."),
    click.option("--seed", type=int, default=None,
                 help="Random seed; the same seed, data and settings give the same model."),
    click.option("--minutes", type=click.FloatRange(min=0), default=None,
                 help="Time limit: save the best model so far; the same command resumes."),
)  # fmt: skip


@click.command()
@click.argument("model_type", type=click.Choice(MODEL_TYPE_NAMES))
@_data_options
@click.option("--base", multiple=True, help="Name or folder of the base model; by default the embedder. For dpr, give"
              " it twice to start from two towers: queries, documents.")  # fmt: skip
@click.option("--revision", default=None, help="Revision of the base model on the hub.")
@_TRAINER_OPTIONS
@click.option(
    "--negatives",
    type=click.IntRange(min=0),
    default=None,
    help="Negatives per positive; for a cross-encoder, per query.",
)
@click.option("--head-learning-rate", type=click.FloatRange(min=0), default=None,
              help="Learning rate of a cross-encoder's new classification head.")  # fmt: skip
@click.option("--loss", type=click.Choice(LOSSES), default=None,
              help="Loss of a cross-encoder.")  # fmt: skip
@click.pass_obj
def finetune(
    obj: tuple[HomePaths, Config],
    /,
    model_type: str,
    source: SampleSource,
    base: tuple[str, ...],
    revision: str | None,
    out: Path | None,
    **overrides: Any,
) -> None:
    """Fine-tune a text model: bi-encoder, dpr (two towers), colbert or cross-encoder.

    Without --pairs it trains on the click log. The query is the request's query or the user's latest titles; the texts
    are clicked and skipped items, or recall candidates if the log has too few rankings. A share of the queries is held
    out for early stopping, and the best checkpoint is kept. The model card is written to feedrank.json in its folder.
    """
    from feedrank.models.finetune import finetuning, model_folder

    home, config = obj
    with command_errors():
        settings = settings_for(model_type, **overrides)
        finetuning.check_libraries()
        out = out or home.folder / "models" / timestamped_name(model_type)
        model_folder.check_output_folder(out)
        with progress_bars() as show:
            groups, trained_on = _load_groups(home, config, source, settings.seed, show)
            models = finetuning.BaseModels(
                base or (_default_base(config),), revision if base else config.embedder.revision
            )
            result = finetuning.finetune(model_type, groups, out, settings, models, trained_on, show)
    _print_result(model_type, result)


@click.command()
@click.argument("teacher")
@_data_options
@_TRAINER_OPTIONS
@click.option("--layers", type=click.IntRange(min=1), default=None, help="Number of the student's layers.")
@click.option("--hidden-size", type=click.IntRange(min=1), default=None, help="Size of the student's hidden state.")
@click.option("--heads", type=click.IntRange(min=1), default=None, help="Attention heads per layer.")
@click.option(
    "--intermediate-size", type=click.IntRange(min=1), default=None, help="Size of a layer's feed-forward part."
)
@click.option("--extra-negatives", type=click.IntRange(min=0), default=None,
              help="Extra texts of other queries that the teacher scores, per query.")  # fmt: skip
@click.option("--synthetic-queries", type=click.FloatRange(min=0), default=None,
              help="Ratio of synthetic queries, built from the texts' words, to real ones.")  # fmt: skip
@click.pass_obj
def distill(
    obj: tuple[HomePaths, Config],
    /,
    teacher: str,
    source: SampleSource,
    out: Path | None,
    layers: int | None,
    hidden_size: int | None,
    heads: int | None,
    intermediate_size: int | None,
    **overrides: Any,
) -> None:
    """Distill the cross-encoder TEACHER (folder or name) into a small cross-encoder.

    The student is initialised as a projection of the teacher. It learns from the teacher's scores and hidden states,
    and with a small weight from the labels. The teacher scores all pairs once; its outputs are stored next to the
    checkpoints until training ends.
    """
    from feedrank.models.finetune import distillation, finetuning, model_folder
    from feedrank.models.finetune.distillation_settings import DistillSettings, StudentConfig

    home, config = obj
    sizes = {"layers": layers, "hidden_size": hidden_size, "heads": heads, "intermediate_size": intermediate_size}
    with command_errors():
        finetuning.check_libraries()
        settings = DistillSettings(
            student_config=StudentConfig(**{key: value for key, value in sizes.items() if value is not None}),
            **{key: value for key, value in overrides.items() if value is not None},
        )
        out = out or home.folder / "models" / timestamped_name("student")
        model_folder.check_output_folder(out)
        with progress_bars() as show:
            groups, trained_on = _load_groups(home, config, source, settings.seed, show)
            result = distillation.distill(teacher, groups, out, settings, trained_on, show)
    _print_result("student", result)


def _load_groups(
    home: HomePaths, config: Config, source: SampleSource, seed: int, progress: ShowProgress
) -> tuple[QueryTextGroups, dict[str, Any]]:
    """Load training groups from a file or the journal, with a description of the data for the model card."""
    from feedrank.models.finetune.samples import with_hard_negatives

    path, until, hard_negatives = source.path, source.until, source.hard_negatives
    if path is not None and until is not None:
        raise ValueError("found both --until and --pairs; --until applies to the journal only, so give one of them")
    if path is not None:
        from feedrank.models.atomic_files import digest
        from feedrank.models.finetune.samples_file import ColumnNames, read_samples

        progress("reading the samples file", 0, 0)
        groups = read_samples(path, ColumnNames(source.query_column, source.text_column, source.label_column))
        trained_on: dict[str, Any] = {"file": path.name, "sha256": digest(path)}
    else:
        from feedrank.api import compose
        from feedrank.models.finetune.log_samples import from_log

        until_s = None if until is None else parse_timestamp(until, "--until") / 1000
        inputs = compose.load_training_inputs(home, config, embedding_progress(progress), until=until_s)
        documents = inputs.item_inputs.catalogue.documents(config.embedder.document)
        groups = from_log(
            inputs.item_inputs, inputs.log, documents, config.training_settings, source.max_groups, progress
        )
        trained_on = {"journal": dict(inputs.window)}
    if hard_negatives is None:
        hard_negatives = 0 if groups.evaluable.any() else 8
    if hard_negatives:
        progress("BM25 hard negatives", 0, 0)
        groups = with_hard_negatives(groups, hard_negatives, seed)
    return groups, trained_on


def _print_result(model_type: str, result: FinetuneResult) -> None:
    groups = result.card["groups"]
    title = f"{groups['validation']:,} validation groups, {groups['training']:,} training groups"
    table = Table("metric", "before", "after", title=title)
    for metric, after in result.metrics_after.items():
        table.add_row(metric, f"{result.metrics_before[metric]:.4f}", f"{after:.4f}")
    for metric, value in result.card.get("teacher", {}).items():
        table.add_row(f"{metric} of the teacher", "", f"{value:.4f}")
    console.print(table)
    if result.metrics_after["mrr"] < result.metrics_before["mrr"]:
        click.echo("the validation MRR is lower than before training: use more data or a lower --learning-rate")
    if not result.finished:
        click.echo("the time limit was reached: run the same command with the same --out to resume")
    folder = result.folder.resolve()
    click.echo(f'written to {folder}; use it with\n\n[{CONFIG_SECTIONS[model_type]}]\nmodel = "{folder}"')


def _default_base(config: Config) -> str:
    """Return the configured embedder, or the default embedder if there is none."""
    return DEFAULT_EMBEDDER if config.embedder.model == "none" else config.embedder.model
