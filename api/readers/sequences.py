"""Read sequences without times: one line for each user, with the items in order of time.

This is the layout in which S3-Rec, SASRec and their successors publish the Amazon data sets. A line may also hold a
user and one item; then the lines of a user are its sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from feedrank.api.readers import lines, synthetic_times
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.synthetic_times import SyntheticTimes
from feedrank.engine.events.events import Event, InteractionEvent

_NUMBERS = re.compile(r"\d+(\s+\d+)+", re.ASCII)


def is_sequences(texts: Sequence[str]) -> bool:
    """Return whether the first lines of a file hold nothing but two or more whole numbers each."""
    stripped = [text.strip() for text in texts if text.strip()]
    return bool(stripped) and all(_NUMBERS.fullmatch(text) for text in stripped)


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read each line as a user and its items, as clicks in the order of the line, one day apart.

    The timestamps are synthetic, and say nothing but the order: see `SyntheticTimes`. They are the same in every
    import. A line with a user and no item is rejected.
    """
    source = str(path)
    times = SyntheticTimes()
    for number, text in lines.read_lines(path, rejects, options.encoding):
        if not text.strip():
            continue
        user, *items = (cell.strip() for cell in text.strip().split(options.separator))
        if not user or not items or not all(items):
            rejects.reject(source, number, "found no item, expected a user and its items in order of time", text)
            continue
        rejects.accept(number)
        rejects.tally(synthetic_times.NOTE, len(items))
        for item in items:
            at = times.next_ms(user)
            yield InteractionEvent(f"sequence:{user}:{item}:{at}", at, item, "click", user=user)
