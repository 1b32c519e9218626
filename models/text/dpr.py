"""Runs one tower of a dense passage retriever (DPR) in Hugging Face's format.

The towers are DPRQuestionEncoder and DPRContextEncoder (Karpukhin et al., Dense Passage Retrieval for Open-Domain
Question Answering, 2020). Their vectors are trained for dot products.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feedrank.engine.types import Matrix
from feedrank.models.text.model_weights import architecture

ENCODERS = ("DPRQuestionEncoder", "DPRContextEncoder")
MAX_TOKENS = 256
"""Maximum number of tokens of a text."""


class DprTower:
    """Encodes texts to the pooled vectors of a tower, not normalised."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """Load the model from its folder. device: None uses a GPU if there is one."""
        import torch
        import transformers

        model_class = getattr(transformers, architecture(folder))
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model_class.from_pretrained(str(folder)).to(self._device).eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))

    def encode(self, texts: list[str]) -> Matrix:
        """Encode texts to (len(texts), d) vectors."""
        import torch

        max_length = min(MAX_TOKENS, self._model.config.max_position_embeddings)
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            pooled = self._model(**tokens.to(self._device)).pooler_output
        return np.asarray(pooled.float().cpu().numpy(), np.float32)


def is_dpr(folder: Path) -> bool:
    """Return whether a model folder holds a DPR tower."""
    return architecture(folder) in ENCODERS
