"""The documents: the reference is complete and current, links lead somewhere, examples run, the site builds."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import click
import documents
import pyarrow as pa
import pytest
import toyworld
from click.testing import CliRunner
from conftest import PROJECT, parse_command
from documents import DOCS, DOCUMENTS, PAGES, README, REFERENCE, WRITTEN

import feedrank
from benchmarks.prose import median_words_per_sentence
from docs.generator import commands, event_parts, routes, settings
from docs.generator.__main__ import pages
from docs.generator.markdown import slug
from feedrank.api.cli import main
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.metrics import Metrics
from feedrank.api.readers.rows import EVENT_COLUMNS
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse, to_dict
from feedrank.models.bundles import registry

LONGEST_README = 150
README_CODE_BY_LINE = 30
LONGEST_EXAMPLE = 12
MOST_WORDS = 18


def name_of(path: Path) -> str:
    """The path of a document in the repository."""
    return str(path.relative_to(PROJECT))


def reference(name: str) -> str:
    """The text of a page of the reference."""
    return (REFERENCE / name).read_text(encoding="utf-8")


# --- the reference


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """The pages of the reference as the code makes them now."""
    return pages()


def test_the_reference_is_current(generated: dict[str, str]) -> None:
    stale = [name for name, text in generated.items() if not (REFERENCE / name).exists() or reference(name) != text]
    assert not stale, (
        f"docs/reference is not what the code says ({', '.join(stale)}): run `make reference` and commit it"
    )
    assert {path.name for path in REFERENCE.iterdir()} == set(generated), "only generated pages are in docs/reference"


def test_every_command_and_option_is_in_the_reference() -> None:
    sections = dict(re.findall(r"(?ms)^## (feedrank[^\n]*)\n(.*?)(?=^## |\Z)", reference("cli.md")))
    found = dict(commands.commands())
    assert sections.keys() == found.keys()
    assert "feedrank experiment readout" in found
    for name, command in found.items():
        if sections[name].strip() == "An alias of `feedrank import`.":
            continue
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(f"`{flag}`" in sections[name] for flag in option.opts), f"{name}: {option.opts}"


def test_every_route_is_in_the_reference() -> None:
    page = reference("http.md")
    app = routes.application()
    checked = 0
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/docs"):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert f"### {method} {path}\n" in page, f"{method} {path} is not in docs/reference/http.md"
            checked += 1
    assert checked > 25
    for name in app.api_doc["components"]["schemas"]:
        assert f"### {name}\n" in page


def test_the_reference_names_the_scope_of_each_route() -> None:
    page = reference("http.md")
    for route, scope in (("POST /v1/events", "write"), ("POST /v1/recommend", "read"), ("GET /healthz", "open")):
        assert f"](#{slug(route)}) | {scope} |" in page
    assert f"](#{slug('DELETE /v1/state/user/{id}')}) | admin |" in page


def test_every_metric_is_in_the_reference() -> None:
    exported = re.findall(r"(?m)^# HELP (feedrank_\w+)", Metrics().render()[0].decode())
    documented = set(re.findall(r"(?m)^\| `(feedrank_\w+)`", reference("metrics.md")))
    assert documented == {name for name in exported if not name.endswith("_created")}
    assert "| `feedrank_requests_total` | counter | `route`, `method`, `status` |" in reference("metrics.md")


def test_every_column_is_in_the_reference() -> None:
    tables, events = reference("tables.md"), reference("events.md")
    for kind, columns in EVENT_COLUMNS.items():
        table = tables.partition(f"## {kind.capitalize()} columns")[2].partition("\n## ")[0]
        assert all(f"| `{column}` |" in table for column in ("event", "id", "timestamp", *columns)), kind
        parts = events.partition(f"## {kind}\n")[2].partition("\n## ")[0]
        assert all(f"| `{column}`" in parts for column in columns if column != "labels"), kind


def test_the_reference_names_the_required_parts_of_an_event() -> None:
    examples = {"item": "a", "user": "u", "items": [{"id": "a"}], "type": "click", "experiment": "e", "change": "start"}
    for kind, required in event_parts.REQUIRED.items():
        body = {"event": kind, "id": "x", "timestamp": 0, **{part: examples[part] for part in required}}
        parse(body)
        for part in (*event_parts.ALWAYS, *required):
            with pytest.raises(EventError):
                parse({name: value for name, value in body.items() if name != part})


def test_events_keep_every_documented_part() -> None:
    lists = {"items": [{"id": "a"}], "positions": [1], "scores": [0.5], "propensities": [0.5], "team": ["a"]}
    values = {"value": 4.0, "dwell_ms": 9.0, "position": 2, "seed": 3, **lists}
    values |= {part: {"x": 1} for part in ("features", "served", "payload")}
    for kind, columns in EVENT_COLUMNS.items():
        parts = [column for column in columns if column != "labels"]
        body = {"event": kind, "id": "x", "timestamp": 0, **{part: values.get(part, "text") for part in parts}}
        assert json.loads(json.dumps(to_dict(parse(body)))) == body, (
            f"what the reference says of {kind} events is not what is kept of them"
        )


def config_keys(section: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(section, key) of every key of the config, from the dataclasses themselves."""
    types = get_type_hints(section)
    for entry in fields(section):
        if is_dataclass(types[entry.name]):
            yield from config_keys(types[entry.name], f"{prefix}.{entry.name}".lstrip("."))
        else:
            yield prefix, entry.name


def test_every_config_key_is_in_the_reference() -> None:
    if settings.config_keys() is None:
        pytest.skip("feedrank.api.config_reference does not exist yet")
    page = reference("config.md")
    for section, key in config_keys(Config):
        table = page.partition(f"## [{section}]\n")[2].partition("\n## ")[0]
        assert f"| `{key}` |" in table, f"[{section}] {key} is not in docs/reference/config.md"


def test_every_feature_is_in_the_reference(interactions_home: Path) -> None:
    if settings.features() is None:
        pytest.skip("feedrank.features.catalog does not exist yet")
    page = reference("features.md")
    names = registry.load_current(HomePaths(interactions_home).bundles, print).builder.names
    missing = [name for name in names if f"| `{name}` |" not in page]
    assert not missing, f"these features are not in docs/reference/features.md: {', '.join(missing)}"


def test_every_export_is_in_the_reference() -> None:
    for name in getattr(feedrank, "__all__", ()):
        assert f"## feedrank.{name}\n" in reference("python.md")


# --- links and prose


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_have_a_target(path: Path) -> None:
    for link in documents.links(path):
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{name_of(path)}: {link}"
        if anchor:
            assert anchor in documents.anchors(there), f"{name_of(path)}: there is no heading for {link}"


@pytest.mark.parametrize("path", [README, *WRITTEN], ids=name_of)
def test_sentences_are_short(path: Path) -> None:
    assert median_words_per_sentence([path]) <= MOST_WORDS


def test_the_readme_is_short_and_shows_code_early() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_README
    assert lines.index("```python") < README_CODE_BY_LINE
    example = next(block for block in documents.blocks(README) if block.language == "python")
    assert len(example.text.splitlines()) <= LONGEST_EXAMPLE


# --- examples


@pytest.mark.parametrize("path", [README, PROJECT / "CONTRIBUTING.md", *WRITTEN], ids=name_of)
def test_every_command_of_a_document_exists(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in documents.command_lines(path):
        words = shlex.split(line)
        for word in words:
            if re.fullmatch(r"[\w-]+\.(jsonl|toml|csv)", word):  # click checks that files exist
                Path(word).touch()
        parse_command(words)


def runnable() -> list[Path]:
    """The documents with commands that can run as they are."""
    return [path for path in WRITTEN if any(block.mark == "run" for block in documents.blocks(path))]


@pytest.mark.parametrize("path", runnable(), ids=name_of)
def test_runnable_commands_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in documents.blocks(path):
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        for line in block.text.splitlines() if block.mark == "run" else ():
            result = CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
            if line.startswith("feedrank import "):
                assert re.search(r"lines rejected\W+0\b", result.output), f"{line}\n{result.output}"
    assert sum(HomePaths(Path("var")).journal().count_by_kind().values()) > 0


def test_an_experiment_file_of_a_document_is_valid(tmp_path: Path, home: Path) -> None:
    (block,) = [
        block for block in documents.blocks(DOCS / "how-to" / "first-ab-test.md") if block.mark.startswith("file: ")
    ]
    path = tmp_path / "experiment.toml"
    path.write_text(block.text.replace("candidate-1", "toy"), encoding="utf-8")
    result = CliRunner().invoke(main, ["--home", str(home), "experiment", "create", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "path", [path for path in WRITTEN if path != DOCS / "explanation" / "experiments.md"], ids=name_of
)
def test_settings_of_a_document_are_valid(path: Path, tmp_path: Path) -> None:
    from feedrank.api.config import load_config

    for block in documents.blocks(path):
        if block.language == "toml" and not block.mark:
            file = tmp_path / "feedrank.toml"
            file.write_text(block.text, encoding="utf-8")
            load_config(file)


def python_blocks() -> list[Any]:
    """All Python examples."""
    found = []
    for path in [README, *WRITTEN]:
        for number, block in enumerate(block for block in documents.blocks(path) if block.language == "python"):
            found.append(pytest.param(block, id=f"{name_of(path)}-{number}"))
    return found


def shop() -> dict[str, Any]:
    """The data frames that the examples load: the toy world, whose users are numbers here."""
    items = [
        {"item": event["item"], **{one["name"]: one["value"] for one in event["fields"]}} for event in toyworld.items()
    ]
    clicks = [
        {"user": event["user"].removeprefix("p"), "item": event["item"], "timestamp": event["timestamp"]}
        for event in toyworld.interactions()
    ]
    return {"items_df": pa.Table.from_pylist(items), "clicks_df": pa.Table.from_pylist(clicks)}


@pytest.mark.parametrize("block", python_blocks())
def test_python_examples_run(
    block: documents.Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = ast.parse(block.text)
    if block.mark.startswith("needs: "):  # its imports at least
        tree.body = [line for line in tree.body if isinstance(line, ast.Import | ast.ImportFrom)]
        assert tree.body
    (tmp_path / "var" / "shop").mkdir(parents=True)
    (tmp_path / "var" / "shop" / "feedrank.toml").write_text(toyworld.CONFIG)
    names = shop()
    exec(compile(tree, "example", "exec"), names)
    if "feed" in names:
        assert len(names["feed"].ids) == 10
        assert toyworld.genre_of(names["feed"].ids[0]) == toyworld.genre_of_user(42)


# --- the site


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {path.relative_to(DOCS) for path in PAGES} <= pages
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"""<(?:script|link|img)\b[^>]*?(?:src|href)=["']([^"']+)""", page.read_text(encoding="utf-8")
        )
        assert loaded
        assert not [one for one in loaded if "//" in one], f"{page} loads {loaded}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    assert not list(site.rglob("*secret*")), "deployment files and secrets are no part of the site"
