"""An extra feature family is a function of the user's own, which the config names as "package.module:function"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from feedrank.engine.feature import Feature
from feedrank.engine.plugins import load_plugin
from feedrank.engine.types import Batch
from feedrank.features.families.family import Columns, FamilyFunction, FamilyInputs


class ExtraFamilyError(ValueError):
    """Raised for an extra feature family that can't be used; the message names its path."""


@dataclass(frozen=True, slots=True)
class ExtraFamily:
    """Calls the function of an extra family and checks what it returns."""

    path: str
    """The function as the config names it: "package.module:function"."""
    function: FamilyFunction

    def __call__(self, batch: Batch, inputs: FamilyInputs) -> Columns:
        """Compute the columns of a batch. Raises ExtraFamilyError if that fails or gives no float32 columns by records.

        The batch comes without cross-encoder scores: they are filled in later, for the cross-encoder family alone.
        """
        try:
            columns = self.function(replace(batch, cross_encoder_scores=np.empty(0, np.float32)), inputs)
        except Exception as problem:  # the function is the user's: it may raise anything
            size = f"{len(batch.at)} requests and {len(batch.rows)} candidates"
            raise self._error(f"failed on a batch of {size}: {type(problem).__name__}: {problem}") from problem
        if not isinstance(columns, dict):
            raise self._error(f"returned {_kind(columns)}, expected a dict from Feature to a (N,) float32 array")
        for feature, column in columns.items():
            if not isinstance(feature, Feature):
                raise self._error(
                    f"returned a column without a record: the key {feature!r}; use a Feature "
                    "(from feedrank.engine.feature) as the key"
                )
            if not isinstance(column, np.ndarray) or column.shape != batch.rows.shape:
                raise self._error(
                    f"returned {_kind(column)} for {feature.name}, expected an array of shape {batch.rows.shape}: one "
                    "value per candidate row of the batch"
                )
            if column.dtype != np.float32:
                raise self._error(
                    f"returned {column.dtype} values for {feature.name}, expected float32; use .astype(np.float32)"
                )
        return columns

    def _error(self, problem: str) -> ExtraFamilyError:
        return ExtraFamilyError(f"the extra feature family {self.path!r} {problem}")


def load_extra_families(paths: Sequence[str]) -> dict[str, ExtraFamily]:
    """Import extra families: path -> family, in this order. Raises ExtraFamilyError if one can't be imported."""
    families = {}
    for path in paths:
        try:
            families[path] = ExtraFamily(path, load_plugin(path, "the extra feature family", "function"))
        except ValueError as problem:
            raise ExtraFamilyError(str(problem)) from problem
    return families


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
