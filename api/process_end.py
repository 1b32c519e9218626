"""How a process of the server ends."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from typing import NoReturn


def end_on_interrupt() -> None:
    """Let Ctrl-C end this process at once, also amid a long call of a library; nothing needs to be cleaned up yet."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_process(code: int = 0) -> NoReturn:
    """End this process, without the clean-up of libraries in memory.

    That takes up to seconds with PyTorch. What is registered with `atexit` is called, such as sending the last spans.
    """
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)
