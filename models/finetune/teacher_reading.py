"""What a teacher makes of the pairs of a training set: its scores and hidden states, read once and kept in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.types import Matrix, Scores
from models.files import written_aside
from models.finetune.distillation import Shape
from models.finetune.pairs import PairGroups
from models.finetune.student import INPUTS, from_teacher, picked, principal_directions
from models.training import Progress

BATCH = 64
PAIRS = 1_024
"""Whose hidden states say which directions are kept."""
SAMPLE = 20_000
"""Tokens whose states say how far apart states are."""

NO_STATES = np.empty((0, 0), np.float16)


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """What was read, of N pairs with T tokens in all."""

    directions: Tensor
    """(hidden, width) what the student has of the teacher's hidden states."""
    scores: Scores
    """(N,)"""
    starts: NDArray[np.int64]
    """(N,) the row of `states` where a pair's begin."""
    lengths: NDArray[np.int64]
    """(N,) its tokens."""
    states: NDArray[np.float16]
    """(T, layers * width) of the layers that are followed, one after the other, mapped from a file; (0, 0): none."""

    def of(self, places: Sequence[int]) -> Tensor:
        """(tokens, layers * width) the states of some pairs, one pair after the other."""
        parts = [self.states[self.starts[place] : self.starts[place] + self.lengths[place]] for place in places]
        return torch.from_numpy(np.concatenate(parts)).float()

    def spread(self, seed: int) -> Matrix:
        """(layers * width,) how much each number varies from token to token."""
        rows = np.sort(np.random.default_rng(seed).integers(0, len(self.states), SAMPLE))
        found = self.states[rows].astype(np.float32).std(axis=0)
        return np.asarray(np.maximum(found, 1e-3), np.float32)


def read(
    teacher: Any, groups: PairGroups, shape: Shape, folder: Path, keep_states: bool, bfloat16: bool, seed: int,
    progress: Progress,
) -> Reading:  # fmt: skip
    """Ask a teacher (a CrossEncoder) about all pairs, or take up what an earlier run had written to `folder`."""
    states, rest = folder / "states.f16", folder / "reading.npz"
    layers = picked(teacher[0].model.config.num_hidden_layers, shape.layers) if keep_states else []
    if not rest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(teacher, groups, shape.width, layers, states, rest, bfloat16, seed, progress)
    with np.load(rest, allow_pickle=False) as stored:
        directions, scores, starts, lengths = (stored[name] for name in ("directions", "scores", "starts", "lengths"))
    mapped = np.memmap(states, np.float16, "r").reshape(-1, len(layers) * shape.width) if layers else NO_STATES
    return Reading(torch.from_numpy(directions), scores, starts, lengths, mapped)


def _write(
    teacher: Any, groups: PairGroups, width: int, layers: Sequence[int], states: Path, rest: Path, bfloat16: bool,
    seed: int, progress: Progress,
) -> None:  # fmt: skip
    pairs = [(groups.queries[place], text) for place, text in zip(groups.owner.tolist(), groups.texts, strict=True)]
    by_length = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]) + len(pairs[place][1]))
    scores = np.empty(len(pairs), np.float32)
    starts, lengths = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    large = teacher[0].model.eval()

    def inputs_of(places: Sequence[int]) -> dict[str, Tensor]:
        given = teacher.preprocess([pairs[place] for place in places])
        return {name: given[name].to(large.device) for name in INPUTS if name in given}

    sample = np.random.default_rng(seed).permutation(len(pairs))[:PAIRS].tolist()
    batches = [inputs_of(sample[first : first + BATCH]) for first in range(0, len(sample), BATCH)]
    directions = principal_directions(large, batches, width, seed)
    turned = from_teacher(directions).to(large.device)
    written = 0
    with states.open("wb") as file, torch.inference_mode():
        for first in range(0, len(pairs), BATCH):
            places = by_length[first : first + BATCH]
            inputs = inputs_of(places)
            with torch.autocast(large.device.type, torch.bfloat16, enabled=bfloat16):
                found = large(**inputs, output_hidden_states=bool(layers))
            kept = inputs["attention_mask"].bool()
            scores[places] = found.logits[:, 0].float().cpu().numpy()
            lengths[places] = kept.sum(dim=1).cpu().numpy()
            starts[places] = written + np.cumsum(lengths[places]) - lengths[places]
            written += int(lengths[places].sum())
            if layers:
                own = [found.hidden_states[layer + 1][kept].float() @ turned for layer in layers]
                file.write(torch.cat(own, dim=1).half().cpu().numpy().tobytes())
            progress("reading by the teacher", first + len(places), len(pairs))
    with written_aside(rest) as aside:
        np.savez(aside, directions=directions.numpy(), scores=scores, starts=starts, lengths=lengths)
