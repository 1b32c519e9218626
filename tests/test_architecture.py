"""The architecture rules: four packages, imports one way, no cycles, few dependencies of the engine, no pickle."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

from benchmarks import import_graph
from benchmarks.import_graph import PACKAGES
from benchmarks.long_parameter_lists import REASONS, long_parameter_lists
from benchmarks.request_files import MAX_FILES, files_of_a_feed

ENGINE_MAY_IMPORT = {"numpy", "annoy", "sqlalchemy"}
LONGEST_MODULE = 320

FILES = import_graph.module_files()
MODULES = sorted(FILES.values())
SOURCES = sorted([*MODULES, *(PROJECT / "tests").glob("*.py"), *(PROJECT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_keeps_the_rules(path: Path) -> None:
    package = path.relative_to(PROJECT).parts[0]
    for line, module, _ in import_graph.imports(path):
        name = module.partition(".")[0]
        assert name not in ("pickle", "joblib", "dill", "shelve", "marshal"), f"{path}:{line}: no pickle anywhere"
        if package == "engine":
            known = name in sys.stdlib_module_names or name in ENGINE_MAY_IMPORT or module.startswith("feedrank.engine")
            assert known, f"{path}:{line}: engine imports {name}; it may import {', '.join(sorted(ENGINE_MAY_IMPORT))}"
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{path} has {lines} lines; a module is one noun and at most {LONGEST_MODULE}"


def test_every_import_has_the_full_name() -> None:
    bare = [
        f"{path.relative_to(PROJECT)}:{line}: {module}"
        for path in SOURCES
        for line, module, _ in import_graph.imports(path)
        if module.partition(".")[0] in PACKAGES
    ]
    assert not bare, f"import feedrank.engine and so on, never the folder's own name: {bare}"


def test_imports_are_acyclic_and_follow_the_layers() -> None:
    edges = import_graph.graph(FILES)
    assert len(edges) > 200
    assert import_graph.against_the_arrows(edges) == []
    assert import_graph.circles(edges) == []


def test_the_import_graph_finds_violations() -> None:
    edges = {
        "feedrank.engine.a": {"feedrank.models.b"},
        "feedrank.models.b": {"feedrank.models.c"},
        "feedrank.models.c": {"feedrank.engine.a"},
        "feedrank.api.d": {"feedrank.engine.a"},
    }
    assert import_graph.circles(edges) == [["feedrank.engine.a", "feedrank.models.b", "feedrank.models.c"]]
    assert import_graph.against_the_arrows(edges) == [("feedrank.engine.a", "feedrank.models.b")]


def test_one_import_name_links_to_four_folders() -> None:
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    assert config["options.packages.find"]["where"] == "src"
    source = PROJECT / "src" / "feedrank"
    assert {path.name for path in source.iterdir()} >= {"__init__.py", "py.typed", *PACKAGES}
    for package in PACKAGES:
        assert os.readlink(source / package) == f"../../{package}"
    assert {path.parent.name for path in PROJECT.glob("*/__init__.py")} == set(PACKAGES)


def test_long_parameter_lists_have_a_reason() -> None:
    found = {entry.name: entry for entry in long_parameter_lists()}
    unexplained = [entry for name, entry in found.items() if name not in REASONS]
    assert not unexplained, (
        f"give these a settings object, or a reason in benchmarks/long_parameter_lists: {unexplained}"
    )
    assert not REASONS.keys() - found.keys(), "these need no reason any more"


def test_parameters_are_counted(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class A:\n    def f(self, a, /, b, *c, d, **e):\n        def g(x): ...\n")
    assert [(entry.name, entry.count) for entry in long_parameter_lists(0, {"feedrank.one": tmp_path / "one.py"})] == [
        ("one.A.f", 5), ("one.A.f.g", 1)
    ]  # fmt: skip


def test_a_feed_passes_few_files(home: Path) -> None:
    files = files_of_a_feed(home)
    assert {"api/http/recommendations.py", "engine/serving/recommender.py", "features/builder.py"} <= files.keys()
    assert len(files) <= MAX_FILES, f"a feed passes {len(files)} files: {', '.join(sorted(files))}"


def test_every_folder_of_modules_is_a_package() -> None:
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py, so a wheel would lack it"


def test_a_server_starts_without_optional_imports(tmp_path: Path) -> None:
    code = "import sys, feedrank.api.cli, feedrank.api.server; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "sentence_transformers", "onnxruntime", "sklearn", "pandas", "scipy.stats"}
    assert not heavy & set(run.stdout.split())
