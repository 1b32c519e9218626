"""Reads a YAML file as plain values. A key that stands twice in one mapping is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAX_BYTES = 10_000_000
"""Largest file that is read."""


def read_yaml(path: Path) -> Any:
    """Return the values of a YAML file. Raises ValueError that names the file, and the line if it is not YAML."""
    import yaml  # type: ignore[import-untyped]  # PyYAML has no types; only this command reads YAML

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"found the key {key.value!r} twice, expected each key once", key.start_mark
                    )
                seen.add(key.value)
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    Loader.yaml_implicit_resolvers = {  # a date stays a text, and `1:30` is no number
        first: [entry for entry in resolvers if entry[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes; expected a config file")
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as problem:
        raise ValueError(f"can't read {path}: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8: {problem}") from None
    except (yaml.YAMLError, RecursionError) as problem:
        raise ValueError(f"{path} is not YAML: {' '.join(str(problem).split())}") from None
