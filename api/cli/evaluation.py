"""Implement `feedrank evaluate`: compare the ranker with baselines on held-out data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from feedrank.api.cli.progress import command_errors, console, embedding_progress, progress_bars
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths

if TYPE_CHECKING:
    from feedrank.api.compose import TrainingInputs


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
@click.option("--ablate", is_flag=True, help="Also measure the gain and the cost of each signal group.")
@click.pass_obj
def evaluate(
    obj: tuple[HomePaths, Config],
    protocols: tuple[str, ...],
    dataset: str,
    json_path: Path | None,
    plot_path: Path | None,
    trec_folder: Path | None,
    ablate: bool,
) -> None:
    """Compare the ranker with recall order, text similarity, popularity and random order on held-out data.

    Trains a new ranker on the journal before the test slice; the current bundle is unchanged. Intervals are 95 %
    bootstrap intervals of the mean over test groups.
    """
    from feedrank.api import compose
    from feedrank.models.evaluation import evaluation, report, trec

    home, config = obj
    rows: list[report.Row] = []
    costs: dict[str, Any] = {}
    with command_errors():
        with progress_bars() as show:
            inputs = compose.load_training_inputs(home, config, embedding_progress(show))
        for protocol in compose.protocols_of(inputs, config, protocols):
            try:
                with progress_bars() as show:
                    timed = compose.compare(inputs, config, protocol, dataset, show)
            except ValueError as problem:
                if protocols or not rows:
                    raise
                click.echo(f"note: the protocol {protocol} does not fit: {problem}")
                continue
            compared, name = timed.comparison, timed.dataset
            rows += compared.rows
            costs[f"{name}: seconds"] = timed.seconds
            costs[f"{name}: groups"] = compared.trained.counts
            console.print(report.table(list(compared.rows), "lambdarank"))
            for note in compared.trained.notes:
                click.echo(f"note: {note}")
            gain = compared.gain
            click.echo(
                f"nDCG@10 gain of lambdarank over recall order: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
                f" ({protocol}, {gain.groups:,} test groups)"
            )
            if plot_path:
                report.plot(plot_path, list(compared.rows), "lambdarank")
                plot_path = None  # plot only the first protocol
            if trec_folder:
                for method, run in evaluation.trec_runs(inputs.item_inputs, compared).items():
                    trec.write_run(trec_folder / f"{protocol}.{method}.run", run, method)
                trec.write_qrels(trec_folder / f"{protocol}.qrels", compared.qrels)
            del compared, timed  # free the memory before the next training
            if ablate and protocol != "temporal":
                costs[f"{name}: ablation"] = _ablation(inputs, protocol, config)
        if json_path:
            report.write_json(json_path, rows, costs)
            click.echo(f"rows written to {json_path}")


def _ablation(inputs: TrainingInputs, protocol: str, config: Config) -> dict[str, Any]:
    """Run an ablation, print the gain of each signal group, and return JSON-ready rows."""
    from feedrank.models.evaluation import ablation

    metric = "auc" if protocol == "rankings" else "ndcg@10"
    with progress_bars() as show:
        result = ablation.ablate(inputs.item_inputs, inputs.log, protocol, config.training_settings, metric, show)
    table = Table("without", "features", result.metric, "gain", "95 % interval",
                  title=f"{result.metric} with all signals {result.value:.4f}; {result.groups:,} groups")  # fmt: skip
    for row in result.rows:
        gain = row.gain
        interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
        table.add_row(row.signal, str(row.features), f"{row.value:.4f}", f"{gain.mean:+.4f}", interval)
    console.print(table)
    costs = sorted(result.costs.items(), key=lambda item: -item[1])
    click.echo("milliseconds per request, in batches: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costs))
    rows = [
        {"signal": row.signal, "features": row.features, "without": row.value, "gain": row.gain.mean,
         "low": row.gain.low, "high": row.gain.high}
        for row in result.rows
    ]  # fmt: skip
    return {"metric": result.metric, "all": result.value, "groups": result.groups, "rows": rows, "ms": dict(costs)}
