"""`feedrank evaluate`: the ranker beside simpler orders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps, texts
from api.config import Config
from api.home import Home


@click.command()
@click.option("--protocol", "protocols", multiple=True, type=click.Choice(["last-item", "temporal", "rankings"]),
              help="What is held out; by default those that fit the journal. May be given more than once.")  # fmt: skip
@click.option("--dataset", default="journal", show_default=True, help="The name that rows and plots carry.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG here.")
@click.option("--trec", "trec_folder", type=click.Path(file_okay=False, path_type=Path),
              help="Write TREC run and qrels files to this folder.")  # fmt: skip
@click.option("--ablate", is_flag=True, help="Also say what each signal group adds, and what it costs.")
@click.pass_obj
def evaluate(
    obj: tuple[Home, Config],
    protocols: tuple[str, ...],
    dataset: str,
    json_path: Path | None,
    plot_path: Path | None,
    trec_folder: Path | None,
    ablate: bool,
) -> None:
    """Compare the ranker with recall order, text similarity, popularity and chance, on data that none has learnt from.

    Trains anew on the part of the journal before the test slice; the current bundle is not touched. Intervals are 95 %
    bootstrap intervals of the mean over test groups.
    """
    from api import compose
    from models import evaluation, report, trec

    home, config = obj
    rows: list[report.Row] = []
    costs: dict[str, Any] = {}
    with command_errors():
        with steps() as show:
            made = compose.material(home, config, texts(show))
        for protocol in protocols or evaluation.protocols_for(made.log, config.settings):
            started = time.perf_counter()
            name = dataset if protocol != "temporal" else f"{dataset} (temporal)"
            with steps() as show:
                compared = evaluation.PROTOCOLS[protocol](made.corpus, made.log, name, config.settings, show)
            rows += compared.rows
            costs[f"{name}: seconds"] = round(time.perf_counter() - started, 1)
            costs[f"{name}: groups"] = compared.trained.counts
            console.print(report.table(list(compared.rows), "lambdarank"))
            gain = compared.gain
            click.echo(
                f"nDCG@10 of lambdarank over recall order: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
                f" ({protocol}, {gain.groups:,} test groups)"
            )
            if plot_path:
                report.plot(plot_path, list(compared.rows), "lambdarank")
                plot_path = None  # the first protocol's alone
            if trec_folder:
                for method, run in evaluation.runs(made.corpus, compared).items():
                    trec.write_run(trec_folder / f"{protocol}.{method}.run", run, method)
                trec.write_qrels(trec_folder / f"{protocol}.qrels", compared.targets)
            del compared  # before the next one is trained
            if ablate and protocol != "temporal":
                costs[f"{name}: ablation"] = _ablated(made, protocol, config)
        if json_path:
            report.write_json(json_path, rows, costs)
            click.echo(f"rows written to {json_path}")


def _ablated(made: Any, protocol: str, config: Config) -> dict[str, Any]:
    """Print what each signal group adds; the same as JSON-ready rows."""
    from models import ablation

    metric = "auc" if protocol == "rankings" else "ndcg@10"
    with steps() as show:
        found = ablation.ablate(made.corpus, made.log, protocol, config.settings, metric, show)
    table = Table("without", "features", found.metric, "what it adds", "95 % interval",
                  title=f"{found.metric} with all signals {found.value:.4f}; {found.groups:,} test groups")  # fmt: skip
    for row in found.rows:
        gain = row.gain
        interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
        table.add_row(row.signal, str(row.features), f"{row.value:.4f}", f"{gain.mean:+.4f}", interval)
    console.print(table)
    costly = sorted(found.costs.items(), key=lambda pair: -pair[1])
    click.echo("milliseconds a request, in bulk: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costly))
    rows = [
        {"signal": row.signal, "features": row.features, "without": row.value, "adds": row.gain.mean,
         "low": row.gain.low, "high": row.gain.high}
        for row in found.rows
    ]  # fmt: skip
    return {"metric": found.metric, "all": found.value, "groups": found.groups, "rows": rows, "ms": dict(costly)}
