"""The installed wheel at work, from an empty folder: load, train, recommend, serve one request. Run as a script.

It needs the wheel with its `offline` extra and nothing else: no checkout, no development tools, no network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

GENRES = {
    "space": ["rocket", "orbit", "planet", "astronaut", "comet", "galaxy", "moon", "telescope", "nebula", "satellite"],
    "kitchen": ["bread", "soup", "butter", "garlic", "onion", "oven", "recipe", "pepper", "flour", "salad"],
}
CONFIG = """
[items]
transition_rank = 8
cooccurrence_rank = 4
[training]
folds = 2
targets_per_user = 2
min_history = 2
[ranker]
rounds = 10
[ranker.parameters]
min_data_in_leaf = 2
"""
START = 1_700_000_000_000
WALK = 6
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def say(text: str) -> None:
    """Print one line about a finished step."""
    print(f"smoke: {text}", flush=True)


def from_the_wheel() -> None:
    """Check that all packages come from installed wheels, not from a source folder."""
    for package in ("feedrank", "feedrank.engine", "feedrank.features", "feedrank.models", "feedrank.api"):
        spec = find_spec(package)
        origin = Path(spec.origin if spec and spec.origin else "nowhere")
        assert "site-packages" in origin.parts, f"{package} is imported from {origin}, expected an installed wheel"
    root = Path(find_spec("feedrank").origin).parent
    assert (root / "py.typed").is_file(), "the wheel lacks feedrank/py.typed"
    for package in ("engine", "features", "models", "api"):
        assert find_spec(package) is None, f"the wheel installs a top-level package {package}"
    say(f"packages are those in {root}")


def log() -> list[dict[str, object]]:
    """Two genres of ten items in a ring, and 20 users whose histories follow one of them."""
    events: list[dict[str, object]] = [
        {
            "event": "item", "id": f"item {genre} {position}", "timestamp": START, "item": f"{genre}-{position}",
            "fields": [{"name": "title", "value": f"the {word} book"}, {"name": "category", "value": genre}],
        }
        for genre, words in GENRES.items()
        for position, word in enumerate(words)
    ]  # fmt: skip
    for step in range(WALK):
        for user in range(20):
            item = f"{list(GENRES)[user % 2]}-{(user // 2 + step) % 10}"
            events.append(
                {
                    "event": "interaction", "id": f"click {user} {step}", "user": str(user), "item": item,
                    "type": "click", "timestamp": START + (step * 20 + user) * 60_000,
                }
            )  # fmt: skip
    return events


def feedrank(*arguments: str) -> str:
    """Run the console script and return what it prints; it must succeed without an error message."""
    started = time.perf_counter()
    done = subprocess.run(["feedrank", *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, f"feedrank {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    say(f"feedrank {' '.join(arguments)} ({time.perf_counter() - started:.1f} s)")
    return done.stdout


def serve_one() -> None:
    """Serve one feed over HTTP."""
    command = ["feedrank", "serve", "--port", "0", "--no-keys"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://\S+:\d+", line)
            assert found, f"feedrank serve said {line!r}, expected the address"
            url, kind = f"{found[0]}/v1/recommend", {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(url, b'{"user": "1"}', kind), timeout=30) as answer:
                feed = json.load(answer)
            assert feed["items"][0]["id"].startswith("kitchen"), feed
            say(f"POST {url}: {len(feed['items'])} items, first {feed['items'][0]['id']}")
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0


def main() -> None:
    """Run every step in the current folder."""
    script = shutil.which("feedrank")
    assert script, "there is no feedrank on the PATH; install the wheel with its offline extra"
    say(f"Python {sys.version.split()[0]}, {script}")
    from_the_wheel()
    Path("feedrank.toml").write_text(CONFIG)
    ENVIRONMENT["FEEDRANK_CONFIG"] = "feedrank.toml"
    Path("log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in log()))
    assert "140 of 140" in feedrank("data", "log.jsonl")
    assert "trees" in feedrank("train", "--promote")  # a log this small teaches one tree
    feed = json.loads(feedrank("recommend", "--user", "0", "-n", "3", "--json"))
    assert feed["items"][0]["id"] == f"space-{WALK}", feed
    assert all(item["id"].startswith("space") for item in feed["items"]), feed
    say(f"the feed of 0: {', '.join(item['id'] for item in feed['items'])}")
    assert "kitchen-" in feedrank("recommend", "--query", "soup recipe", "-n", "3")
    serve_one()
    say("all is well")


if __name__ == "__main__":
    main()
