"""Runs a cross-encoder on (request text, item) pairs with onnxruntime; token ids of items are precomputed.

A request tokenizes its text once, joins token ids, and runs one batch. The model is a sequence classifier with one
output, exported from a checkpoint (Nogueira & Cho, Passage Re-ranking with BERT, 2019). Scores are its logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Offsets, Rows, Scores

MODEL_FILE, TOKENIZER_FILE, TEMPLATE_FILE = "cross-encoder.onnx", "cross-encoder-tokenizer.json", "cross-encoder.json"
FILES = (MODEL_FILE, TOKENIZER_FILE, TEMPLATE_FILE)
BATCH_SIZE = 64
"""Pairs of similar length per forward pass."""


@dataclass(frozen=True, slots=True)
class InputTemplate:
    """How token ids of two texts form one model input, and to how many tokens each text is cut."""

    prefix: tuple[int, ...]
    """Special token ids before the request text; the next two stand between the texts and at the end."""
    separator: tuple[int, ...]
    suffix: tuple[int, ...]
    token_types: tuple[int, int, int, int, int]
    """Token types of prefix, request text, separator, item and suffix."""
    pad_id: int
    """The padding token id."""
    query_tokens: int = 24
    item_tokens: int = 32
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    """Names of the model's inputs."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Source of the model: model, revision, licence, digest."""

    def save(self, path: Path) -> None:
        """Write the template as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> InputTemplate:
        """Read a template that `save` wrote."""
        body = json.loads(path.read_text())
        lists = {name: tuple(value) for name, value in body.items() if isinstance(value, list)}
        lists["metadata"] = tuple(tuple(pair) for pair in body["metadata"])
        return cls(**{**body, **lists})


@dataclass(frozen=True, eq=False, slots=True)
class TokenIds:
    """Token ids of n texts, flattened, without special tokens."""

    ids: NDArray[np.int32]
    offsets: Offsets
    """(n + 1,) bounds of each text in `ids`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, indices: NDArray[Any]) -> NDArray[np.int32]:
        """Return the ids of the texts at these indices, one text after the other."""
        sizes = np.diff(self.offsets)[indices]
        first = np.cumsum(sizes) - sizes
        selected: NDArray[np.int32] = self.ids[np.repeat(self.offsets[indices] - first, sizes) + np.arange(sizes.sum())]
        return selected

    def concat(self, other: TokenIds) -> TokenIds:
        """Concatenate these texts and others."""
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]]).astype(np.int64)
        return TokenIds(np.concatenate([self.ids, other.ids]), offsets)


class CrossEncoderModel:
    """Scores (request text, item) pairs: an `feedrank.engine.protocols.CrossEncoderScorer` once it has the items."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Load a model from the folder that `cross_encoder_export.export` wrote. threads: 0 uses all cores.

        Raises ValueError if onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ValueError(
                "a cross-encoder needs onnxruntime, which is not installed: pip install 'feedrank[onnx]'"
            ) from None
        from tokenizers import Tokenizer

        self.folder = folder
        self.template = InputTemplate.load(folder / TEMPLATE_FILE)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # spinning threads would take cores from LightGBM and from other sessions
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # the fused skip + layer norm takes six times as long as the layer norm alone
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, disabled_optimizers=["SkipLayerNormFusion"]
        )
        self.items = TokenIds(np.empty(0, np.int32), np.zeros(1, np.int64))

    def with_items(self, items: TokenIds) -> CrossEncoderModel:
        """Set the token ids of all items, by row, and return the model itself."""
        self.items = items
        return self

    @property
    def digest(self) -> str:
        """Digest of the weights and precision; empty if unknown."""
        return dict(self.template.metadata).get("digest", "")

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> TokenIds:
        """Tokenize texts to at most `max_tokens` ids each."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids[:max_tokens] for encoding in encodings]
        offsets = np.concatenate([[0], np.cumsum([len(text_ids) for text_ids in ids])]).astype(np.int64)
        flat = [np.array(text_ids, np.int32) for text_ids in ids]
        return TokenIds(np.concatenate([np.empty(0, np.int32), *flat]), offsets)

    def score(self, texts: Sequence[str], rows: Rows) -> Scores:
        """Compute (N,) logits of (texts[i], item rows[i]); NaN if either has no tokens or the item is unknown."""
        distinct = list(dict.fromkeys(texts))
        index_of = {text: i for i, text in enumerate(distinct)}
        queries = self.tokenize(distinct, self.template.query_tokens)
        query_index = np.array([index_of[text] for text in texts], np.int64)
        return self.score_tokens(queries, query_index, self.items, rows)

    def score_tokens(
        self,
        queries: TokenIds,
        query_index: NDArray[np.int64],
        items: TokenIds,
        rows: NDArray[np.int32] | NDArray[np.int64],
    ) -> Scores:
        """Compute (N,) logits of queries[query_index[i]] and items[rows[i]]; NaN if either has no tokens."""
        out = np.full(len(rows), np.nan, np.float32)
        lengths = np.diff(queries.offsets)[query_index] + np.where(rows >= 0, np.diff(items.offsets)[rows], 0)
        scorable = (rows >= 0) & (np.diff(queries.offsets)[query_index] > 0)
        scorable &= np.where(rows >= 0, np.diff(items.offsets)[rows] > 0, False)
        order = np.flatnonzero(scorable)
        order = order[np.argsort(lengths[order], kind="stable")]  # similar lengths in a batch need little padding
        for first in range(0, len(order), BATCH_SIZE):
            batch = order[first : first + BATCH_SIZE]
            out[batch] = self._run_batch(queries, query_index[batch], items, rows[batch])
        return out

    def _run_batch(self, queries: TokenIds, query_index: NDArray[Any], items: TokenIds, rows: NDArray[Any]) -> Scores:
        template, n = self.template, len(rows)
        left, right = np.diff(queries.offsets)[query_index], np.diff(items.offsets)[rows]
        fixed = (template.prefix, template.separator, template.suffix)
        sizes = np.broadcast_arrays(len(fixed[0]), left, len(fixed[1]), right, len(fixed[2]))
        ends = np.cumsum(sizes, axis=0)[:, :, None]
        parts = (np.arange(ends[-1].max()) >= ends).sum(axis=0)  # index of the part that a token is in; 5: padding
        ids = np.full(parts.shape, template.pad_id, np.int64)
        before, between, after = (np.tile(np.array(tokens, np.int64), n) for tokens in fixed)
        for part, part_ids in enumerate((before, queries.select(query_index), between, items.select(rows), after)):
            ids[parts == part] = part_ids
        types = np.array((*template.token_types, 0), np.int64)[parts]
        mask = (parts < len(sizes)).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        (logits,) = self._session.run(None, {name: feed[name] for name in template.inputs})
        return np.asarray(logits, np.float32).reshape(n)
