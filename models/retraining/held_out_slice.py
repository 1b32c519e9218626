"""The test slice of a retraining: the newest groups of the window that the incumbent has not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import Times
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import LabeledGroups, from_rankings
from feedrank.models.training.labels import LabelSettings


@dataclass(frozen=True, eq=False, slots=True)
class HeldOutSlice:
    """The part of a window that the candidate is tested on."""

    start: int
    """Index of the first ranking of the slice; number of interactions before it if groups come from recall."""
    begins_at: float
    """Unix seconds; NaN for an empty slice."""
    learnable_until: float
    """Unix seconds of the last event before the slice, which the candidate may learn from; NaN: none."""
    rankings: LabeledGroups | None = None
    """The rankings of the slice that have a relevant item; None if groups come from recall."""
    targets: NDArray[np.int64] | None = None
    """Indices of the target interactions in the users' histories; None if groups are rankings."""

    def __len__(self) -> int:
        return len(self.rankings if self.rankings is not None else self.targets if self.targets is not None else ())


def ranking_slice(
    log: EventTable, share: float, learnt_until: float, labels: LabelSettings, item_ids: Vocabulary
) -> HeldOutSlice:
    """Choose the newest rankings: at most this share of the log, and none that an incumbent has learnt.

    learnt_until: unix seconds of the last event that the incumbent has learnt; NaN: it has learnt nothing.
    """
    is_new, total = _is_new(log.rankings.at, learnt_until), len(log.rankings)
    start = max(round(total * (1 - share)), int(np.argmax(is_new)) if is_new.any() else total)
    groups = from_rankings(log, start, total, labels).in_id_order(item_ids)
    groups = groups.select(groups.has_relevant & is_new[start:])
    position = _position(log, len(log.interactions) + start) if start < total else len(log)
    begins_at = float(log.rankings.at[start]) if start < total else float("nan")
    return HeldOutSlice(start, begins_at, _last_time(log, position), rankings=groups)


def recall_slice(log: EventTable, histories: UserHistories, share: float, learnt_until: float) -> HeldOutSlice:
    """Choose each user's first target interaction after a cut, as `ranking_slice` chooses rankings.

    histories: those of the log, which the targets are indices into.
    """
    at = log.interactions.at
    is_new = _is_new(at, learnt_until)
    start = max(
        log.first_interaction_from(log.time_quantile(1 - share)), int(np.argmax(is_new)) if is_new.any() else len(at)
    )
    targets = histories.first_targets_after(start)
    interaction = histories.interaction[targets]
    ranking = log.interactions.ranking[interaction]
    is_new_ranking = np.append(_is_new(log.rankings.at, learnt_until), True)  # the last one: of no ranking
    targets = targets[is_new[interaction] & is_new_ranking[ranking]]
    position = _position(log, start) if start < len(at) else len(log)
    begins_at = float(at[start]) if start < len(at) else float("nan")
    return HeldOutSlice(start, begins_at, _last_time(log, position), targets=targets)


def utc_text(at: float) -> str:
    """Format unix seconds as UTC, to the minute; NaN as unknown."""
    return "an unknown time" if np.isnan(at) else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _is_new(at: Times, learnt_until: float) -> NDArray[np.bool_]:
    """Return whether each event is later than what was learnt; late arrivals with an old time are not."""
    return np.ones(len(at), np.bool_) if np.isnan(learnt_until) else at > learnt_until


def _position(log: EventTable, event: int) -> int:
    """Return the position of an event in the order of the log."""
    return int(np.flatnonzero(log.event_order == event)[0])


def _last_time(log: EventTable, position: int) -> float:
    """Return the latest time of the first events of a log; NaN if there are none."""
    return float(log.at[:position].max()) if position else float("nan")
