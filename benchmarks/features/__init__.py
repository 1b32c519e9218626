"""Declared features: what a team knows reaches the ranker, as of then, live and in replay, at a small cost."""
