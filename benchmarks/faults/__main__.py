"""Run all parts, or those that are named in FEEDRANK_FAULTS, such as FEEDRANK_FAULTS=poison,disk."""

from __future__ import annotations

from benchmarks.parts import measure_parts

PARTS = ("poison", "event_order", "callers", "disk", "clocks", "start_stop")

if __name__ == "__main__":
    measure_parts("faults", PARTS)
