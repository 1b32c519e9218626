"""The quickstart notebook runs from top to bottom on a small world; its committed outputs are in order and small."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import toyworld
from conftest import PROJECT

nbformat = pytest.importorskip("nbformat", reason="the notebook's tools come with feedrank[dev]")
nbclient = pytest.importorskip("nbclient", reason="the notebook's tools come with feedrank[dev]")

NOTEBOOK = PROJECT / "notebooks" / "quickstart.ipynb"
MOST_BYTES = 400_000
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(?!v1/)\w[\w.-]*/[\w.-]|\b[A-Z]:\\")
"""The start of an absolute path of a machine; /v1/ is a route."""


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: Any) -> list[tuple[str, Any]]:
    """(cell id, output) of every output, in order."""
    return [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]


def texts_of(output: Any) -> str:
    """The texts of an output; pictures have none."""
    texts = [output.get("text", ""), *output.get("traceback", [])]
    texts += [data for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(texts)


def assert_quiet(notebook: Any) -> None:
    """Neither errors nor anything on stderr, where warnings and progress bars go."""
    for cell, output in outputs(notebook):
        assert output.output_type != "error", f"cell {cell!r} failed: {texts_of(output)}"
        assert output.get("name") != "stderr", f"cell {cell!r} wrote to stderr: {texts_of(output)}"


def test_it_runs_on_a_small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: Any) -> None:
    source = write_archive(tmp_path / "toy.zip")
    home = tmp_path / "home"
    home.mkdir()
    (home / "feedrank.toml").write_text(toyworld.CONFIG)
    for name, value in {
        "FEEDRANK_SOURCE": str(source), "FEEDRANK_HOME": str(home), "HF_HUB_OFFLINE": "1",
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    notebook = nbformat.from_dict(committed)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    assert_quiet(notebook)
    assert len(list((home / "bundles").glob("lambdarank-*"))) == 1
    feed = next(texts_of(output) for cell, output in outputs(notebook) if cell == "feed")
    last = toyworld.USERS - 1
    assert f"the {expected_word(last)} book" in feed, "the expected next item is not in the feed"


def write_archive(path: Path) -> Path:
    """The toy world in the layout of MovieLens-100K in RecBole's wheel."""
    items = ["item_id:token\tmovie_title:token_seq\tclass:token_seq"]
    for event in toyworld.items():
        fields = {field["name"]: field["value"] for field in event["fields"]}
        items.append(f"{event['item']}\t{fields['title']}\t{fields['category']}")
    interactions = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for event in toyworld.interactions():
        cells = event["user"], event["item"], event["value"], event["timestamp"] / 1000
        interactions.append("\t".join(map(str, cells)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in (("item", items), ("inter", interactions)):
            archive.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{name}", "\n".join(lines) + "\n")
    return path


def test_it_uses_the_public_api_alone(committed: Any) -> None:
    code = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "code")
    assert re.findall(r"^(?:from|import) (feedrank\S*)", code, re.MULTILINE) == ["feedrank"]


def expected_word(user: int) -> str:
    """The title word of the expected next item of a user."""
    genre, _, position = toyworld.expected_next_item(user).rpartition("-")
    return toyworld.GENRES[genre].split()[int(position)]


def test_committed_cells_were_executed_in_order(committed: Any) -> None:
    nbformat.validate(committed)
    assert (committed.nbformat, committed.nbformat_minor) >= (4, 5)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run all cells from the top in a fresh kernel, then save"
    pictures = [output for _, output in outputs(committed) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3


def test_committed_outputs_are_small_and_name_no_local_path(committed: Any) -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert_quiet(committed)
    for cell in committed.cells:
        for text in (cell.source, *map(texts_of, cell.get("outputs", []))):
            found = ABSOLUTE.search(text)
            assert not found, f"cell {cell.id!r} holds an absolute path: {text[max(found.start() - 40, 0) :][:120]}"
