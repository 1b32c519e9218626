"""Holds the click log as columns: rankings and interactions, in order of time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_table import FieldTable
from feedrank.engine.events.interaction_types import HISTORY_TYPE, POSITIVE, InteractionTypes, MeaningColumns
from feedrank.engine.events.item_arrivals import ItemChanges
from feedrank.engine.events.logged_features import LoggedFeatures
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW, Offsets, Rows, Times


@dataclass(frozen=True, eq=False, slots=True)
class Interactions:
    """Columns of I interactions, in order of time."""

    at: Times
    user: Rows
    item: Rows
    type: NDArray[np.int32]
    """(I,) codes of `EventTable.types`."""
    value: NDArray[np.float64]
    """(I,) NaN if there is none."""
    dwell_s: NDArray[np.float32]
    """(I,) dwell time in seconds, NaN if unknown."""
    ranking: NDArray[np.int64]
    """(I,) index of the ranking it belongs to, -1: none."""
    names_ranking: NDArray[np.bool_]
    """(I,) whether the event names its ranking, which this table may not hold."""
    session: Rows
    """(I,) row of the visitor without a name whose session names the user now; UNKNOWN_ROW: none."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class Rankings:
    """Columns of R rankings, in order of time, with their N items (impressions) flattened."""

    at: Times
    user: Rows
    offsets: Offsets
    items: Rows
    """(N,) rows of the items shown, in order; UNKNOWN_ROW if the catalogue does not have the item."""
    labels: NDArray[np.float32]
    """(N,) logged labels, NaN if there is none."""
    positions: NDArray[np.int32]
    """(N,) logged positions, from 1; -1 if there is none. Logs that are not in display order have none."""
    session: Rows
    """(R,) row of the visitor without a name whose session names the user now; UNKNOWN_ROW: none."""
    logged_features: LoggedFeatures | None = None
    """Logged features of the rankings; None: not loaded."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, eq=False, slots=True)
class UnknownItems:
    """The impressions and interactions of items that the catalogue does not have."""

    ids: Vocabulary
    impressions: NDArray[np.int64]
    """(P,) indices among all impressions, ascending."""
    impression_codes: NDArray[np.int32]
    """(P,) the item of each as a code of `ids`."""
    interactions: NDArray[np.int64]
    """(V,) indices among all interactions, ascending."""
    interaction_codes: NDArray[np.int32]
    """(V,) the item of each as a code of `ids`."""

    @classmethod
    def none(cls) -> UnknownItems:
        """Make the columns of a log without unknown items, or of one that has forgotten them."""
        no_index, no_code = np.empty(0, np.int64), np.empty(0, np.int32)
        return cls(Vocabulary(), no_index, no_code, no_index, no_code)


@dataclass(frozen=True, eq=False, slots=True)
class EventTable:
    """Interactions and rankings, and the order in which they took effect."""

    users: Vocabulary
    types: Vocabulary
    interactions: Interactions
    rankings: Rankings
    event_order: NDArray[np.int64]
    """(I + R,) events in order of time: value i is interaction i, value I + r is ranking r."""
    unknown: UnknownItems
    meanings: InteractionTypes = field(default_factory=InteractionTypes)
    """What the interaction types mean, for labels and user histories."""
    moved: int = 0
    """Number of interactions that stood before their ranking, and were moved to right after it."""
    fields: FieldTable | None = None
    """The declared fields of the log; None: no feature is declared."""
    item_changes: ItemChanges = field(default_factory=ItemChanges.none)
    """The item events; only a table by which a state advances has them."""

    def __len__(self) -> int:
        return len(self.event_order)

    @property
    def at(self) -> Times:
        """(I + R,) unix seconds of each event, aligned with `event_order`."""
        return np.concatenate([self.interactions.at, self.rankings.at])[self.event_order]

    @property
    def is_history(self) -> NDArray[np.bool_]:
        """(I,) True for interactions from before the log began."""
        is_history: NDArray[np.bool_] = self.interactions.type == self.types.row(HISTORY_TYPE)
        return is_history

    def item_codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (N,) items of the impressions and the (I,) items of the interactions as comparable codes.

        The code of an item is its row. Unknown items have codes above all rows.
        """
        shown, interacted = self.rankings.items.astype(np.int64), self.interactions.item.astype(np.int64)
        first = 1 + max(shown.max(initial=UNKNOWN_ROW), interacted.max(initial=UNKNOWN_ROW))
        shown[self.unknown.impressions] = first + self.unknown.impression_codes
        interacted[self.unknown.interactions] = first + self.unknown.interaction_codes
        return shown, interacted

    def shown_ids(self, impressions: NDArray[np.int64], item_ids: Vocabulary) -> list[str]:
        """Return the item ids of impressions by their indices. item_ids: those of the item rows."""
        unknown = self.unknown
        return _names(
            self.rankings.items, impressions, item_ids, unknown.ids, unknown.impressions, unknown.impression_codes
        )

    def interacted_ids(self, interactions: NDArray[np.int64], item_ids: Vocabulary) -> list[str]:
        """Return the item ids of interactions by their indices. item_ids: those of the item rows."""
        unknown, items = self.unknown, self.interactions.item
        return _names(items, interactions, item_ids, unknown.ids, unknown.interactions, unknown.interaction_codes)

    @property
    def type_counts(self) -> dict[str, int]:
        """Number of interactions of each type."""
        counts = np.bincount(self.interactions.type, minlength=len(self.types)).tolist()
        return {name: count for name, count in zip(self.types, counts, strict=True) if count}

    def meaning_columns(self, meanings: InteractionTypes | None = None) -> MeaningColumns:
        """Return what each interaction means; None: by the table's own meanings."""
        interactions = self.interactions
        return (meanings or self.meanings).columns(list(self.types), interactions.type, interactions.value)

    def event_positions(self) -> NDArray[np.int64]:
        """Return the (I + R,) position in `event_order` of each interaction, then of each ranking."""
        positions = np.empty(len(self.event_order), np.int64)
        positions[self.event_order] = np.arange(len(self.event_order))
        return positions

    @property
    def notes(self) -> tuple[str, ...]:
        """What was moved, in a sentence; empty if nothing was."""
        if not self.moved:
            return ()
        return (
            f"moved {self.moved:,} of {len(self.interactions):,} interactions to right after their ranking: they stood"
            " before it, as a clock is behind, files were imported in another order, or rankings were logged late",
        )

    def interactions_before(self, ranking: int) -> int:
        """Return how many interactions stand before a ranking: interactions [0, number) are its past. R: all.

        Cuts in time go by this and not by `at`, so a ranking and its interactions are never on the wrong sides.
        """
        if ranking == len(self.rankings):
            return len(self.interactions)
        position = np.flatnonzero(self.event_order == len(self.interactions) + ranking)[0]
        return int(position) - ranking

    def time_quantile(self, share: float) -> float:
        """Return the unix seconds before which this share of positive interactions lies; ValueError without any."""
        is_positive = self.meaning_columns().meaning == POSITIVE
        if not is_positive.any():
            raise ValueError("found no positive interactions to split by time; load some with `feedrank import`")
        return float(np.quantile(self.interactions.at[is_positive], share))

    def first_interaction_from(self, at: float) -> int:
        """Return the number of interactions before the first one at unix second `at` or later."""
        later = self.interactions.at >= at
        return int(np.argmax(later)) if later.any() else len(later)


def _names(
    items: Rows, indices: NDArray[np.int64], item_ids: Vocabulary, unknown_ids: Vocabulary,
    unknown_indices: NDArray[np.int64], unknown_codes: NDArray[np.int32],
) -> list[str]:  # fmt: skip
    """Return the ids of items by index, known or not."""
    at = np.searchsorted(unknown_indices, indices)
    return [
        item_ids.name(row) if row != UNKNOWN_ROW else unknown_ids.name(int(unknown_codes[place]))
        for row, place in zip(items[indices].tolist(), at.tolist(), strict=True)
    ]
