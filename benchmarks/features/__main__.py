"""Run all parts, or those that are named in FEEDRANK_FEATURES, such as FEEDRANK_FEATURES=shop,sessions."""

from benchmarks.parts import measure_parts

PARTS = ("shop", "contexts", "sessions", "mind", "open_bandit", "letor", "metarank", "cost")

if __name__ == "__main__":
    measure_parts("features", PARTS)
