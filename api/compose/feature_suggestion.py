"""Suggests declared features for the fields of a journal: what `feedrank features suggest` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from feedrank.api.clock import clock_ms
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress
from feedrank.engine.events.event_time import FutureEvents
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent, UserEvent, effective_time
from feedrank.engine.events.interaction_types import HISTORY_TYPE, InteractionTypes
from feedrank.engine.journal.journal import CHUNK_SIZE, Journal
from feedrank.features.catalog import all_features
from feedrank.features.declared.counter_plan import forms_of_all
from feedrank.features.survey.field_summary import FieldSummary
from feedrank.features.survey.field_survey import FieldSurvey
from feedrank.features.survey.suggestion import FieldSuggestion, suggest, suggest_clock
from feedrank.features.survey.survey_context import Context

KINDS = ("item", "user", "interaction", "ranking")
"""The kinds of events that are read, in this order."""
MIN_QUERY_SHARE = 0.01
"""Text fields are matched with queries if at least this share of the rankings has one."""
MAX_TYPES = 3
"""Most interaction types that a rate counts."""


@dataclass(frozen=True, slots=True)
class SuggestionReport:
    """The suggestions for the fields of a journal, and how much of it was read."""

    fields: tuple[FieldSuggestion, ...]
    read: Mapping[str, int]
    """Kind of event -> number of events that were read."""
    total: Mapping[str, int]
    """Kind of event -> number of events in the journal."""

    @property
    def sampled(self) -> tuple[str, ...]:
        """Kinds of events of which only a sample was read."""
        return tuple(kind for kind in KINDS if self.read.get(kind, 0) < self.total.get(kind, 0))

    @property
    def feature_count(self) -> int:
        """Number of suggested features."""
        return sum(len(suggestion.features) for suggestion in self.fields)


def suggest_features(home: HomePaths, config: Config, max_events: int, progress: ShowProgress) -> SuggestionReport:
    """Survey the fields of a journal, and suggest declared features.

    max_events: of each kind; of more, evenly spread parts of the journal are read. Raises ValueError if the journal has
    no items, users or rankings.
    """
    journal = home.existing_journal(config.journal.url)
    counts = journal.count_by_kind()
    if not any(counts.get(kind) for kind in ("item", "user", "ranking")):
        raise ValueError(f"there are no items, users or rankings in {home.journal_path}; import some first")
    reader = _Reader(journal, {kind: counts.get(kind, 0) for kind in KINDS}, max_events, progress)
    survey, clicks, types = FieldSurvey(config.training.seed), dict[str, set[str]](), Counter[str]()
    for event in reader.events("item"):
        if isinstance(event, ItemEvent):
            survey.add_item(event)
    for event in reader.events("user"):
        if isinstance(event, UserEvent):
            survey.add_user(event)
    has_rankings = bool(counts.get("ranking"))
    for event in reader.events("interaction"):
        if isinstance(event, InteractionEvent) and _is_positive(event, config.interactions):
            types[event.type] += 1
            if event.ranking is not None:
                clicks.setdefault(event.ranking, set()).add(event.item)
            if not has_rankings:  # the moments at which features are read then
                survey.add_moment(effective_time(event), event.user, (event.item,))
    for event in reader.events("ranking"):
        if isinstance(event, RankingEvent):
            survey.add_ranking(event, clicks.get(event.id, ()))
    progress("names of existing features", 0, 0)
    summaries = _comparable(survey.summaries(), reader)
    context = _context(config, summaries, types, has_rankings)
    found = suggest(summaries, context)
    clock = suggest_clock(summaries, context)
    return SuggestionReport((*found, *([clock] if clock else [])), reader.read, reader.total)


def _comparable(summaries: list[FieldSummary], reader: _Reader) -> list[FieldSummary]:
    """Return the summaries without the time of the first value, where only a sample of the events was read."""
    is_part = {kind: reader.read[kind] < reader.total[kind] for kind in KINDS}
    return [replace(one, known_share=None) if is_part.get(one.source) else one for one in summaries]


def _context(
    config: Config, summaries: list[FieldSummary], types: Counter[str], has_rankings: bool
) -> Context:  # fmt: skip
    queries = [one for one in summaries if one.source == "request" and one.field == "query"]
    declared = forms_of_all(config.features.declared)
    ranked = [kind for kind, _ in types.most_common() if kind != HISTORY_TYPE] or list(types)
    return Context(
        of=tuple(ranked[:MAX_TYPES]) or ("click",),
        has_rankings=has_rankings,
        has_queries=any(1 - query.missing_share >= MIN_QUERY_SHARE for query in queries),
        documents=config.embedder.document,
        taken={feature.name for feature in all_features(config.features, config.state_spec)},
        declared={f"{source}.{name}" for source, name, _ in declared.keys},
    )


def _is_positive(event: InteractionEvent, types: InteractionTypes) -> bool:
    meaning = types.of(event.type)
    is_below = meaning.min_value is not None and event.value is not None and event.value < meaning.min_value
    return meaning.meaning == "positive" and not is_below


class _Reader:
    """Reads the events of one kind after another: all of them, or evenly spread chunks."""

    def __init__(self, journal: Journal, total: Mapping[str, int], max_events: int, progress: ShowProgress) -> None:
        self._journal, self._max_events, self._progress = journal, max_events, progress
        self.total = dict(total)
        self.read = dict.fromkeys(total, 0)

    def events(self, kind: str) -> Iterator[Event]:
        """Yield the events of a kind in the order of writing, but for those ahead of the clock."""
        expected = min(self.total[kind], self._max_events)
        for _, event in FutureEvents(clock_ms()).skip(self._entries(kind)):
            self.read[kind] += 1
            if self.read[kind] % 1_000 == 0:
                self._progress(f"{kind} events", self.read[kind], expected)
            yield event
        self._progress(f"{kind} events", expected, expected)

    def _entries(self, kind: str) -> Iterator[tuple[int, Event]]:
        if self.total[kind] <= self._max_events:
            self.total[kind] = 0
            for entry in self._journal.read(kind=kind):
                self.total[kind] += 1
                yield entry
            return
        chunks = max(1, self._max_events // CHUNK_SIZE)
        last, done = self._journal.last_offset, 0
        for chunk in range(chunks):
            start = max(done, last * chunk // chunks)
            for offset, event in islice(self._journal.read(start, kind), min(CHUNK_SIZE, self._max_events)):
                done = offset
                yield offset, event
