"""The house rules: four packages, arrows one way, few third parties in the engine, small modules, no pickle."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT

PACKAGES = ("engine", "features", "models", "api")
"""In the order of the arrows: each may import itself and those before it."""
ENGINE_MAY_IMPORT = {"numpy", "annoy", "sqlalchemy"}
LONGEST_MODULE = 320

MODULES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of every import in a file, wherever it stands in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; import by the package's own name"
            yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_keeps_the_rules(path: Path) -> None:
    package = path.relative_to(PROJECT).parts[0]
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    for line, name in imported(path):
        assert name not in above, f"{path}:{line}: {package} must not import {name}; arrows run {' <- '.join(PACKAGES)}"
        assert name not in ("pickle", "joblib", "dill", "shelve", "marshal"), f"{path}:{line}: no pickle anywhere"
        if package == "engine":
            known = name in sys.stdlib_module_names or name in ENGINE_MAY_IMPORT or name == "engine"
            assert known, f"{path}:{line}: engine imports {name}; it may import {', '.join(sorted(ENGINE_MAY_IMPORT))}"
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{path} has {lines} lines; a module is one noun and at most {LONGEST_MODULE}"


def test_there_are_exactly_four_packages() -> None:
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    included = config["options.packages.find"]["include"].split()
    assert included == [name for package in PACKAGES for name in (package, f"{package}.*")]
    on_disk = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert on_disk == set(PACKAGES)


def test_every_folder_of_modules_is_a_package() -> None:
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py, so a wheel would lack it"


def test_a_server_begins_without_what_only_some_need() -> None:
    code = "import sys, feedrank.api.cli, feedrank.api.server; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "sentence_transformers", "onnxruntime", "sklearn", "pandas", "scipy.stats"}
    assert not heavy & set(said.split())
