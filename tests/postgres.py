"""A PostgreSQL server for the tests: in a temporary folder, on a socket there, removed at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

SERVERS = "/usr/lib/postgresql"
"""Where Debian puts what it does not put on the path."""


def programs() -> Path | None:
    """Find the folder of initdb and pg_ctl; None where no server is installed."""
    folders = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    folders += sorted(Path(SERVERS).glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that can be stopped and started."""

    url: str
    start: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Run a server within the block; `folder` holds initdb and pg_ctl."""
    work = Path(mkdtemp(prefix="feedrank-pg-"))  # a short path: a socket's may have 107 characters
    data = work / "data"
    as_user: list[str] = []
    name = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:  # the server refuses to run as root
        name = "postgres"
        shutil.chown(work, name)
        as_user = ["runuser", "-u", name, "--"]

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], cwd=work, check=True, capture_output=True, timeout=60)

    try:
        run(str(folder / "initdb"), "-D", str(data), "-U", "feedrank", "--auth=trust", "-E", "UTF8", "--no-sync")
        control = (str(folder / "pg_ctl"), "-D", str(data), "-w")

        def start() -> None:
            run(*control, "-l", str(work / "log"), "-o", f"-k {work} -c listen_addresses=''", "start")

        def stop() -> None:
            run(*control, "-m", "immediate", "stop")

        start()
        try:
            yield Server(f"postgresql+psycopg://feedrank@/postgres?host={quote(str(work))}", start, stop)
        finally:
            stop()
    finally:
        shutil.rmtree(work, ignore_errors=True)
