"""The record of a ranking: what is answered, logged, explained, replayed and read by experiments.

A `RankingEvent` has the fields that any log may have. What only this service knows of a ranking, such as its
candidates and its fallback level, is in the event's object `served`. Only this module reads or writes that object.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feedrank.engine.events.checks import PROBABILITY
from feedrank.engine.events.events import SERVED, Event, RankingEvent
from feedrank.engine.events.logged_features import LoggedRows, encode_scores
from feedrank.engine.events.object_reader import ObjectReader
from feedrank.engine.serving.pipeline import FULL
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.types import Ranking, Scores

if TYPE_CHECKING:
    from feedrank.engine.serving.serving_snapshot import RankingJob


class DuplicateRankingIdError(ValueError):
    """Raised if the id of a new ranking already belongs to another event, or to the ranking of another request."""


class UnloggableRankingError(ValueError):
    """Raised for a ranking that the journal could not give back; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RecallRecord:
    """What recall returned for a ranking."""

    source: str
    """Name of the retriever."""
    items: tuple[str, ...] = ()
    """The ids that would have been shown in recall order."""
    scores: tuple[float | None, ...] = ()
    """The recall score of each item shown; None for one that is not finite."""
    candidates: int | None = None
    """Number of candidates; None: not logged."""


@dataclass(frozen=True, slots=True)
class RankingRecord:
    """A ranking with all that its answer, its log entry, its explanation and its replay need."""

    id: str
    timestamp: int
    """Epoch milliseconds: the time as of which the state was read."""
    request: RecommendationRequest
    items: tuple[str, ...]
    """The ids shown, best first."""
    scores: tuple[float | None, ...]
    """The score of each item; None for one that is not finite."""
    bundle: str
    """Name of the bundle that ranked."""
    recall: RecallRecord
    offset: int | None = None
    """Journal offset of the last event that the state included; None: not logged."""
    items_offset: int | None = None
    """Journal offset of the last item event that the catalogue included."""
    fallback: str = FULL
    """Level of the fallback chain that made the ranking."""
    degraded: tuple[str, ...] = ()
    """The parts that were skipped or cut short, for the deadline or after an error."""
    features: LoggedRows | None = None
    """The feature rows of the items shown; None: nothing was scored, or interleaved arms have other features."""
    cross_encoder_scores: str = ""
    """Cross-encoder scores of all candidates in recall order, encoded; empty: there is no cross-encoder."""
    experiments: tuple[tuple[str, str], ...] = ()
    """(experiment, variant) of each experiment that the request was in."""
    arm_overrides: Mapping[str, Any] = field(default_factory=dict)
    """The settings that the arm changed, JSON-ready."""
    interleaving: str = ""
    """Method that interleaved the arms' lists; empty: one arm made the list."""
    team: tuple[str, ...] | None = None
    """Of an interleaved list, the arm credited for each item; empty: none."""
    ranks: tuple[tuple[int, ...], ...] = ()
    """Of a balanced interleaving, the rank of each item in each arm's list, from 0; -1 where it is not there."""
    propensities: tuple[float, ...] | None = None
    """The probability of each item at its position; None: nothing was sampled."""
    seed: int | None = None
    """Seed of the sampling or the interleaving."""
    logged: bool = True
    """False: the journal could not be written."""
    malformed: tuple[str, ...] = ()
    """The parts of a logged record that have another shape than expected, and were read as absent."""

    @property
    def user(self) -> str | None:
        """The user of the request."""
        return self.request.user

    @property
    def session(self) -> str | None:
        """The session of the request."""
        return self.request.session

    @property
    def surface(self) -> str | None:
        """Where the ranking is shown."""
        return self.request.surface

    @property
    def source(self) -> str:
        """Name of the retriever."""
        return self.recall.source

    @property
    def experiment(self) -> str | None:
        """The first experiment that the request was in."""
        return self.experiments[0][0] if self.experiments else None

    @property
    def variant(self) -> str | None:
        """The variant of the first experiment."""
        return self.experiments[0][1] if self.experiments else None

    def variant_of(self, experiment: str) -> str | None:
        """Return the variant of an experiment that the request was in; None if it was not in it."""
        return dict(self.experiments).get(experiment)

    def decoded_cross_encoder_scores(self) -> Scores:
        """Decode the (candidates,) cross-encoder scores in recall order. Raises ValueError if they are damaged."""
        return np.frombuffer(b64decode(self.cross_encoder_scores, validate=True), "<f4").astype(np.float32)

    @classmethod
    def from_ranking(cls, job: RankingJob, fallback: str, ranking: Ranking) -> RankingRecord:
        """Build the record of a ranking that is already cut to the items shown."""
        candidates, request, item_ids = ranking.candidates, job.request, job.snapshot.catalogue.ids
        if request.items is None:
            items = item_ids.names(ranking.rows)
            recall_items = item_ids.names(candidates.rows[: len(items)])
        else:
            items = [request.items[index] for index in ranking.order.tolist()]
            recall_items = list(request.items[: request.n])
        recall_scores = _finite(candidates.scores[ranking.order])
        featurizer = job.pipeline.featurizer
        return cls(
            id=job.id,
            timestamp=job.timestamp,
            request=request,
            items=tuple(items),
            scores=_finite(ranking.scores),
            bundle=job.pipeline.bundle,
            recall=RecallRecord(candidates.source, tuple(recall_items), recall_scores, len(candidates.rows)),
            offset=job.reading.offset,
            items_offset=job.snapshot.items_offset,
            fallback=fallback,
            features=LoggedRows.encode(featurizer.fingerprint, ranking.features) if len(ranking.features) else None,
            cross_encoder_scores=encode_scores(ranking.cross_encoder_scores),
        )

    def to_answer(self) -> dict[str, Any]:
        """Return the public part of the ranking, JSON-ready: what a client gets, without what only the log needs."""
        return {
            "ranking": self.id,
            "timestamp": self.timestamp,
            "user": self.request.user,
            "bundle": self.bundle,
            "source": self.recall.source,
            "items": [{"id": item, "score": score} for item, score in zip(self.items, self.scores, strict=True)],
            "degraded": list(self.degraded),
            "experiments": dict(self.experiments),
            "logged": self.logged,
        }

    def to_event(self) -> RankingEvent:
        """Return the ranking event to log; `from_event` gives the record back.

        Raises UnloggableRankingError for a ranking that could not be read back. The request was checked before.
        """
        self._check_loggable()
        request = self.request
        served: dict[str, Any] = {
            "offset": self.offset,
            "items_offset": self.items_offset,
            "recall": {
                "items": list(self.recall.items),
                "scores": list(self.recall.scores),
                "candidates": self.recall.candidates,
            },
            "fallback": None if self.fallback == FULL else self.fallback,
            "degraded": list(self.degraded),
            "cross_encoder_scores": self.cross_encoder_scores,
            "experiments": [list(entry) for entry in self.experiments],
            "arm_overrides": dict(self.arm_overrides),
            "interleaving": self.interleaving,
            "ranks": [list(ranks) for ranks in self.ranks],
            "options": request.non_default_options(self.items),
            "logged": None if self.logged else False,
        }
        return RankingEvent(
            id=self.id,
            timestamp=self.timestamp,
            items=self.items,
            user=request.user,
            session=request.session,
            fields={**request.context, "source": self.recall.source, **request.logged_fields()},
            positions=tuple(range(1, len(self.items) + 1)),
            scores=self.scores,  # type: ignore[arg-type]  # none of them is None here
            propensities=self.propensities,
            surface=request.surface,
            bundle=self.bundle,
            experiment=self.experiment,
            variant=self.variant,
            team=self.team,
            seed=self.seed,
            item_fields=request.fields_of(self.items),
            features=None if self.features is None else self.features.to_json(),
            served={name: value for name, value in served.items() if value is not None and value not in ("", [], {})},
            provenance=SERVED,
        )

    def _check_loggable(self) -> None:
        """Check what a retriever, a ranker or a sampler may get wrong. Raises UnloggableRankingError."""
        if None in self.scores:
            index = self.scores.index(None)
            raise UnloggableRankingError(f"the score of {self.items[index]!r} is not finite; check the ranker")
        if len(set(self.items)) < len(self.items):
            raise UnloggableRankingError("an item is listed more than once; check the retriever")
        if not all(share in PROBABILITY for share in self.propensities or ()):
            expected = "probabilities above 0 and at most 1; raise the temperature of the arm's exploration"
            raise UnloggableRankingError(f"found the propensities {self.propensities}, expected {expected}")

    @classmethod
    def from_event(cls, event: RankingEvent) -> RankingRecord:
        """Rebuild the record from any ranking event; what the event lacks is absent in the record.

        A part of `served` with another shape than expected is read as absent, and named in `malformed`: the event may
        come from a client.
        """
        served = ObjectReader(event.served or {})
        recall = served.mapping("recall")
        n = len(event.items)
        recall_items, recall_scores = recall.strings("items"), recall.numbers("scores")
        if len(recall_items) != n or len(recall_scores) != n:
            recall_items, recall_scores = (), ()
        experiments = served.pairs("experiments")
        if not experiments and event.experiment and event.variant:
            experiments = ((event.experiment, event.variant),)
        try:
            request = RecommendationRequest.from_log(event, served.mapping("options").values)
        except (AttributeError, TypeError, ValueError):
            served.malformed.append("options")
            request = RecommendationRequest.from_log(event, {})
        return cls(
            id=event.id,
            timestamp=event.timestamp,
            request=request,
            items=event.items,
            scores=(None,) * n if event.scores is None else event.scores,
            bundle=event.bundle or "",
            recall=RecallRecord(
                str(event.fields.get("source", "")), recall_items, recall_scores, recall.integer("candidates")
            ),
            offset=served.integer("offset"),
            items_offset=served.integer("items_offset"),
            fallback=served.string("fallback") or FULL,
            degraded=served.strings("degraded"),
            features=LoggedRows.from_json(event.features, n),
            cross_encoder_scores=served.string("cross_encoder_scores"),
            experiments=experiments,
            arm_overrides=served.mapping("arm_overrides").values,
            interleaving=served.string("interleaving"),
            team=event.team,
            ranks=served.integer_lists("ranks", n),
            propensities=event.propensities,
            seed=event.seed,
            logged=(event.served or {}).get("logged") is not False,
            malformed=(*served.malformed, *(f"recall.{name}" for name in recall.malformed)),
        )

    @classmethod
    def find_own(cls, event: Event | None) -> RankingRecord | None:
        """Return the record of a ranking that this service made; None for any other event.

        Its `provenance` says so, which no caller may set; in one of an earlier version both `provenance` and
        `received` are absent. It has a bundle, scores and the name of its retriever.
        """
        if not isinstance(event, RankingEvent):
            return None
        if event.provenance != SERVED and (event.provenance is not None or event.received is not None):
            return None
        is_whole = None not in (event.bundle, event.scores, event.fields.get("source"))
        return cls.from_event(event) if is_whole else None

    def check_same_request(self, event: Event | None) -> RankingRecord:
        """Return the record of a logged event if it is a ranking of the same request, as of the same user and query.

        Settings that an experiment may change make no difference. Raises DuplicateRankingIdError.
        """
        logged = RankingRecord.find_own(event)
        again = RankingRecord.from_event(self.to_event())  # as the log has it, for example without empty options
        if logged is None or logged.malformed or _identity(logged.request) != _identity(again.request):
            what = "another event" if logged is None else "the answer to another request, such as of another user,"
            raise DuplicateRankingIdError(f"{what} has the id {self.id!r}; choose another ranking id")
        return logged


def _identity(request: RecommendationRequest) -> tuple[object, ...]:
    """Return what makes a request another one."""
    return (
        request.user, request.session, request.query, request.history, request.items, request.n, request.filters,
        request.surface,
    )  # fmt: skip


def _finite(scores: Scores) -> tuple[float | None, ...]:
    values = scores.tolist()
    return tuple(value if math.isfinite(value) else None for value in values)
