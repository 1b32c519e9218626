"""Run `feedrank` as `python -m feedrank.api.cli`."""

from feedrank.api.cli import main

main(prog_name="feedrank")
