"""Implement `feedrank evaluate`: compare the ranker with baselines on held-out data."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from feedrank.api.cli.progress import (
    command_errors,
    console,
    embedding_progress,
    print_notes,
    print_shuffled,
    print_table,
    progress_bars,
)
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.api.compose import TrainingInputs
    from feedrank.models.evaluation.evaluation import Comparison


def parse_gain(context: click.Context, option: click.Parameter, value: str | None) -> dict[str, Any]:
    """Parse a gain into keys of `LabelSettings`; none without a value. Raises BadParameter for what is no gain."""
    if value is None:
        return {}
    if value in ("linear", "exponential"):
        return {"gain": value, "gains": ()}
    try:
        return {"gains": tuple(float(part) for part in value.split(","))}
    except ValueError:
        raise click.BadParameter(f"found {value!r}; expected linear, exponential or numbers such as 0,1,5,20") from None


@click.command()
@click.option("--protocol", "protocols", multiple=True, type=click.Choice(["last-item", "temporal", "rankings"]),
              help="How test data is held out; by default all protocols that fit the journal. Repeatable.")  # fmt: skip
@click.option("--dataset", default="journal", show_default=True, help="Data set name in rows and plots.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result rows to this JSON file.",
)
@click.option(
    "--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a plot to this PNG file."
)
@click.option("--trec", "trec_folder", type=click.Path(file_okay=False, path_type=Path),
              help="Write TREC run and qrels files to this folder.")  # fmt: skip
@click.option("--gain", callback=parse_gain, metavar="[linear|exponential|0,GAIN,GAIN...]",
              help="Gain of a label in nDCG, in training and in the test: the label, 2^label - 1, or one for each label"
              " from 0 on; by default labels.gain of the config.")  # fmt: skip
@click.option("--relevance-level", type=click.IntRange(1, 30),
              help="Lowest label that is relevant to MRR, MAP, HR, recall and AUC; by default labels.relevance_level of"
              " the config.")  # fmt: skip
@click.option("--ablate", is_flag=True,
              help="Also measure the gain and the cost of each group of features: signals, your own families, declared"
              " features by field, and each alone.")  # fmt: skip
@click.option("--max-trainings", type=click.IntRange(min=3), default=40, show_default=True,
              help="Rankers that --ablate trains; declared features of the least gain are left out.")  # fmt: skip
@click.pass_obj
def evaluate(
    obj: tuple[HomePaths, Config],
    protocols: tuple[str, ...],
    dataset: str,
    json_path: Path | None,
    plot_path: Path | None,
    trec_folder: Path | None,
    gain: dict[str, Any],
    relevance_level: int | None,
    ablate: bool,
    max_trainings: int,
) -> None:
    """Compare the ranker with recall order, text similarity, popularity and random order on held-out data.

    Trains a new ranker on the journal before the test slice; the current bundle is unchanged. Intervals are 95 %
    bootstrap intervals of the mean over test groups. Equal scores are in descending order of item ids, as in trec_eval.

    It stops if clicks that were shuffled within their rankings can be predicted, and warns of a single feature that
    ranks too well: both are signs that features see their own labels.
    """
    from feedrank.api import compose
    from feedrank.models.evaluation import evaluation, report, trec
    from feedrank.models.training.folds import TooLittleDataError

    home, config = obj
    rows: list[report.Row] = []
    costs: dict[str, Any] = {}
    level: dict[str, Any] = {} if relevance_level is None else {"relevance_level": relevance_level}
    with command_errors():
        config = replace(config, labels=replace(config.labels, **gain, **level))
        with progress_bars() as show:
            inputs = compose.load_training_inputs(home, config, embedding_progress(show))
            chosen = compose.protocols_of(inputs, config, protocols)
            show("shuffled labels", 0, 0)
            shuffled = compose.check_shuffled_labels(inputs, config)
        print_notes(inputs.notes)
        print_shuffled(shuffled)
        for number, protocol in enumerate(chosen):
            try:
                with progress_bars() as show:
                    timed = compose.compare(inputs, config, protocol, dataset, show, is_first=not number)
            except TooLittleDataError as problem:
                if protocols or not rows:
                    raise
                click.echo(f"note: the protocol {protocol} does not fit: {problem}")
                continue
            compared, name = timed.comparison, timed.dataset
            rows += compared.rows
            costs[f"{name}: seconds"] = timed.seconds
            costs[f"{name}: groups"] = compared.trained.counts
            costs[f"{name}: labels"] = _label_report(compared)
            costs[f"{name}: checks"] = timed.checks()
            console.print(report.table(list(compared.rows), "lambdarank"))
            lift = compared.gain
            click.echo(
                f"nDCG@10 gain of lambdarank over recall order: {lift.mean:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]"
                f" ({protocol}, {lift.groups:,} test groups)"
            )
            print_notes((*compared.trained.notes, *compared.notes), compared.trained.warnings)
            if plot_path:
                report.plot(plot_path, list(compared.rows), "lambdarank")
                plot_path = None  # plot only the first protocol
            if trec_folder:
                for method, run in evaluation.trec_runs(inputs.item_inputs, compared).items():
                    trec.write_run(trec_folder / f"{protocol}.{method}.run", run, method)
                trec.write_qrels(trec_folder / f"{protocol}.qrels", compared.qrels)
            metric = "ndcg@10" if protocol != "rankings" or compared.highest_label > 1 else "auc"
            del compared, timed  # free the memory before the next training
            if ablate and protocol != "temporal":
                costs[f"{name}: ablation"] = _ablation(inputs, protocol, config, metric, max_trainings)
        costs["checks"] = {
            "notes": list(inputs.notes), "shuffled_labels": None if shuffled is None else asdict(shuffled)
        }  # fmt: skip
        costs["log"] = {name: inputs.window[name] for name in ("moved_interactions", "future_events")}
        if json_path:
            report.write_json(json_path, rows, costs)
            click.echo(f"rows written to {json_path}")


def _label_report(compared: Comparison) -> dict[str, Any]:
    """Return what a label is worth in these metrics, and what was done with the labels; print the worth of grades."""
    gain = compared.labels.label_gain
    shown_gain = gain if isinstance(gain, str) else list(gain)
    if compared.highest_label > 1:
        click.echo(
            f"labels up to {compared.highest_label}; nDCG with the gain {shown_gain}; other metrics: relevant from "
            f"label {compared.labels.relevance_level} on"
        )
    return {
        "highest": compared.highest_label,
        "gain": shown_gain,
        "relevance_level": compared.labels.relevance_level,
        "notes": [*compared.trained.notes, *compared.notes],
    }


def _ablation(
    inputs: TrainingInputs, protocol: str, config: Config, metric: str, max_trainings: int
) -> dict[str, Any]:  # fmt: skip
    """Run an ablation, print the gain of each group of features, and return JSON-ready rows."""
    from feedrank.models.evaluation import ablation

    settings = config.training_settings
    with progress_bars() as show:
        result = ablation.ablate(inputs.item_inputs, inputs.log, protocol, settings, metric, show, max_trainings)
    table = Table("without", "", "features", result.metric, "gain", "95 % interval", "",
                  title=f"{result.metric} with all features {result.value:.4f}; {result.groups:,} groups")  # fmt: skip
    for row in result.rows:
        gain = row.gain
        interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
        is_clear = abs(gain.mean) > abs(result.noise.mean)
        verdict = "pays" if gain.low > 0 and is_clear else "harms" if gain.high < 0 and is_clear else "within noise"
        table.add_row(
            row.signal, row.kind, str(row.features), f"{row.value:.4f}", f"{gain.mean:+.4f}", interval, verdict
        )
    print_table(table)
    costs = sorted(result.costs.items(), key=lambda item: -item[1])
    click.echo("milliseconds per request, in batches: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costs))
    noise = result.noise
    click.echo(
        f"all features with another seed: {noise.mean:+.4f} [{noise.low:+.4f}, {noise.high:+.4f}]; smaller gains are"
        f" noise of the training\n{len(result.rows) + 2} trainings in {result.seconds:.0f} s"
    )
    if result.not_measured:
        named = ", ".join(result.not_measured)
        click.echo(f"not measured, beyond --max-trainings {max_trainings}: {named}")
    rows = [
        {"signal": row.signal, "kind": row.kind, "features": row.features, "without": row.value,
         "gain": row.gain.mean, "low": row.gain.low, "high": row.gain.high}
        for row in result.rows
    ]  # fmt: skip
    return {
        "metric": result.metric, "all": result.value, "groups": result.groups, "rows": rows, "ms": dict(costs),
        "noise": result.noise.mean, "seconds": result.seconds, "not_measured": list(result.not_measured),
    }  # fmt: skip
