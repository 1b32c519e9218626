"""Run all parts, or those that are named in FEEDRANK_TRUTH, such as FEEDRANK_TRUTH=grades,languages."""

from __future__ import annotations

from benchmarks.parts import measure_parts

PARTS = ("interaction_types", "leakage", "import_files", "formats", "grades", "catalogues", "languages", "speed")

if __name__ == "__main__":
    measure_parts("truth", PARTS)
