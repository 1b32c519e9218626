"""Prints what an import wrote, rejected, assumed and found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
from rich.table import Table

from feedrank.api.cli.progress import console
from feedrank.api.id_matching import KnownIds, Match, alike_sentence, look_alikes, over_limit
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.interaction_types import InteractionTypes, unlisted_warning

SHOWN_REASONS = 10
SHOWN_TYPES = 10
"""Entries of a list that are named."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import found and wrote."""

    source: str
    """The path."""
    format: str
    journal: str
    """Its path or URL."""
    events: int
    """Events that were read."""
    resumed: int
    """Those of them that an earlier, interrupted import has written."""
    new: int
    """Those that were written now."""
    erased: int
    """Those that were left out, as they are of erased users."""
    taken: Sequence[str]
    """Ids under which other events are stored; looked for among the first of the events that were not new."""
    created: int
    """Items created from ids."""
    stored: Mapping[str, int]
    """Event type -> number of events in the journal now."""
    types: Mapping[str, int]
    """Interaction type -> number of interactions."""
    known: KnownIds
    matches: Sequence[Match]

    def print(self, rejects: Rejects, meanings: InteractionTypes) -> None:
        """Print a table of counts, and sentences about what was rejected, assumed and found."""
        click.echo(f"{self.source} ({self.format}) -> {self.journal}")
        table = Table(show_header=False)
        for name, count in sorted(self.stored.items()):
            table.add_row(f"{name} events in the journal", f"{count:,}")
        if self.resumed:
            table.add_row("events written by an earlier import", f"{self.resumed:,}")
        table.add_row("new events", f"{self.new:,} of {self.events - self.resumed:,}")
        if self.created:
            table.add_row("items created from ids that no item describes", f"{self.created:,}")
        share = f" ({rejects.rejected / rejects.total:.1%})" if rejects.rejected else ""
        table.add_row("lines rejected", f"{rejects.rejected:,}{share}")
        console.print(table)
        for line in self._lines(rejects, meanings):
            click.echo(line)

    def check(self, rejects: Rejects, max_unknown_share: float) -> None:
        """Raise ValueError if the import took in nothing, or if too many ids do not meet those of the journal."""
        if not self.events:
            why = f"all {rejects.rejected:,} lines were rejected" if rejects.rejected else "it holds no events"
            raise ValueError(f"nothing was imported from {self.source}: {why} (read as {self.format})")
        if self.taken and not self.new:
            raise ValueError(f"nothing was stored: other events have the same ids, such as {self.taken[0]!r}")
        if problem := over_limit(self.matches, max_unknown_share):
            raise ValueError(f"{problem}. The events are in the journal")

    def _lines(self, rejects: Rejects, meanings: InteractionTypes) -> Iterator[str]:
        yield from _reject_lines(rejects)
        yield from rejects.notes
        yield from (f"{what}: {count:,}" for what, count in rejects.tallies.items())
        if self.erased:
            yield f"{self.erased:,} events of erased users were left out; --include-erased takes them in"
        yield from _repeated_lines(self.events - self.resumed - self.new - self.erased, self.taken)
        yield from _type_lines(self.types, meanings)
        yield from _match_lines(self.matches, self.known, self.created)
        yield from _look_alike_lines(self.known)
        if rejects.rejected:
            yield f"rejected lines are in {rejects.path}, with line number and reason"
        if self.format == "gorse":
            yield (
                "gorse stores no impressions: its feedback updates counters and co-clicks, but gives no rankings to"
                " train on. `feedrank train` builds its groups from recall candidates"
            )


def _repeated_lines(count: int, taken: Sequence[str]) -> Iterator[str]:
    """Yield what happened to events whose id was stored before; taken: ids under which other events are stored."""
    if count:
        yield f"{count:,} events have an id that was stored before; they were not stored again"
    if taken:
        named = ", ".join(map(repr, taken[:3]))
        yield f"warning: of the first of these, {len(taken)} differ from the stored event of their id, such as {named}"


def _reject_lines(rejects: Rejects) -> Iterator[str]:
    """Yield the most frequent reasons in full, each with its first line."""
    reasons = list(rejects.reasons().items())
    for reason, count in reasons[:SHOWN_REASONS]:
        line, example = rejects.example(reason)
        yield f"rejected {count:,}: {example}" + (f" (line {line})" if line else "")
    if more := sum(count for _, count in reasons[SHOWN_REASONS:]):
        yield f"rejected {more:,} for {len(reasons) - SHOWN_REASONS} further reasons"


def _type_lines(types: Mapping[str, int], meanings: InteractionTypes) -> Iterator[str]:
    """Yield the most frequent interaction types, and a warning about those whose meaning nothing says."""
    if types:
        most = sorted(types.items(), key=lambda entry: -entry[1])[:SHOWN_TYPES]
        more = f" and {len(types) - SHOWN_TYPES} more types" if len(types) > SHOWN_TYPES else ""
        yield "interaction types: " + ", ".join(f"{name} {count:,}" for name, count in most) + more
    if warning := unlisted_warning(types, meanings):
        yield f"warning: {warning}"


def _match_lines(matches: Sequence[Match], known: KnownIds, created: int) -> Iterator[str]:
    """Yield how many references meet something known; of items that were created, that nothing describes them."""
    without = [match.what for match in matches if match.to == "items" and not match.known_ids and match.unknown]
    if not (created or known.created_items):
        without = []
    if without:
        written = f"{created:,} items were" if created else "items were, by an earlier import,"
        yield f"no item event describes the items of {' and '.join(without)}; {written} created from ids"
    yield from (match.sentence() for match in matches if match.to != "items" or match.what not in without)


def _look_alike_lines(known: KnownIds) -> Iterator[str]:
    """Yield a warning about ids that differ in spelling only."""
    if pairs := look_alikes(known):
        yield f"warning: {alike_sentence(pairs)}"
