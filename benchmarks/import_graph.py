"""The import graph of feedrank's own modules, read from the sources without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "features", "models", "api")
"""In the order of the arrows: each may import itself and those before it."""
ROOT = "feedrank"


def module_files() -> dict[str, Path]:
    """Every module by its import name, such as feedrank.engine.types, with its file in the checkout."""
    files = {ROOT: PROJECT / "src" / ROOT / "__init__.py"}
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            files[".".join((ROOT, *parts)).removesuffix(".__init__")] = path
    return files


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import in a file, at any depth; name is empty for a plain `import module`.

    Imports under `if TYPE_CHECKING:` are left out: nothing runs them. Raises ValueError at a relative import.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: a relative import; import by the full name")
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes += list(ast.iter_child_nodes(node))


def graph(files: Mapping[str, Path] | None = None) -> dict[str, set[str]]:
    """Module -> the modules of feedrank that it imports, at its top or inside a function."""
    files = module_files() if files is None else files
    edges: dict[str, set[str]] = {}
    for module, path in files.items():
        found = set()
        for _, source, name in imports(path):
            if (source, name) == (ROOT, "__version__"):
                continue  # a constant, which the lazy root defines before anything else
            full = f"{source}.{name}"
            found.add(full if full in files else source)
        edges[module] = {one for one in found if one in files and one != module}
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, each sorted: Tarjan's strongly connected components.

    R. Tarjan, Depth-first search and linear graph algorithms, SIAM J. Comput. 1972.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in edges[module]:
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[len(stack) - len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in edges:
        if module not in order:
            visit(module)
    return found


def against_the_arrows(edges: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(module, imported module) where a package imports one that stands after it."""
    rank = {package: place for place, package in enumerate(PACKAGES)}

    def layer(module: str) -> int:
        parts = module.split(".")
        return rank[parts[1]] if len(parts) > 1 else len(PACKAGES)

    return [(module, other) for module in edges for other in edges[module] if layer(other) > layer(module)]
