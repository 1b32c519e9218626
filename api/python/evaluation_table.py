"""The result of an evaluation: metrics of the ranker and of simpler orders, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from feedrank.api.python.frames import ResultTable
from feedrank.api.python.text_table import as_text
from feedrank.models.evaluation import report
from feedrank.models.evaluation.bootstrap import Difference
from feedrank.models.evaluation.report import Row

RANKER = "lambdarank"
"""The method of the trained ranker."""


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(ResultTable):
    """Metrics of each method on each test set, with 95 % bootstrap intervals of the mean over groups."""

    rows: tuple[Row, ...]
    """One row per data set, method and metric."""
    gains: Mapping[str, Difference]
    """Data set -> paired difference in nDCG@10, ranker minus recall order."""
    seconds: Mapping[str, float]
    """Data set -> how long it took."""
    notes: Mapping[str, tuple[str, ...]]
    """Data set -> what was done with the labels, left out or counted as missed, one sentence each."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the rankers, one sentence each."""
    log_notes: tuple[str, ...] = ()
    """What was done with the log, and which protocols do not fit it, one sentence each."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The test sets, one per protocol."""
        return tuple(self.gains)

    def value(self, method: str, metric: str, dataset: str | None = None) -> float:
        """Return one value. dataset: by default the first. Raises KeyError where there is no such row."""
        dataset = self.datasets[0] if dataset is None else dataset
        for row in self.rows:
            if (row.dataset, row.method, row.metric) == (dataset, method, metric):
                return row.value
        names = {field.name: sorted({str(getattr(row, field.name)) for row in self.rows}) for field in fields(Row)[:3]}
        raise KeyError(f"found no {metric!r} of {method!r} on {dataset!r}; there are {names}")

    def plot(self, path: str | Path, dataset: str | None = None) -> None:
        """Plot a PNG with one panel per metric; it needs matplotlib. dataset: by default the first."""
        dataset = self.datasets[0] if dataset is None else dataset
        report.plot(path, [row for row in self.rows if row.dataset == dataset], RANKER)

    def to_pyarrow(self) -> Any:
        """Return one row per data set, method and metric: dataset, method, metric, value, low, high, groups."""
        import pyarrow as pa

        names = [field.name for field in fields(Row)]
        columns = zip(*map(astuple, self.rows), strict=True) if self.rows else ([] for _ in names)
        return pa.table(dict(zip(names, map(list, columns), strict=True)))

    def __repr__(self) -> str:
        """Return one table per data set as text."""
        parts: list[Any] = [f"note: {note}" for note in self.log_notes]
        for dataset, gain in self.gains.items():
            parts.append(report.table([row for row in self.rows if row.dataset == dataset], RANKER))
            parts.append(
                f"nDCG@10 gain of {RANKER} over recall order: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
                f" ({gain.groups:,} test groups)\n"
            )
            parts += [f"note: {note}" for note in self.notes[dataset]]
        return as_text(*parts, *(f"warning: {line}" for line in self.warnings)).rstrip()
