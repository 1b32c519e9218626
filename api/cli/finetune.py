"""`feedrank finetune` and `feedrank distill`: text models of one's own, from pairs in a file or in the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from api.cli.screen import Show, command_errors, console, stamp, steps, texts
from api.config import Config
from api.home import Home
from engine.events import parse_timestamp
from models.finetune.finetuning import KINDS, LOSSES
from models.text.weights import DEFAULT_EMBEDDER

if TYPE_CHECKING:
    from models.finetune.finetuning import Learnt
    from models.finetune.pairs import PairGroups

CONFIG_KEYS = {
    "bi-encoder": "embedder",
    "dpr": "embedder",
    "colbert": "late_interaction",
    "cross-encoder": "cross_encoder",
    "student": "cross_encoder",
}
"""Kind -> the section of the config that names a model of it."""
Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_SOURCE = _options(
    click.option("--pairs", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
                 help="JSONL, CSV or TSV of queries and texts, plain, .gz or .zst; by default the journal."),
    click.option("--query-column", default="query", show_default=True, help="The column of the query in --pairs."),
    click.option("--text-column", default="text", show_default=True, help="The column of the candidate text."),
    click.option("--label-column", default="label", show_default=True,
                 help="The column that says how well the text answers, 0 or more; where there is none, all do."),
    click.option("--mine", type=click.IntRange(min=0), default=None,
                 help="Texts of other queries that each query is given as wrong answers, half of them by BM25; by"
                      " default 8 where the file says only what answers."),
    click.option("--most", type=click.IntRange(min=2), default=20_000, show_default=True,
                 help="The latest groups of the journal that are taken."),
    click.option("--until", default=None,
                 help="Only what the journal knew before then: epoch milliseconds, or ISO-8601 with a zone. Rankers are"
                      " to be trained and judged on what came later."),
)  # fmt: skip
_PACE = _options(
    click.option("--out", type=click.Path(path_type=Path), default=None,
                 help="Folder of the model; by default HOME/models/NAME, with a name made of kind and time. Name it to"
                      " be able to go on with a run that was broken off."),
    click.option("--epochs", type=click.IntRange(min=1), default=None, help="Passes over the groups."),
    click.option("--batch-size", type=click.IntRange(min=1), default=None, help="Queries a step."),
    click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=None,
                 help="The highest; it rises to it, and falls to nothing."),
    click.option("--max-tokens", type=click.IntRange(min=0), default=None, help="Tokens read of a text; 0: all."),
    click.option("--patience", type=click.IntRange(min=1), default=None,
                 help="Evaluations without a better value before training stops."),
    click.option("--evaluations", type=click.IntRange(min=1), default=None, help="Evaluations an epoch."),
    click.option("--validation-share", type=click.FloatRange(0, 1, True, True), default=None,
                 help="Share of the queries that is held out."),
    click.option("--bfloat16", is_flag=True, default=None, help="Half the bytes; for GPUs and processors that can."),
    click.option("--seed", type=int, default=None, help="The same seed, data and settings give the same model."),
    click.option("--minutes", type=click.FloatRange(min=0), default=None,
                 help="End after this long with what is best so far; the same command goes on."),
)  # fmt: skip


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@_SOURCE
@click.option("--base", multiple=True, help="Name or folder of the model to begin with; by default the embedder's. For"
              " dpr, give it twice for two towers that begin apart: queries, documents.")  # fmt: skip
@click.option("--revision", default=None, help="Of the base model on the hub.")
@_PACE
@click.option("--negatives", type=click.IntRange(min=0), default=None, help="Wrong texts beside each that answers.")
@click.option("--head-learning-rate", type=click.FloatRange(min=0), default=None,
              help="Of a cross-encoder's new last layer.")  # fmt: skip
@click.option("--loss", type=click.Choice(LOSSES), default=None,
              help="Of a cross-encoder.")  # fmt: skip
@click.pass_obj
def finetune(
    obj: tuple[Home, Config], /, kind: str, path: Path | None, query_column: str, text_column: str, label_column: str,
    mine: int | None, most: int, until: str | None, base: tuple[str, ...], revision: str | None, out: Path | None,
    **given: Any,
) -> None:  # fmt: skip
    """Train a text model on pairs: bi-encoder, dpr (two towers), colbert or cross-encoder.

    Without --pairs the click log is learnt from: the request's query, or the latest titles of its person, against what
    was shown and clicked or passed over; where it has too few rankings, against what recall finds. A share of the
    queries is held out, training stops when they are ordered no better, and the best checkpoint is kept. What the model
    was made of is written to feedrank.json in its folder.
    """
    from models.finetune import finetuning, model_folder

    home, config = obj
    with command_errors():
        settings = finetuning.settings_for(kind, **given)
        finetuning.check_libraries()
        out = out or home.folder / "models" / stamp(kind)
        model_folder.check_free(out)
        with steps() as show:
            columns = {"query": query_column, "text": text_column, "label": label_column}
            groups, trained_on = _groups(home, config, path, columns, mine, most, until, settings.seed, show)
            learnt = finetuning.finetune(
                kind, groups, out, settings, base or (_usual_base(config),),
                revision if base else config.embedder.revision, trained_on, show,
            )  # fmt: skip
    _print(kind, learnt)


@click.command()
@click.argument("teacher")
@_SOURCE
@_PACE
@click.option("--layers", type=click.IntRange(min=1), default=None, help="Layers of the student.")
@click.option("--width", type=click.IntRange(min=1), default=None, help="Numbers in its hidden state.")
@click.option("--heads", type=click.IntRange(min=1), default=None, help="Attention heads of a layer.")
@click.option("--neurons", type=click.IntRange(min=1), default=None, help="Of the feed-forward part of a layer.")
@click.option("--further", type=click.IntRange(min=0), default=None,
              help="Texts of other queries that the teacher scores too, for each query.")  # fmt: skip
@click.option("--made-up", type=click.FloatRange(min=0), default=None,
              help="Queries made of the texts' own words, as a share of those that were asked.")  # fmt: skip
@click.pass_obj
def distill(
    obj: tuple[Home, Config], /, teacher: str, path: Path | None, query_column: str, text_column: str,
    label_column: str, mine: int | None, most: int, until: str | None, out: Path | None, layers: int | None,
    width: int | None, heads: int | None, neurons: int | None, **given: Any,
) -> None:  # fmt: skip
    """Train a small cross-encoder to score as the TEACHER does, a cross-encoder's folder or name.

    It begins as a projection of the teacher, and learns from the teacher's scores and hidden states and, a little, from
    the labels of the pairs. The teacher reads all of them once; what it made of them is kept beside the checkpoints
    until training is over.
    """
    from models.finetune import distillation, finetuning, model_folder

    home, config = obj
    shape = {"layers": layers, "width": width, "heads": heads, "neurons": neurons}
    with command_errors():
        finetuning.check_libraries()
        settings = distillation.DistillSettings(
            shape=distillation.Shape(**{key: value for key, value in shape.items() if value is not None}),
            **{key: value for key, value in given.items() if value is not None},
        )
        out = out or home.folder / "models" / stamp("student")
        model_folder.check_free(out)
        with steps() as show:
            columns = {"query": query_column, "text": text_column, "label": label_column}
            groups, trained_on = _groups(home, config, path, columns, mine, most, until, settings.seed, show)
            learnt = distillation.distill(teacher, groups, out, settings, trained_on, show)
    _print("student", learnt)


def _groups(
    home: Home, config: Config, path: Path | None, columns: Mapping[str, str], mine: int | None, most: int,
    until: str | None, seed: int, show: Show,
) -> tuple[PairGroups, dict[str, Any]]:  # fmt: skip
    """The groups of a file or of the journal, and what a model's card says of them."""
    from models.finetune.pairs import with_hard_negatives

    if path is not None and until is not None:
        raise ValueError("--until is of the journal, and --pairs is in its place: give one of them")
    if path is not None:
        from models.files import digest
        from models.finetune.pairs_file import Columns, read

        show("reading the pairs", 0, 0)
        groups = read(path, Columns(**columns))
        about: dict[str, Any] = {"file": path.name, "sha256": digest(path)}
    else:
        from api import compose
        from models.finetune.log_pairs import from_log

        moment = None if until is None else parse_timestamp(until, "--until") / 1000
        made = compose.material(home, config, texts(show), until=moment)
        documents = made.corpus.catalogue.documents(config.embedder.document)
        groups = from_log(made.corpus, made.log, documents, config.settings, most, show)
        about = {"journal": dict(made.window)}
    if mine is None:
        mine = 0 if groups.judged.any() else 8
    if mine:
        show("wrong answers by BM25", 0, 0)
        groups = with_hard_negatives(groups, mine, seed)
    return groups, about


def _print(kind: str, learnt: Learnt) -> None:
    groups = learnt.card["groups"]
    title = f"{groups['validation']:,} held-out groups ({groups['training']:,} to learn from)"
    table = Table("metric", "before", "after", title=title)
    for metric, after in learnt.after.items():
        table.add_row(metric, f"{learnt.before[metric]:.4f}", f"{after:.4f}")
    for metric, value in learnt.card.get("teacher", {}).items():
        table.add_row(f"{metric} of the teacher", "", f"{value:.4f}")
    console.print(table)
    if learnt.after["mrr"] < learnt.before["mrr"]:
        click.echo("the held-out groups were ordered better before: give more pairs, or a lower --learning-rate")
    if not learnt.finished:
        click.echo("time was up before the end: the same command, with the same --out, goes on")
    folder = learnt.folder.resolve()
    click.echo(f'written to {folder}; use it with\n\n[{CONFIG_KEYS[kind]}]\nmodel = "{folder}"')


def _usual_base(config: Config) -> str:
    """What the embedder is, or the default where there is none."""
    return DEFAULT_EMBEDDER if config.embedder.model == "none" else config.embedder.model
