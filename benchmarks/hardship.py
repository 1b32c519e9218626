"""The feed service in a hurry, on a large catalogue, and asked nonsense. Part of `benchmarks.service`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bars import PROJECT, Bar, console
from benchmarks.serving import PEOPLE, feeds, send

DEADLINES_MS = (5, 10, 20, 50)
TOLERANCE_MS = 3
CALM = 25
"""Feeds a second at which nobody waits for others, to compare catalogues by."""
MANY_ITEMS, MANY_TOUCHES = 100_000, 200_000
EXAMPLES = 2_000
MOST_LATE, SLOWER = 1.0, 1.5


# --- in a hurry


def student_shaped(folder: Path) -> Path:
    """A cross-encoder of the usual student's shape that has learnt nothing: what it takes is what a real one takes."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from feedrank.models.finetune.distillation_settings import StudentConfig
    from feedrank.models.text.model_weights import DEFAULT_EMBEDDER, find_weights

    size, tokenizer = StudentConfig(), AutoTokenizer.from_pretrained(str(find_weights(DEFAULT_EMBEDDER)))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=size.hidden_size, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, intermediate_size=size.intermediate_size, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def hurried(port: int) -> list[Bar]:
    """Feeds with a deadline at 20 a second, the neural scorers on: how many were late, as the client sees it."""
    bars = []
    for deadline in DEADLINES_MS:
        found = feeds(port, 20, 25, deadline_ms=deadline)
        bars.append(
            Bar(f"deadline of {deadline} ms, neural scorers on: answers later than {deadline + TOLERANCE_MS} ms",
                100 * found.above(deadline + TOLERANCE_MS), "%", MOST_LATE, "lower")
        )  # fmt: skip
    return bars


# --- a large catalogue


def large_home(home: Path) -> None:
    """100,000 items with made-up titles in 300 categories, and people who go about in a few of them."""
    home.mkdir(parents=True)
    (home / "feedrank.toml").write_text(f'[embedder]\nmodel = "{_static(home / "static")}"\n')
    random = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "wo", "xu", "zy") for b in "bcdfghjklmnprstvz"]
    category = random.integers(0, 300, MANY_ITEMS)
    titles = random.integers(0, len(words), (MANY_ITEMS, 6))
    by_category = [np.flatnonzero(category == one) for one in range(300)]
    favourites = random.integers(0, 300, (PEOPLE, 5))
    start = 1_700_000_000_000
    with (home / "log.jsonl").open("w") as file:
        for row in range(MANY_ITEMS):
            fields = [
                {"name": "title", "value": " ".join(words[one] for one in titles[row])},
                {"name": "category", "value": f"c{category[row]}"},
            ]
            file.write(json.dumps({"event": "item", "id": f"i{row}", "timestamp": start, "item": str(row),
                                   "fields": fields}) + "\n")  # fmt: skip
        for step in range(MANY_TOUCHES):
            person = int(random.integers(0, PEOPLE))
            members = by_category[int(random.choice(favourites[person]))]
            item = int(members[min(int(random.exponential(len(members) / 8)), len(members) - 1)])
            file.write(json.dumps({"event": "interaction", "id": f"t{step}", "timestamp": start + 1000 * step,
                                   "item": str(item), "type": "click", "user": str(person + 1)}) + "\n")  # fmt: skip
    for command in (["import", str(home / "log.jsonl")], ["train", "--name", "large"]):
        console.print(f"[dim]$ feedrank {' '.join(command)}[/]")
        subprocess.run(
            [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command], cwd=PROJECT, check=True
        )


def _static(folder: Path) -> Path:
    """An embedder that gives every word a random vector of 384 numbers, as wide as MiniLM's."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding  # type: ignore[attr-defined]
    from tokenizers import Tokenizer

    from feedrank.models.text.model_weights import DEFAULT_EMBEDDER, find_weights

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(find_weights(DEFAULT_EMBEDDER) / "tokenizer.json"))
    tokenizer.no_padding()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=384)], device="cpu").save(str(folder))
    return folder


def slower(large: float, small: float) -> Bar:
    """The medians of feeds at the same rate, on the large catalogue and on MovieLens's."""
    what = f"catalogue of {MANY_ITEMS:,} items, feeds at {CALM} a second: p50 over that of 1,682 items"
    return Bar(what, large / small, "x", SLOWER, "lower")


# --- nonsense


def nonsense(port: int) -> list[Bar]:
    """Schemathesis against the service's own document."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.ndjson"
        url = f"http://127.0.0.1:{port}/docs/openapi.json"
        document = json.loads(send(port, "GET", "/docs/openapi.json")[1])
        operations = sum(len(set(path) & {"get", "post", "delete"}) for path in document["paths"].values())
        each = -(-EXAMPLES // operations)
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", url, "--max-examples", str(each),
            "--phases", "examples,coverage,fuzzing", "--mode", "all", "--seed", "7", "--continue-on-failure",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance", "--report", "ndjson", "--report-ndjson-path", str(report),
            "--exclude-path-regex", "/train/", "--generation-database", "none", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1_800)
        console.print(done.stdout[-3_000:])
        cases, failures = _of_report(report)
    if cases < EXAMPLES:
        raise RuntimeError(f"schemathesis made {cases:,} requests, expected {EXAMPLES:,}: {done.stderr[-500:]}")
    wrong = sum(count for name, count in failures.items() if "server error" not in name.lower())
    errors = sum(failures.values()) - wrong
    return [
        Bar(f"schemathesis, {cases:,} requests: server errors", float(errors), "", 0, "lower"),
        Bar("the same: schema violations", float(wrong), "", 0, "lower"),
    ]


def _of_report(path: Path) -> tuple[int, dict[str, int]]:
    """How many requests were made, and how many checks failed, by name."""
    cases = 0
    failures: dict[str, int] = {}
    for line in path.read_text().splitlines():
        told = json.loads(line)
        recorder = told.get("ScenarioFinished", {}).get("recorder", {})
        cases += len(recorder.get("interactions", {}))
        for checks in recorder.get("checks", {}).values():
            for check in checks:
                if check["status"] == "failure":
                    failures[check["name"]] = failures.get(check["name"], 0) + 1
    return cases, failures
