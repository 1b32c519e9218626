"""Generates the reference pages in docs/reference from the code. Run `python -m docs.generator` after a change."""
