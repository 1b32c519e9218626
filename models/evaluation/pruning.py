"""Pruning drops declared features that add nothing on validation groups.

Features are tried in the order of their permutation importance. What is left out must pass a test of non-inferiority
against the ranker with all features, and pass it again with rankers of other seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from feedrank.engine.types import Matrix
from feedrank.models.evaluation.bootstrap import Difference, difference
from feedrank.models.evaluation.feature_groups import declared_columns
from feedrank.models.evaluation.metrics import Values, ndcg, order
from feedrank.models.training.label_gain import gain_of
from feedrank.models.training.ranker import LambdaRanker
from feedrank.models.training.training import Progress, TrainingData

SEED_STEP = 1_000
"""Distance of the seeds of repeated trainings; an ensemble uses the seeds right behind the first."""

Outcome: TypeAlias = Literal["dropped", "needed", "too little data"]


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How features are pruned."""

    margin: float = 0.01
    """Largest loss of nDCG@10 that is accepted: the lower end of the 95 % interval must be above minus this."""
    repeats: int = 2
    """Rankers, of different seeds, whose metrics are averaged. Unit: rankers."""
    max_trainings: int = 60
    """Limit of the rankers that are trained."""

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ValueError(f"margin is {self.margin}; expected above 0")
        if self.repeats < 1 or self.max_trainings < 4 * self.repeats:
            raise ValueError(
                f"max_trainings is {self.max_trainings} with {self.repeats} repeats; expected at least "
                f"{4 * max(self.repeats, 1)}: two of all features, one without some, and one to confirm"
            )


@dataclass(frozen=True, slots=True)
class PrunedFeature:
    """What one declared feature gives, and whether it is dropped."""

    name: str
    loss: Difference
    """nDCG@10 that the ranker of all features loses where the values are permuted among the rows."""
    gain_share: float
    """Share of the gain of all splits."""
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class Pruning:
    """The result of pruning."""

    outcome: Outcome
    """dropped: some features add nothing; needed: none can be left out; too little data: that is not known."""
    features: tuple[PrunedFeature, ...]
    """All declared features, the least important first."""
    value: float
    """Mean nDCG@10 with all features."""
    noise: Difference
    """nDCG@10 of all features with other seeds, less that with the first ones; its width must be below the margin."""
    change: Difference | None
    """nDCG@10 without the dropped features less that with all, of seeds that chose nothing; None: none is dropped."""
    trainings: int

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names of the dropped features."""
        return tuple(feature.name for feature in self.features if feature.is_dropped)


def prune(data: TrainingData, options: PruneOptions, progress: Progress = lambda *_: None) -> Pruning:
    """Find the declared features that add nothing on the validation groups.

    data: with its cross-encoder scores. Raises ValueError if no feature is declared.
    """
    columns = declared_columns(data.builder)
    if not columns:
        raise ValueError("the config declares no features; there is nothing to prune")
    trials = _Trials(data, columns, options, progress)
    first, again = ([trials.train((), seed) for seed in trials.seeds(part)] for part in (0, 1))
    noise = trials.compare(trials.mean(again), trials.mean(first))
    rankers, names = [*first, *again], data.builder.names
    full = trials.mean(rankers)
    losses = _permutation_losses(trials, rankers, full, progress)
    importance = [ranker.importance() for ranker in rankers]
    shares = {
        name: float(np.mean([sum(each[names[column]] for column in of) for each in importance]))
        for name, of in columns.items()
    }
    is_strong = {name: loss.low > 0 for name, loss in losses.items()}
    ranked = sorted(columns, key=lambda name: (is_strong[name], losses[name].mean, shares[name]))
    outcome: Outcome = "too little data"
    dropped: tuple[str, ...] = ()
    change: Difference | None = None
    if (noise.high - noise.low) / 2 < options.margin:
        weak = len(ranked) - sum(is_strong.values())
        dropped, change = _confirmed(trials, _eliminate(trials, ranked, weak, full), full)
        outcome = "dropped" if dropped else "needed"
    features = tuple(PrunedFeature(name, losses[name], shares[name], name in dropped) for name in ranked)
    return Pruning(outcome, features, float(np.nanmean(full)), noise, change, trials.done)


class _Trials:
    """Trains rankers without some features, and measures them on the validation groups."""

    def __init__(
        self, data: TrainingData, columns: Mapping[str, Sequence[int]], options: PruneOptions, progress: Progress
    ) -> None:
        # a refitted ranker has learnt the validation groups
        self.data = replace(data, ranker=replace(data.ranker, refit=False))
        self.columns = columns
        self.options = options
        self.done = 0
        self._progress = progress
        self.matrix = data.validation.features()
        self._gain = gain_of(data.ranker.parameters)

    def has_budget(self, sets: int) -> bool:
        """Check whether so many sets of features can still be tried, and the result be confirmed."""
        return self.done + (sets + 1) * self.options.repeats <= self.options.max_trainings

    def seeds(self, part: int) -> range:
        """Return the numbers of the repeats that search (part 0) or confirm (part 1)."""
        return range(part * self.options.repeats, (part + 1) * self.options.repeats)

    def train(self, left_out: Collection[str], seed: int) -> LambdaRanker:
        """Train a ranker without these features. seed: number of the repeat."""
        self._progress(f"rankers trained: {self.done}, at most {self.options.max_trainings}", self.done, 0)
        without = self.data.without([column for name in left_out for column in self.columns[name]])
        settings = replace(without.ranker, seed=without.ranker.seed + SEED_STEP * seed)
        self.done += 1
        return replace(without, ranker=settings).fit_ranker()

    def values(self, left_out: Collection[str], part: int = 0) -> Values:
        """Return (G,) nDCG@10 of each validation group without these features, as the mean of the repeats of a part."""
        return self.mean([self.train(left_out, seed) for seed in self.seeds(part)])

    def mean(self, rankers: Sequence[LambdaRanker], matrix: Matrix | None = None) -> Values:
        """Return (G,) the mean nDCG@10 of some rankers. matrix: of the validation groups; None: as it is."""
        groups = self.data.validation
        rankings = (
            order(ranker.score(self.matrix if matrix is None else matrix), groups.offsets) for ranker in rankers
        )
        found = [ndcg(groups.labels[ranking], groups.offsets, 10, gain=self._gain) for ranking in rankings]
        return np.asarray(np.mean(found, axis=0), np.float64)

    def compare(self, values: Values, full: Values) -> Difference:
        """Return the difference of two sets of features over the validation groups."""
        return difference(values, full, seed=self.data.ranker.seed)

    def is_enough(self, change: Difference) -> bool:
        """Check for non-inferiority: the whole interval is above minus the margin."""
        return change.low > -self.options.margin


def _permutation_losses(
    trials: _Trials, rankers: Sequence[LambdaRanker], full: Values, progress: Progress
) -> dict[str, Difference]:
    """Return declared feature -> what its permuted values cost (Breiman, Random Forests, 2001)."""
    rows = np.random.default_rng(trials.data.ranker.seed).permutation(len(trials.matrix))
    losses: dict[str, Difference] = {}
    for number, (name, columns) in enumerate(trials.columns.items()):
        progress("permuted features", number, len(trials.columns))
        matrix, chosen = trials.matrix.copy(), list(columns)
        matrix[:, chosen] = matrix[rows][:, chosen]
        losses[name] = difference(full, trials.mean(rankers, matrix), seed=trials.data.ranker.seed)
    return losses


def _eliminate(trials: _Trials, ranked: Sequence[str], weak: int, full: Values) -> list[str]:
    """Return features that can be left out together, as the search sees it.

    ranked: the least important first; of these, the first `weak` ones lose nothing that is clear if they are permuted.
    The largest number of weak ones that passes is found by bisection; then each further feature is tried, as one that
    others can replace may lose much if it is permuted.
    """

    def passes(left_out: Sequence[str]) -> bool:
        return trials.is_enough(trials.compare(trials.values(left_out), full))

    dropped, failed = 0, weak + 1
    while failed - dropped > 1 and trials.has_budget(1):
        size = weak if failed > weak else (dropped + failed) // 2
        if passes(ranked[:size]):
            dropped = size
        else:
            failed = size
    chosen = list(ranked[:dropped])
    for name in ranked[dropped + (failed <= weak) :]:
        if trials.has_budget(1) and passes([*chosen, name]):
            chosen.append(name)
    return chosen


def _confirmed(
    trials: _Trials, dropped: Sequence[str], full: Values
) -> tuple[tuple[str, ...], Difference | None]:  # fmt: skip
    """Return the features that can be left out with seeds that chose nothing, and what that changes.

    Where all together can't, half of them, the less important ones, are tried, and so on.
    """
    left = list(dropped)
    while left:
        change = trials.compare(trials.values(left, 1), full)
        if trials.is_enough(change):
            return tuple(left), change
        left = left[: len(left) // 2] if trials.has_budget(0) else []
    return (), None
