"""The house: names, imports, reference pages, and whether an application with modules of the same names can use it.

Everything is read from the sources, or run in temporary folders. `make docs` and a build of the wheel are part of it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from benchmarks import import_graph
from benchmarks.bars import PROJECT, Bar, console, measure
from benchmarks.long_parameter_lists import REASONS, long_parameter_lists
from benchmarks.old_names import old_names_left
from benchmarks.prose import median_words_per_sentence
from benchmarks.reference import missing_from_reference
from benchmarks.request_files import files_of_a_feed

RESULTS = PROJECT / "benchmarks" / "results"
COMPARED = ("quality", "replay", "experiments")
"""Benchmarks whose figures must be no worse than their bars after the renaming."""
APPLICATION = Path(__file__).with_name("application")
"""A small application with its own `api/`, `models.py`, `engine.py` and `features/`."""


def house() -> list[Bar]:
    """All bars, in the order of the list."""
    edges = import_graph.graph()
    missing, left = missing_from_reference(), old_names_left()
    unexplained = [entry for entry in long_parameter_lists() if entry.name not in REASONS]
    files = files_of_a_feed()
    for title, found in (("not in the reference", missing), ("old names left", left), ("long lists", unexplained)):
        for entry in found[:20]:
            console.print(f"[dim]{title}: {entry}[/]")
    warnings = docs_warnings()
    with tempfile.TemporaryDirectory() as folder:
        failures = application_failures(Path(folder))
    for failure in failures:
        console.print(f"[red]{failure}[/]")
    return [
        Bar("an application with modules of the same names, from wheel and editable install: failures", len(failures),
            "", 0, "lower"),
        Bar("import circles", len(import_graph.circles(edges)), "", 0, "lower"),
        Bar("imports against the arrows", len(import_graph.against_the_arrows(edges)), "", 0, "lower"),
        Bar("config keys, features, columns, commands and routes on no reference page", len(missing), "", 0, "lower"),
        Bar("old names in code, config, JSON and CLI, without a reason", len(left), "", 0, "lower"),
        Bar("string look-ups into a ranking's details outside its record", sum(1 for _ in string_look_ups()), "", 0,
            "lower"),
        Bar("functions with more than 8 parameters, without a reason", len(unexplained), "", 0, "lower"),
        Bar("files that a feed passes", len(files), "", 30, "lower"),
        Bar("README: lines of Python from a DataFrame to a feed", readme_lines(), "", 12, "lower"),
        Bar(f"bars of {', '.join(COMPARED)} that their latest run misses", missed_bars(), "", 0, "lower"),
        Bar("a journal and a config of version 0.1: failures", old_file_failures(), "", 0, "lower"),
        Bar("make docs: warnings", warnings, "", 0, "lower"),
        Bar("docs: words per sentence, median", median_words_per_sentence(prose_pages()), "", 18, "lower"),
    ]  # fmt: skip


def string_look_ups() -> Iterator[str]:
    """Yield where code outside the record's modules reads a ranking's `served`, `features` or `extra` by a string."""
    own = {"ranking_record.py", "logged_features.py", "object_reader.py", "legacy.py", "codec.py"}
    for path in import_graph.module_files().values():
        if path.name in own:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            value = None
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                value = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                value = node.func.value
            if isinstance(value, ast.Attribute) and value.attr in ("served", "extra"):
                yield f"{path.relative_to(PROJECT)}:{node.lineno}"


def readme_lines() -> int:
    """Count the lines of README's Python block that goes from a DataFrame to a feed."""
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.S)
    block = next((block for block in blocks if "recommend(" in block and "load(" in block), None)
    return 10_000 if block is None else sum(bool(line.strip()) for line in block.splitlines())


def missed_bars() -> int:
    """Count the bars that the committed results of the compared benchmarks miss."""
    rows = [row for name in COMPARED for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]]
    return sum(not row["met"] for row in rows)


def old_file_failures() -> int:
    """Run the tests of a journal and of config keys of version 0.1; 0 if all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_old_journal.py", "tests/test_config.py"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    console.print(f"[dim]{done.stdout.strip().splitlines()[-1]}[/]")
    return int(done.returncode != 0)


def docs_warnings() -> int:
    """Build the docs; return the number of warnings and errors."""
    done = subprocess.run(["make", "docs"], cwd=PROJECT, capture_output=True, text=True)
    found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("WARNING", "ERROR"))]
    return max(len(found), int(done.returncode != 0))


def prose_pages() -> list[Path]:
    """Return README and the docs that people wrote; reference pages are generated."""
    pages = [*(PROJECT / "docs").rglob("*.md"), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"]
    return sorted(page for page in pages if "reference" not in page.parts)


def application_failures(folder: Path) -> list[str]:
    """Install feedrank as a wheel, then as an editable install, and run the application with each."""
    failures = []
    dist = folder / "dist"
    _run([sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(PROJECT)], folder)
    (wheel,) = dist.glob("feedrank-*.whl")
    for name, target in (("wheel", [str(wheel)]), ("editable", ["-e", str(PROJECT)])):
        python = _environment(folder / name)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        _run([*pip, "--no-build-isolation", *target], folder)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            [str(python), "app.py", str(folder / f"home-{name}")], cwd=APPLICATION, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip
        console.print(f"[dim]{name}: {done.stdout.strip()}[/]")
        if done.returncode:
            failures.append(f"{name}: {done.stderr.strip()[-2000:]}")
    return failures


def _environment(folder: Path) -> Path:
    """Make a virtual environment that sees this one's libraries, but not its feedrank; return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    measure("house", house)
