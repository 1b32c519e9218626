"""One tower of a dense passage retriever, in Hugging Face's format: DPRQuestionEncoder or DPRContextEncoder.

Karpukhin et al., Dense Passage Retrieval for Open-Domain Question Answering, 2020; made for dot products.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.types import Matrix
from models.text.weights import architecture

ENCODERS = ("DPRQuestionEncoder", "DPRContextEncoder")
LONGEST = 256
"""Tokens of a text that are read."""


class DprTower:
    """Texts to the pooled vectors of a tower, as long as they are."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """device: None takes a GPU where there is one."""
        import torch
        import transformers

        kind = getattr(transformers, architecture(folder))
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = kind.from_pretrained(str(folder)).to(self._device).eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))

    def encode(self, texts: list[str]) -> Matrix:
        """(len(texts), d)."""
        import torch

        most = min(LONGEST, self._model.config.max_position_embeddings)
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            pooled = self._model(**tokens.to(self._device)).pooler_output
        return np.asarray(pooled.float().cpu().numpy(), np.float32)


def is_dpr(folder: Path) -> bool:
    """Whether a model folder holds a tower in this format."""
    return architecture(folder) in ENCODERS
