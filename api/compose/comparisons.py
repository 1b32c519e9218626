"""Compares the ranker with baselines on the journal: what `feedrank evaluate` and `Home.evaluate` do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedrank.api.compose.training_inputs import TrainingInputs
from feedrank.api.config import Config
from feedrank.api.progress import ShowProgress
from feedrank.models.evaluation import evaluation
from feedrank.models.evaluation.evaluation import Comparison


@dataclass(frozen=True, eq=False, slots=True)
class TimedComparison:
    """The comparison of one protocol, and how long it took."""

    protocol: str
    dataset: str
    """Name of the data set in rows and plots; it names the protocol where that is `temporal` or not the first."""
    comparison: Comparison
    seconds: float

    def checks(self) -> dict[str, Any]:
        """Return the checks of the ranker, JSON-ready: its warnings, and suspect features with their AUC."""
        trained = self.comparison.trained
        return {
            "warnings": list(trained.warnings),
            "suspect_features": {suspect.name: suspect.auc for suspect in trained.suspects},
        }


def protocols_of(inputs: TrainingInputs, config: Config, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the chosen protocols, or those that fit the journal. Raises ValueError for an unknown one."""
    if unknown := [name for name in chosen if name not in evaluation.PROTOCOLS]:
        raise ValueError(f"found the protocol {unknown[0]!r}, expected one of {', '.join(evaluation.PROTOCOLS)}")
    return tuple(chosen) or evaluation.protocols_for(inputs.log, config.training_settings)


def compare(
    inputs: TrainingInputs, config: Config, protocol: str, dataset: str, progress: ShowProgress, is_first: bool = True
) -> TimedComparison:
    """Train on the part before the test slice, and compare the methods on the slice.

    is_first: False for a further protocol of a report, whose rows must have a name of their own. Raises
    TooLittleDataError if the log is too short for the protocol. The caller runs `check_shuffled_labels`, once for all
    protocols.
    """
    started = time.perf_counter()
    name = dataset if is_first and protocol != "temporal" else f"{dataset} ({protocol})"
    run = evaluation.PROTOCOLS[protocol]
    compared = run(inputs.item_inputs, inputs.log, name, config.training_settings, progress)
    return TimedComparison(protocol, name, compared, round(time.perf_counter() - started, 1))
