"""Counts which interactions and shown items name items, users and rankings that the journal does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice

from feedrank.api.item_completion import is_created
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.ids import similar_pairs
from feedrank.engine.journal.journal import Journal
from feedrank.engine.journal.lookups import known_ids

MIN_REFERENCES = 10
"""Fewer references are no ground for an error."""
EXAMPLES = 3
"""Ids of each side that a report names."""


@dataclass(frozen=True, slots=True)
class KnownIds:
    """The ids that a journal knows."""

    items: frozenset[str]
    """Items that item events describe."""
    created_items: frozenset[str]
    """Items that were created from an id, and nothing else describes."""
    users: frozenset[str]
    """Users that have user events; empty if the events that are matched name no user."""

    @classmethod
    def of(cls, journal: Journal, matching: IdMatching, items: Iterable[Event] | None = None) -> KnownIds:
        """Read the ids from the item and user events of a journal.

        matching: what the matched events describe and name; the journal is read only where this is not enough. items:
        the item events, if the caller has read them; None: they are read here.
        """
        counts = journal.count_by_kind()
        described, created = set(matching.described), set[str]()
        has_log = bool(counts.get("interaction") or counts.get("ranking"))
        if matching.undescribed or (has_log and not (matching.items or matching.shown)):
            for event in journal.events("item") if items is None else items:
                if isinstance(event, ItemEvent):
                    (created if is_created(event) else described).add(event.item)
        users = journal.events("user") if matching.users else ()
        named = frozenset(event.user for event in users if isinstance(event, UserEvent))
        return cls(frozenset(described), frozenset(created - described), named)


@dataclass(frozen=True, slots=True)
class Match:
    """How many references of one kind meet something known."""

    what: str
    """What refers, such as "interactions"."""
    to: str
    """What it refers to, such as "items"."""
    total: int
    unknown: int
    unknown_ids: tuple[str, ...]
    """The most frequent ids that are not known."""
    known_ids: tuple[str, ...]
    """Some known ids, for comparison; empty if nothing of the kind is known."""
    similar: tuple[tuple[str, str], ...] = ()
    """Pairs of an unknown and a known id that differ in spelling only."""

    @property
    def unknown_share(self) -> float:
        """Share of references that meet nothing; 0 without any."""
        return self.unknown / self.total if self.total else 0.0

    def sentence(self) -> str:
        """Describe the match in a sentence."""
        text = f"{self.what} that name known {self.to}: {self.total - self.unknown:,} of {self.total:,}"
        if self.unknown:
            text += f"; unknown are {_quoted(self.unknown_ids)}"
            text += f", known are {_quoted(self.known_ids)}" if self.known_ids else f"; no {self.to} are known yet"
        if self.similar:
            pairs = ", ".join(f"{left!r} and {right!r}" for left, right in self.similar)
            text += f". These ids look alike but differ: {pairs}; write them alike in all sources"
        return text

    def is_error(self, max_share: float) -> bool:
        """Return whether too many of at least 10 references meet nothing, although there is something to meet.

        Few users may have a profile, so unknown users are an error only where none is known at all.
        """
        if not self.known_ids or self.total < MIN_REFERENCES:
            return False
        return self.unknown == self.total if self.to == "users" else self.unknown_share > max_share


class IdMatching:
    """Collects the ids that events describe and name, to compare them with those that a journal knows."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        """Interaction type -> number of interactions."""
        self.described: set[str] = set()
        """Items that the events describe."""
        self.items: Counter[str] = Counter()
        """Item -> number of interactions."""
        self.shown: Counter[str] = Counter()
        """Item -> number of rankings."""
        self.users: Counter[str] = Counter()
        """User -> number of interactions."""
        self._rankings: Counter[str] = Counter()

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events unchanged, and count the ids that they name."""
        for event in events:
            if isinstance(event, InteractionEvent):
                self.types[event.type] += 1
                self.items[event.item] += 1
                if event.user is not None:
                    self.users[event.user] += 1
                if event.ranking is not None:
                    self._rankings[event.ranking] += 1
            elif isinstance(event, RankingEvent):
                self.shown.update(event.items)
            elif isinstance(event, ItemEvent):
                self.described.add(event.item)
            yield event

    @property
    def undescribed(self) -> frozenset[str]:
        """Items that the events name and do not describe."""
        return frozenset((self.items.keys() | self.shown.keys()) - self.described)

    def matches(self, known: KnownIds, journal: Journal) -> list[Match]:
        """Compare with what a journal knows; only kinds that the events name, and users only if some have events."""
        found = [
            _match("interactions", "items", self.items, known.items),
            _match("shown items", "items", self.shown, known.items),
        ]
        if known.users:
            found.append(_match("interactions", "users", self.users, known.users))
        if self._rankings:
            rankings = known_ids(journal.engine, self._rankings, "ranking")
            some = rankings or {event.id for event in islice(journal.events("ranking"), EXAMPLES)}
            found.append(_match("interactions with a ranking", "rankings", self._rankings, rankings, some))
        return [match for match in found if match.total]


def look_alikes(known: KnownIds, most: int = EXAMPLES) -> list[tuple[str, str]]:
    """Return pairs of a created item and a described one that differ in spelling only."""
    return similar_pairs(sorted(known.created_items), known.items, most)


def alike_sentence(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a sentence about pairs of `look_alikes`."""
    named = ", ".join(f"{created!r} and {described!r}" for created, described in pairs)
    return f"items that were created from ids look like items that are described: {named}; write ids alike"


def over_limit(matches: Iterable[Match], max_share: float) -> str:
    """Return an error about the matches over the limit; empty if there are none."""
    failed = [match for match in matches if match.is_error(max_share)]
    if not failed:
        return ""
    shares = ", ".join(f"{match.unknown_share:.1%} of the {match.what} name unknown {match.to}" for match in failed)
    return (
        f"{shares}, expected at most {max_share:.0%}. "
        + ". ".join(match.sentence() for match in failed)
        + ". Correct the ids, import what is missing, or raise journal.max_unknown_share"
    )


def check_ids_meet(
    matching: IdMatching, items: Iterable[Event], journal: Journal, max_share: float, warn: Callable[[str], None]
) -> None:
    """Check before training that what a log names is known; `warn` of ids that differ in spelling only.

    items: the item events of the journal. Raises ValueError over `max_share`.
    """
    known = KnownIds.of(journal, matching, items)
    if problem := over_limit(matching.matches(known, journal), max_share):
        raise ValueError(problem)
    if pairs := look_alikes(known):
        warn(f"{alike_sentence(pairs)} in all sources")


def _match(
    what: str, to: str, named: Mapping[str, int], known: Collection[str], examples: Collection[str] | None = None
) -> Match:
    unknown = Counter({name: count for name, count in named.items() if name not in known})
    some = nsmallest(EXAMPLES, known if examples is None else examples) if unknown else ()
    top = tuple(name for name, _ in unknown.most_common(EXAMPLES))
    similar = similar_pairs(unknown, known, EXAMPLES)
    return Match(what, to, sum(named.values()), unknown.total(), top, tuple(some), tuple(similar))


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in ids)
