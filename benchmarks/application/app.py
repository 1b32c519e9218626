"""An application whose modules are called as feedrank's folders are; it uses feedrank's library, client and CLI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow

import api
import engine
import features
import feedrank
import models

COLOURS = ("red", "green")


def frames() -> tuple[pyarrow.Table, pyarrow.Table]:
    """Items of two colours, and users who each click items of one colour, one after the other."""
    items = [{"item": f"{colour}-{n}", "title": f"a {colour} thing {n}", "category": colour}
             for colour in COLOURS for n in range(12)]  # fmt: skip
    clicks = [
        {"user": f"u{user}", "item": f"{COLOURS[user % 2]}-{(user // 2 + step) % 12}", "type": "click",
         "timestamp": 1_700_000_000_000 + (step * 24 + user) * 60_000}
        for step in range(7) for user in range(24)
    ]  # fmt: skip
    return pyarrow.Table.from_pylist(items), pyarrow.Table.from_pylist(clicks)


def run(*command: str) -> str:
    """Run a command; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def main(folder: Path) -> None:
    """Use the library, the client and the command line beside the application's own modules."""
    for own in (api, engine, features, models):
        assert own.OWNER == "application", own
    folder.mkdir()
    (folder / "feedrank.toml").write_text(
        '[embedder]\nmodel = "none"\n[training]\nfolds = 2\nmin_history = 3\n'
        "[ranker]\nrounds = 10\n[ranker.parameters]\nmin_data_in_leaf = 2\n"
    )
    items, clicks = frames()
    home = feedrank.Home(folder)
    home.load(items=items, interactions=clicks)
    home.train()
    feed = home.recommender().recommend(user="u0", n=3)
    assert len(feed.ids) == 3, feed
    assert issubclass(feedrank.Client, object)
    assert feedrank.__version__ in run("feedrank", "--version")
    for command in (["feedrank"], [sys.executable, "-m", "feedrank.api.cli"]):
        printed = json.loads(run(*command, "--home", str(folder), "recommend", "--user", "u0", "--json"))
        assert printed["items"], printed
    print(f"feedrank {feedrank.__version__} from {feedrank.__file__}: {feed.ids}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
