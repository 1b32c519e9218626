"""The split of a retraining window by time, and what is ranked on its test slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Offsets, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.features.item_model import ItemModel
from feedrank.models.evaluation.metrics import order
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining.held_out_slice import HeldOutSlice, ranking_slice, recall_slice, utc_text
from feedrank.models.retraining.incumbent import Incumbent
from feedrank.models.training.dataset import LabeledGroups, from_recall
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.training import (
    Progress,
    TrainedRanker,
    exact_retriever,
    has_enough_rankings,
    prepare_from_rankings,
    prepare_from_recall,
)
from feedrank.models.training.training_settings import ModelSettings

MAX_TEST_SHARE = 0.5
"""Share of the window up to which the test slice grows if it has too few groups."""
RankedLabels = tuple[NDArray[np.float32], Offsets]
"""Labels in ranked order, best first, and the group offsets."""


@dataclass(frozen=True, eq=False, slots=True)
class TimeSplit:
    """A log, split by time into training, validation and test. Groups are rankings, or come from recall."""

    item_inputs: ItemInputs
    log: EventTable
    settings: ModelSettings
    validation_share: float
    learnt_until: float
    test: HeldOutSlice
    histories: UserHistories | None
    """With unknown items, for groups from recall; None: groups are rankings."""

    @classmethod
    def choose(
        cls, item_inputs: ItemInputs, log: EventTable, settings: ModelSettings, learnt_until: float,
        shares: tuple[float, float], minimum: int,
    ) -> TimeSplit:  # fmt: skip
        """Choose the test slice: its share, or up to `MAX_TEST_SHARE` if that has fewer groups than `minimum`.

        learnt_until: unix seconds of the last event that the incumbent or a text model has learnt, NaN: none; the test
        slice is later. shares: of the validation and the test slice.
        """
        on_rankings = has_enough_rankings(log, settings)
        histories = None if on_rankings else UserHistories.from_log(log, with_unknown_items=True).in_history
        validation_share, share = shares
        largest = max(share, min(MAX_TEST_SHARE, (1 - validation_share) / 2))
        while True:
            if histories is None:
                test = ranking_slice(log, share, learnt_until, settings.labels, item_inputs.catalogue.ids)
            else:
                test = recall_slice(log, histories, share, learnt_until)
            if len(test) >= minimum or share >= largest:
                return cls(item_inputs, log, settings, validation_share, learnt_until, test, histories)
            share = min(1.25 * share, largest)

    def too_little(self, whose: str, minimum: int) -> str:
        """Say that the test slice has fewer groups than `minimum`, and what to do. whose: the learner, in words."""
        kind = "rankings with a relevant item" if self.histories is None else "users with an interaction to predict"
        found = f"found {len(self.test):,} {kind}"
        if np.isnan(self.learnt_until):
            return (
                f"too little data: {found} in the newest part of the window, expected at least {minimum:,}: use a"
                " longer window, or retrain when the log is longer; `feedrank train` trains on all of it"
            )
        last = float(self.log.at.max()) if len(self.log) else float("nan")
        text = (
            f"too little new data: {found} after what {whose}, expected at least {minimum:,}"
            f" (retrain.min_test_groups): until {utc_text(self.learnt_until)}, and the log ends at {utc_text(last)};"
            " retrain when there is more"
        )
        if last < self.learnt_until:
            text += ". The log ends before that: was the journal restored from a backup?"
        return text

    def train(
        self, progress: Progress, incumbent: Incumbent | None, warm_start: bool
    ) -> tuple[TrainedRanker, tuple[str, ...]]:
        """Train on what is before the test slice; return it, and why there was no warm start, if it was to be one."""
        settings, start = self.settings, self.test.start
        with settings.training.matrix_store() as store:
            if self.histories is None:
                validation = start - round(len(self.log.rankings) * self.validation_share)
                if not 0 < validation < start:
                    raise ValueError(
                        f"found {start:,} rankings before the test slice, too few to train and to validate on; use a"
                        " longer window"
                    )
                data = prepare_from_rankings(self.item_inputs, self.log, validation, start, settings, store, progress)
            else:
                trainable = np.arange(len(self.log.interactions)) < start
                data = prepare_from_recall(self.item_inputs, self.log, trainable, settings, store, progress)
            initial, notes = _initial_ranker(incumbent, data.builder) if warm_start else (None, ())
            return data.fit(progress, initial), notes

    def groups_of(self, item_model: ItemModel) -> LabeledGroups:
        """Return the test groups of the candidate; item_model: its own, for groups from recall."""
        if self.test.rankings is not None:
            return self.test.rankings
        assert self.histories is not None
        assert self.test.targets is not None
        groups = from_recall(
            self.log, self.histories, self.test.targets, exact_retriever(item_model),
            self.settings.training.candidates, self.settings.state.history_length,
        )  # fmt: skip
        return groups.in_id_order(self.item_inputs.catalogue.ids)

    def rank(self, incumbent: Incumbent) -> RankedLabels:
        """Rank the test groups with the incumbent: the logged candidates, or those that its own recall finds."""
        catalogue = self.item_inputs.catalogue
        if self.test.rankings is not None:
            return ranked_labels(self.test.rankings, incumbent.score_rankings(self.log, catalogue, self.test.rankings))
        assert self.histories is not None
        assert self.test.targets is not None
        groups, scores = incumbent.rank_targets(
            self.log, catalogue, self.histories, self.test.targets, self.settings.training.candidates,
            self.settings.state.history_length,
        )  # fmt: skip
        return ranked_labels(groups, scores)


def _initial_ranker(
    incumbent: Incumbent | None, builder: FeatureBuilder
) -> tuple[LambdaRanker | None, tuple[str, ...]]:
    """Return the ranker that a warm start continues from, or None and why there is none that fits."""
    ranker = None if incumbent is None else incumbent.ranker
    if ranker is None:
        return None, ("no warm start: there is no incumbent ranker to continue from; trained from the start",)
    if ranker.fingerprint == builder.fingerprint:
        return ranker, ()
    changes = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (
            ("added", set(builder.names) - set(ranker.names)), ("removed", set(ranker.names) - set(builder.names))
        )
        if names
    ]  # fmt: skip
    what = "; ".join(changes) or "the same features with other settings"
    return None, (f"no warm start: the incumbent was trained on other features ({what}); trained from the start",)


def ranked_labels(groups: LabeledGroups, scores: Scores) -> RankedLabels:
    """Return the labels of the groups in the order of the scores; equal scores keep their order."""
    offsets = groups.queries.offsets
    return groups.labels[order(scores, offsets)], offsets
