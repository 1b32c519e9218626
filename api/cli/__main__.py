"""`python -m api.cli` is the same as `feedrank`."""

from api.cli import main

main(prog_name="feedrank")
