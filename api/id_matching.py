"""Counts which interactions and shown items name items, users and rankings that the journal does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from feedrank.api.item_completion import ItemCompletion, is_made
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent
from feedrank.engine.events.ids import similar_pairs
from feedrank.engine.journal.event_lookup import known_ids
from feedrank.engine.journal.journal import Journal

MIN_REFERENCES = 10
"""Fewer references are no ground for an error."""
EXAMPLES = 3
"""Ids of each side that a report names."""


@dataclass(frozen=True, slots=True)
class KnownIds:
    """The ids that a journal knows."""

    items: frozenset[str]
    """Items that item events describe."""
    made_items: frozenset[str]
    """Items that journal.create_items made of an id, and nothing else describes."""
    users: frozenset[str]
    """Users that have user events."""

    @classmethod
    def of(cls, journal: Journal, completion: ItemCompletion | None = None) -> KnownIds:
        """Read the ids from the item and user events of a journal.

        completion: what an import described and named; the items of the journal are read only if this is not enough.
        """
        counts = journal.count_by_kind()
        described: set[str] = set()
        made: set[str] = set()
        if completion is not None:
            described.update(completion.described)
        has_log = bool(counts.get("interaction") or counts.get("ranking"))
        if completion is None or completion.undescribed or (has_log and not completion.names_items):
            for event in journal.events("item"):
                if isinstance(event, ItemEvent):
                    (made if is_made(event) else described).add(event.item)
        users = {event.user for event in journal.events("user") if isinstance(event, UserEvent)}
        return cls(frozenset(described), frozenset(made - described), frozenset(users))


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
        limit = max(max_share, 0.999999) if self.to == "users" else max_share
        return bool(self.known_ids) and self.total >= MIN_REFERENCES and self.unknown_share > limit


class IdMatching:
    """Collects the ids that events name, to compare them with those that a journal knows."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        """Interaction type -> number of interactions."""
        self._interactions: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self._rankings: Counter[str] = Counter()

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events unchanged, and count the ids that they name."""
        for event in events:
            if isinstance(event, InteractionEvent):
                self.types[event.type] += 1
                self._interactions[event.item] += 1
                if event.user is not None:
                    self._users[event.user] += 1
                if event.ranking is not None:
                    self._rankings[event.ranking] += 1
            elif isinstance(event, RankingEvent):
                self._shown.update(event.items)
            yield event

    def matches(self, known: KnownIds, journal: Journal) -> list[Match]:
        """Compare with what a journal knows; only kinds that the events name, and users only if some have events."""
        found = [
            _match("interactions", "items", self._interactions, known.items),
            _match("shown items", "items", self._shown, known.items),
        ]
        if known.users:
            found.append(_match("interactions", "users", self._users, known.users))
        if self._rankings:
            rankings = known_ids(journal.engine, self._rankings, "ranking")
            some = rankings or {event.id for event in islice(journal.events("ranking"), EXAMPLES)}
            found.append(_match("interactions with a ranking", "rankings", self._rankings, rankings, some))
        return [match for match in found if match.total]


def look_alikes(known: KnownIds, most: int = EXAMPLES) -> list[tuple[str, str]]:
    """Return pairs of a made item and a described one that differ in spelling only."""
    return similar_pairs(sorted(known.made_items), sorted(known.items), most)


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


def check_ids_meet(matching: IdMatching, journal: Journal, max_share: float, warn: Callable[[str], None]) -> None:
    """Check before training that what a log names is known; tell `warn` about ids that differ in spelling only.

    Raises ValueError over `max_share`.
    """
    known = KnownIds.of(journal)
    if problem := over_limit(matching.matches(known, journal), max_share):
        raise ValueError(problem)
    if pairs := look_alikes(known):
        named = ", ".join(f"{made!r} and {described!r}" for made, described in pairs)
        warn(f"items that were made of ids look like items that are described: {named}; write ids alike in all sources")


def _match(
    what: str, to: str, named: Mapping[str, int], known: Collection[str], examples: Collection[str] | None = None
) -> Match:
    unknown = Counter({name: count for name, count in named.items() if name not in known})
    some = sorted(known if examples is None else examples)[:EXAMPLES] if unknown else ()
    top = tuple(name for name, _ in unknown.most_common(EXAMPLES))
    similar = similar_pairs(unknown, sorted(known), EXAMPLES) if unknown and known else []
    return Match(what, to, sum(named.values()), unknown.total(), top, tuple(some), tuple(similar))


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in ids)
