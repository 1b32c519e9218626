"""The command line: `feedrank --help`."""

from api.cli.main import main

__all__ = ["main"]
