"""A command of `feedrank` in a process of its own, so that a serving one is not held up by it."""

from __future__ import annotations

import os
import subprocess
import sys

from api.home import Home


def run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What became of a command on a home, run at a low priority: exit code, and what it said on both ways out."""
    chosen = [] if home.config is None else ["--config", str(home.config)]
    command = [sys.executable, "-m", "api.cli", "--home", str(home.folder), *chosen, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if hasattr(os, "setpriority"):  # not on Windows
            os.setpriority(os.PRIO_PROCESS, process.pid, 10)
        said, wrong = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, said, wrong)
