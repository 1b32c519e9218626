"""Declared features: what a team knows of items, users and requests, as columns of the feature matrix."""
