"""The result of a training: the new bundle, and the features that its ranker uses most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from feedrank.api.python.frames import ResultTable
from feedrank.api.python.text_table import as_text

SHOWN_FEATURES = 10
"""Features in the `repr`."""


@dataclass(frozen=True, slots=True, repr=False)
class TrainReport(ResultTable):
    """A finished training. The bundle is the current one of the home, if it is `promoted`."""

    bundle: str
    """Name of the bundle."""
    trees: int
    groups: Mapping[str, int]
    """Kind of group -> number: those for training, and those that early stopping validated on."""
    importance: Mapping[str, float]
    """Feature -> its share of the total gain, largest first."""
    seconds: float
    notes: tuple[str, ...] = ()
    """What was done with the log and its labels, and what was left out of the training, one sentence each."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the ranker, one sentence each."""
    promoted: bool = True
    """False: the bundle is kept and does not serve: its ranker is no better than recall order, or `promote` was False.
    """

    def to_pyarrow(self) -> Any:
        """Return one row per feature: feature, share."""
        import pyarrow as pa

        return pa.table(
            {"feature": pa.array(list(self.importance), pa.string()),
             "share": pa.array(list(self.importance.values()), pa.float64())}
        )  # fmt: skip

    def __repr__(self) -> str:
        """Return the bundle and its most important features as text."""
        table = Table("feature", "share of gain", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for feature, share in list(self.importance.items())[:SHOWN_FEATURES]:
            table.add_row(feature, f"{share:.1%}")
        groups = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in self.groups.items())
        head = f"bundle {self.bundle}: {self.trees} trees on groups: {groups} ({self.seconds:.1f} s)"
        head += "" if self.promoted else "; NOT promoted"
        said = [*(f"note: {note}" for note in self.notes), *(f"warning: {line}" for line in self.warnings)]
        return as_text("\n".join([head, *said]), table)
