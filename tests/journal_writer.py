"""Appends events to a journal from a process of its own; says `ready`, waits for a line, prints what was acknowledged.

Arguments: the URL of the journal, the prefix of the ids, how many events, how many an append; each offers a shared one.
"""

from __future__ import annotations

import sys

from feedrank.engine.events.events import Event, ItemEvent
from feedrank.engine.journal.journal import Journal


def main(url: str, prefix: str, events: int, step: int) -> None:
    journal = Journal(url)
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(0, events, step):
        batch: list[Event] = [ItemEvent(f"{prefix}{n}", n, "x" * 200) for n in range(start, start + step)]
        shared = ItemEvent(f"shared {start // step}", start, "x")
        fresh = journal.append([*batch, shared])
        print(start + step, int(fresh[-1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
