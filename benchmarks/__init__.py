"""Measurements of the bars the project sets itself: `python -m benchmarks.NAME [--json FILE]`."""
