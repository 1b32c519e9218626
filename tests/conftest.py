"""Fixtures shared by all tests. No test touches the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROJECT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FEEDRANK_DATA", PROJECT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def sample_data() -> Callable[[str], Path]:
    """A folder of the sample data by name; the test skips where it is absent."""

    def folder(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"no sample data at {path}; set FEEDRANK_DATA to the folder that holds {name}")
        return path

    return folder
