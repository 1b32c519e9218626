"""Bundles on disk: what training produced and serving loads."""
