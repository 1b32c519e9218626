"""Compute a teacher's scores and hidden states on the training pairs once, and store them in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feedrank.engine.types import Matrix, Scores
from feedrank.models.atomic_files import atomic_write
from feedrank.models.finetune.distillation_settings import DistillSettings
from feedrank.models.finetune.samples import QueryTextGroups
from feedrank.models.finetune.student_init import MODEL_INPUTS, principal_directions, select_layers, state_projection
from feedrank.models.training.training import Progress

BATCH_SIZE = 64
PCA_SAMPLE_PAIRS = 1_024
"""Query-text pairs whose hidden states are the sample for PCA."""
STD_SAMPLE_TOKENS = 20_000
"""Tokens whose hidden states are the sample for their standard deviation."""

NO_STATES = np.empty((0, 0), np.float16)


@dataclass(frozen=True, eq=False, slots=True)
class TeacherOutputs:
    """Hold the teacher's outputs on N query-text pairs with T tokens in all."""

    directions: Tensor
    """(teacher hidden size, student hidden size) principal directions of the teacher's hidden states."""
    scores: Scores
    """(N,) logits of the teacher."""
    starts: NDArray[np.int64]
    """(N,) first row of each pair in `states`."""
    lengths: NDArray[np.int64]
    """(N,) number of tokens of each pair."""
    states: NDArray[np.float16]
    """(T, layers * student hidden size) projected states of the selected layers, memory-mapped; (0, 0): none."""

    def states_of(self, indices: Sequence[int]) -> Tensor:
        """Return the (tokens, layers * student hidden size) states of these pairs, concatenated."""
        parts = [self.states[self.starts[row] : self.starts[row] + self.lengths[row]] for row in indices]
        return torch.from_numpy(np.concatenate(parts)).float()

    def state_std(self, seed: int) -> Matrix:
        """Return the (layers * student hidden size,) standard deviation of each dimension over sampled tokens."""
        rows = np.sort(np.random.default_rng(seed).integers(0, len(self.states), STD_SAMPLE_TOKENS))
        std = self.states[rows].astype(np.float32).std(axis=0)
        return np.asarray(np.maximum(std, 1e-3), np.float32)


def load_or_compute(
    teacher: Any, groups: QueryTextGroups, settings: DistillSettings, folder: Path, progress: Progress
) -> TeacherOutputs:
    """Run a teacher (a CrossEncoder) on all pairs, or load what an earlier session wrote to `folder`."""
    states_path, outputs_path = folder / "states.f16", folder / "outputs.npz"
    student = settings.student_config
    layers: Sequence[int] = ()
    if settings.hidden_state_weight > 0:
        layers = select_layers(teacher[0].model.config.num_hidden_layers, student.layers)
    if not outputs_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compute(teacher, groups, settings, layers, states_path, outputs_path, progress)
    with np.load(outputs_path, allow_pickle=False) as stored:
        directions, scores, starts, lengths = (stored[name] for name in ("directions", "scores", "starts", "lengths"))
    states = NO_STATES
    if layers:
        states = np.memmap(states_path, np.float16, "r").reshape(-1, len(layers) * student.hidden_size)
    return TeacherOutputs(torch.from_numpy(directions), scores, starts, lengths, states)


def _compute(
    teacher: Any,
    groups: QueryTextGroups,
    settings: DistillSettings,
    layers: Sequence[int],
    states_path: Path,
    outputs_path: Path,
    progress: Progress,
) -> None:
    pairs = [
        (groups.queries[group], text) for group, text in zip(groups.group_index.tolist(), groups.texts, strict=True)
    ]
    by_length = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
    scores = np.empty(len(pairs), np.float32)
    starts, lengths = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    model = teacher[0].model.eval()

    def inputs_of(rows: Sequence[int]) -> dict[str, Tensor]:
        features = teacher.preprocess([pairs[row] for row in rows])
        return {name: features[name].to(model.device) for name in MODEL_INPUTS if name in features}

    sample = np.random.default_rng(settings.seed).permutation(len(pairs))[:PCA_SAMPLE_PAIRS].tolist()
    batches = [inputs_of(sample[first : first + BATCH_SIZE]) for first in range(0, len(sample), BATCH_SIZE)]
    directions = principal_directions(model, batches, settings.student_config.hidden_size, settings.seed)
    projection = state_projection(directions).to(model.device)
    written = 0
    with states_path.open("wb") as file, torch.inference_mode():
        for first in range(0, len(pairs), BATCH_SIZE):
            rows = by_length[first : first + BATCH_SIZE]
            inputs = inputs_of(rows)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.bfloat16):
                output = model(**inputs, output_hidden_states=bool(layers))
            mask = inputs["attention_mask"].bool()
            scores[rows] = output.logits[:, 0].float().cpu().numpy()
            lengths[rows] = mask.sum(dim=1).cpu().numpy()
            starts[rows] = written + np.cumsum(lengths[rows]) - lengths[rows]
            written += int(lengths[rows].sum())
            if layers:
                projected = [output.hidden_states[layer + 1][mask].float() @ projection for layer in layers]
                file.write(torch.cat(projected, dim=1).half().cpu().numpy().tobytes())
            progress("teacher inference", first + len(rows), len(pairs))
    with atomic_write(outputs_path) as temporary:
        np.savez(temporary, directions=directions.numpy(), scores=scores, starts=starts, lengths=lengths)
