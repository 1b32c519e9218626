"""Run a `feedrank` command in a subprocess, so that it does not slow down the serving process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from feedrank.api.home_paths import HomePaths

CANCEL_POLL_S = 0.2
"""Seconds between two questions whether a command is still wanted."""


def run_cli(
    home: HomePaths, *arguments: str, is_cancelled: Callable[[], bool] = lambda: False
) -> subprocess.CompletedProcess[str]:
    """Run a command on a home at low priority (nice 10); return its exit code, stdout and stderr.

    is_cancelled: called now and then; the command is terminated once it returns True.
    """
    config_option = [] if home.config is None else ["--config", str(home.config)]
    command = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home.folder), *config_option, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if hasattr(os, "setpriority"):  # not on Windows
            os.setpriority(os.PRIO_PROCESS, process.pid, 10)
        while True:
            try:
                stdout, stderr = process.communicate(timeout=CANCEL_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if is_cancelled():
                    process.terminate()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
