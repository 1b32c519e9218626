"""Imports odd files with the command itself: a row that is lost or read wrong without a word is a failure.

Each file goes into a home of its own. Right is what `OddFile` says: exactly these events in the journal, or, for a file
that can't be read, an exit code above 0, an empty journal and the words that say why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from benchmarks.bars import Bar, console
from benchmarks.truth.odd_files import T0, OddFile, odd_files
from feedrank.api.cli import main
from feedrank.api.home_paths import HomePaths
from feedrank.api.item_completion import is_created
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent

MIN_FILES = 60


def bars() -> list[Bar]:
    """Measure the odd files, ids of pandas and equal rows."""
    files = odd_files()
    assert len(files) >= MIN_FILES
    failed = 0
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            if problem := judge(file, Path(folder)):
                failed += 1
                console.print(f"{file.name}: {problem}", markup=False)
    return [
        Bar(f"{len(files)} odd files: rows lost or read wrong without a word", failed, "files", 0, "lower"),
        Bar("ids of pandas: clicks of 180 that meet an item", _pandas_ids(), "clicks", 180, "higher"),
        Bar("two equal purchases in a file, imported twice: stored, of 2", _equal_rows(), "purchases", 2, "higher"),
    ]


def judge(file: OddFile, folder: Path) -> str:
    """Import a file into a home in a folder; return what is wrong, empty if it was read right or refused with words."""
    path = folder / f"odd{file.suffix}"
    path.write_bytes(file.data)
    code, output = run(folder / "home", path, *file.options)
    events = journal_events(folder / "home")
    if file.said not in " ".join(output.split()):
        return f"the output does not say {file.said!r}: {output!r}"
    if file.rows is None:
        return "" if code and not events and output.strip() else f"exit code {code}, {len(events)} events"
    rows = event_rows(events, len(file.rows[0]))
    if code or rows != sorted(file.rows, key=repr):
        return f"exit code {code}, read {rows}, expected {list(file.rows)}: {output!r}"
    described = [event for event in events if isinstance(event, ItemEvent)]
    if file.fields and not file.fields.items() <= described[-1].fields.items():
        return f"found the fields {described[-1].fields}, expected {dict(file.fields)}"
    return "" if (file.rejected > 0) == ("rejected lines are in" in output) else f"rejects are not reported: {output!r}"


def run(home: Path, *arguments: object) -> tuple[int, str]:
    """Run `feedrank import`; return its exit code and all that it prints."""
    result = CliRunner().invoke(main, ["--home", str(home), "import", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


def journal_events(home: Path) -> list[Event]:
    """Return the events of a home's journal, without items that were created from ids."""
    journal = HomePaths(home).journal()
    try:
        return [event for event in journal.events() if not (isinstance(event, ItemEvent) and is_created(event))]
    finally:
        journal.close()


def event_rows(events: Sequence[Event], width: int) -> list[tuple[object, ...]]:
    """Return the items or the interactions as rows of an `OddFile`, sorted."""
    rows: list[tuple[object, ...]] = [
        (event.user, event.item, event.timestamp, event.type, event.value)
        for event in events if isinstance(event, InteractionEvent)
    ]  # fmt: skip
    catalogue = Catalogue.from_events(event for event in events if isinstance(event, ItemEvent))
    for row, item in enumerate(catalogue.ids):
        rows.append((item, catalogue.titles[row], " ".join(catalogue.category_names(row)))[:width])
    return sorted(rows, key=repr)


def _pandas_ids() -> int:
    items = "id,title\n" + "".join(f"{n},thing {n}\n" for n in range(1, 21))
    clicks = "user,item,timestamp\n" + "".join(f"{n // 6 + 1}.0,{n % 20 + 1}.0,{T0 + 60_000 * n}\n" for n in range(180))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        for name, text in (("items.csv", items), ("clicks.csv", clicks)):
            path = Path(folder) / name
            path.write_text(text)
            run(home, path)
        events = journal_events(home)
    known = {event.item for event in events if isinstance(event, ItemEvent)}
    return sum(isinstance(event, InteractionEvent) and event.item in known for event in events)


def _equal_rows() -> int:
    row = "u1,0108775015,2020-09-20,purchase,0.0254\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "purchases.csv"
        path.write_text("user,item,timestamp,type,value\n" + row + row)
        for _ in range(2):
            run(Path(folder) / "home", path)
        return len(journal_events(Path(folder) / "home"))
