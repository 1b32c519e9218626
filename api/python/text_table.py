"""Renders rich tables as plain text, for `print` and `repr`."""

from __future__ import annotations

import io
import shutil
import sys
from typing import Any

from rich.console import Console

MIN_WIDTH = 140
"""Characters per line where the output is no terminal; a narrow terminal gets its own width."""


def as_text(*renderables: Any) -> str:
    """Render one below the other, without colours and without spaces at the ends of lines."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else MIN_WIDTH
    file = io.StringIO()
    console = Console(file=file, width=width, markup=False, emoji=False, highlight=False, no_color=True,
                      force_terminal=False, force_jupyter=False)  # fmt: skip  # a notebook would show what is rendered
    for renderable in renderables:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
