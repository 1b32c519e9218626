"""The commands of `feedrank`. Each does one step of the way from a click log to a feed."""

from __future__ import annotations

import json
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from api.cli.screen import command_errors, console, steps, texts
from api.config import Config
from api.config import load as load_config
from api.home import Home

MOVIELENS = "movielens-100k"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--home", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), envvar="FEEDRANK_HOME",
    show_default=True, show_envvar=True, help="Folder of the journal, the bundles and the caches.",
)  # fmt: skip
@click.option(
    "--config", "config_path", type=click.Path(dir_okay=False, path_type=Path), default=None, envvar="FEEDRANK_CONFIG",
    show_envvar=True, help="TOML file of settings; HOME/feedrank.toml where it is there.",
)  # fmt: skip
@click.version_option(package_name="feedrank", prog_name="feedrank")
@click.pass_context
def main(context: click.Context, folder: Path, config_path: Path | None) -> None:
    """Recommendation feeds: embedding recall through Annoy, features, LightGBM LambdaRank.

    \b
    The way from a click log to a feed:
      feedrank data movielens-100k    load a catalogue and a click log into the journal
      feedrank evaluate               compare the ranker with simpler orders, on data it has not seen
      feedrank train                  train a ranker on the whole journal and make it the current bundle
      feedrank recommend --user 42    one feed
      feedrank serve                  the same over HTTP
    """
    home = Home(folder)
    with command_errors():
        context.obj = (home, load_config(config_path or home.config))


@main.command()
@click.argument("source")
@click.option("--format", "kind", default=None, help="jsonl, csv, parquet, movielens or mind; by default guessed.")
@click.option("--strict", is_flag=True, help="Stop at the first line that can't be read.")
@click.pass_obj
def data(obj: tuple[Home, Config], source: str, kind: str | None, strict: bool) -> None:
    """Load items and events from SOURCE into the journal.

    SOURCE is a file or a folder: JSONL (plain, .gz, .zst), CSV, Parquet, MovieLens, MIND; or the word movielens-100k,
    which fetches that data set through the package index. Loading the same events twice counts them once. Lines that
    can't be read are counted, and kept with line number and reason in HOME/rejects.jsonl.
    """
    from api.readers import Rejects, read
    from api.readers.fetch import fetch_movielens_100k

    home, _ = obj
    with command_errors():
        if source == MOVIELENS and not Path(source).exists():
            path = fetch_movielens_100k(home.downloads, click.echo)
        else:
            path = Path(source)
        journal = home.journal()
        with Rejects(home.rejects, strict=strict) as rejects, steps() as show:
            total = new = 0
            chunk: list[Any] = []
            for event in read(path, rejects, kind):
                chunk.append(event)
                if len(chunk) == 20_000:
                    new += sum(journal.append(chunk))
                    total += len(chunk)
                    chunk = []
                    show(f"events read: {total:,}", 0, 0)
            new += sum(journal.append(chunk))
            total += len(chunk)
        table = Table(title=f"{source} -> {home.journal_path}", show_header=False)
        for name, count in sorted(journal.counts().items()):
            table.add_row(f"{name} events in the journal", f"{count:,}")
        table.add_row("events new to it", f"{new:,} of {total:,}")
        table.add_row("lines rejected", f"{rejects.rejected:,}")
        for reason, count in list(rejects.summary()["reasons"].items())[:10]:
            table.add_row(f"  {reason}", f"{count:,}")
        console.print(table)
        if rejects.rejected:
            click.echo(f"rejected lines are in {home.rejects}, each with its line number and reason")


@main.command()
@click.option("--name", default=None, help="Name of the bundle; by default made of the time.")
@click.pass_obj
def index(obj: tuple[Home, Config], name: str | None) -> None:
    """Embed the items, factorise behaviour, build the Annoy index; feeds then come in recall order.

    Items whose text has not changed are not embedded again. `feedrank train` makes its own index, so this is for a
    feed without a trained ranker.
    """
    from api import compose

    home, config = obj
    name = name or _stamp("index")
    with command_errors(), steps() as show:
        compose.check_name(home, name)
        made = compose.material(home, config, texts(show))
        show("behavioural views and index", 0, 0)
        compose.save(home, config, name, compose.index_only(made, config), None, {})
    click.echo(f"current bundle: {home.current.resolve()} (recall order; `feedrank train` adds the ranker)")


@main.command()
@click.option("--name", default=None, help="Name of the bundle; by default made of the time.")
@click.pass_obj
def train(obj: tuple[Home, Config], name: str | None) -> None:
    """Train a LambdaRank ranker on the whole journal, and make it the current bundle.

    Where the journal has enough rankings with clicks they are the training groups, and the latest tenth of them stops
    training early; where it has not, groups are what recall finds just before each person's latest touches, and a slice
    of people stops it early.
    """
    from api import compose

    home, config = obj
    started = time.perf_counter()
    name = name or _stamp("lambdarank")
    with command_errors(), steps() as show:
        compose.check_name(home, name)
        made = compose.material(home, config, texts(show))
        trained = compose.train(made, config, show)
        show("writing the bundle", 0, 0)
        seconds = round(time.perf_counter() - started, 1)
        about = {"groups": trained.counts, "trees": trained.ranker.trees, "seconds": seconds}
        compose.save(home, config, name, trained.builder, trained.ranker, about)
    best = sorted(trained.ranker.importance().items(), key=lambda pair: -pair[1])[:10]
    table = Table("feature", "share of gain", title=f"{trained.ranker.trees} trees; what they use most")
    for feature, share in best:
        table.add_row(feature, f"{share:.1%}")
    console.print(table)
    groups = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in trained.counts.items())
    click.echo(f"groups: {groups}\ncurrent bundle: {home.current.resolve()}")


@main.command()
@click.option("--protocol", "protocols", multiple=True, type=click.Choice(["last-item", "temporal", "rankings"]),
              help="What is held out; by default those that fit the journal. May be given more than once.")  # fmt: skip
@click.option("--dataset", default="journal", show_default=True, help="The name that rows and plots carry.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG here.")
@click.option("--trec", "trec_folder", type=click.Path(file_okay=False, path_type=Path),
              help="Write TREC run and qrels files to this folder.")  # fmt: skip
@click.pass_obj
def evaluate(
    obj: tuple[Home, Config],
    protocols: tuple[str, ...],
    dataset: str,
    json_path: Path | None,
    plot_path: Path | None,
    trec_folder: Path | None,
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
        if json_path:
            report.write_json(json_path, rows, costs)
            click.echo(f"rows written to {json_path}")


@main.command()
@click.option("--user", default=None, help="Whose feed; a stranger gets a popular one.")
@click.option("--query", default="", help="A text that the feed should answer.")
@click.option("--history", default=None, help="Item ids, latest first, separated by commas; instead of what is known.")
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many items.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as the HTTP endpoint gives it.")
@click.pass_obj
def recommend(
    obj: tuple[Home, Config], user: str | None, query: str, history: str | None, count: int, as_json: bool
) -> None:
    """Print one feed. It is written to the journal like any other."""
    from api import compose
    from api.schemas import RecommendBody, feed_body

    home, config = obj
    with command_errors():
        past = None if history is None else [item.strip() for item in history.split(",") if item.strip()]
        asked = RecommendBody(user=user, query=query, history=past, n=count)
        recommender = compose.recommender(home, config)
        event = recommender.recommend(str(uuid.uuid4()), time.time(), asked.user, asked.query, asked.history, asked.n)
    if as_json:
        click.echo(json.dumps(feed_body(event), indent=1))
        return
    if not event.items:
        click.echo("the feed is empty: there is no item that was not touched before")
        return
    catalogue = recommender.catalogue
    table = Table("", "item", "title", "categories", "score", title=f"feed of {user or 'a stranger'}")
    for place, (item, score) in enumerate(zip(event.items, event.extra["scores"], strict=True), 1):
        row = catalogue.ids.row(item)
        table.add_row(str(place), item, catalogue.titles[row], ", ".join(catalogue.category_names(row)), f"{score:.3f}")
    console.print(table)


@main.command()
@click.option("--host", default=None, help="Address to listen on; by default that of the config, 127.0.0.1.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="Port; by default that of the config, 8080.")
@click.pass_obj
def serve(obj: tuple[Home, Config], host: str | None, port: int | None) -> None:
    """Serve feeds over HTTP until interrupted."""
    from waitress import create_server

    from api import compose
    from api.app import create_app

    home, config = obj
    with command_errors():
        recommender = compose.recommender(home, config)
        app = create_app(recommender)
        try:
            server = create_server(
                app, host=host or config.serve.host, port=config.serve.port if port is None else port,
                threads=config.serve.threads, ident="feedrank",
            )  # fmt: skip
        except (OSError, ValueError) as problem:
            wanted = f"{host or config.serve.host}:{config.serve.port if port is None else port}"
            raise ValueError(f"can't listen on {wanted}: {problem}; choose another --host or --port") from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    click.echo(
        f"bundle {recommender.pipeline.bundle}, {len(recommender.catalogue):,} items; "
        f"listening on {' and '.join(_addresses(server))} (Ctrl-C stops)"
    )
    server.run()
    click.echo("stopped")


def _stop(number: int, _: object) -> None:
    """End the server's loop, which then waits for the requests under way."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise SystemExit


def _addresses(server: Any) -> list[str]:
    """The URLs that a server listens on: a name such as localhost can stand for several addresses."""
    one = hasattr(server, "effective_port")
    sockets = [(server.effective_host, server.effective_port)] if one else server.effective_listen
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host, port in sockets]


def _stamp(kind: str) -> str:
    return time.strftime(f"{kind}-%Y%m%d-%H%M%S", time.gmtime()) + f"-{uuid.uuid4().hex[:4]}"
