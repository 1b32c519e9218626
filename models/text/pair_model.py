"""A cross-encoder at work: (text, item) pairs to scores, by onnxruntime, with the items' token ids made ahead.

A request encodes its own text once, joins token ids, and runs one batch. The model is a sequence classifier with one
output, exported from a checkpoint (Nogueira & Cho, Passage Re-ranking with BERT, 2019); scores are its logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import Offsets, Rows, Scores

MODEL, TOKENIZER, TEMPLATE = "pair-model.onnx", "pair-tokenizer.json", "pair.json"
FILES = (MODEL, TOKENIZER, TEMPLATE)
BATCH = 64
"""Pairs of like length that go through the model together."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """How the tokens of two texts stand in one input, and what it is cut to."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]
    """Token types of `before`, the text, `between`, the item and `after`."""
    pad: int
    text_tokens: int = 24
    item_tokens: int = 32
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    """What the model takes."""
    about: tuple[tuple[str, str], ...] = ()
    """Where it comes from: model, revision, licence, digest."""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> PairTemplate:
        """Read what `save` wrote."""
        body = json.loads(path.read_text())
        lists = {name: tuple(value) for name, value in body.items() if isinstance(value, list)}
        lists["about"] = tuple(tuple(pair) for pair in body["about"])
        return cls(**{**body, **lists})


@dataclass(frozen=True, eq=False, slots=True)
class TokenIds:
    """Token ids of n texts, flattened, without the special ones."""

    ids: NDArray[np.int32]
    offsets: Offsets
    """(n + 1,)"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, places: NDArray[Any]) -> NDArray[np.int32]:
        """The ids of these texts, one text after the other."""
        sizes = np.diff(self.offsets)[places]
        first = np.cumsum(sizes) - sizes
        found: NDArray[np.int32] = self.ids[np.repeat(self.offsets[places] - first, sizes) + np.arange(sizes.sum())]
        return found

    def followed_by(self, others: TokenIds) -> TokenIds:
        """These texts, and then others."""
        offsets = np.concatenate([self.offsets, others.offsets[1:] + self.offsets[-1]]).astype(np.int64)
        return TokenIds(np.concatenate([self.ids, others.ids]), offsets)


class PairModel:
    """Scores pairs of a request's text and an item; an `engine.protocols.PairScorer` once it has the items."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """folder: what `models.text.pair_export.export` wrote. threads: 0 takes all cores.

        Raises ValueError where onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ValueError(
                "a cross-encoder is run by onnxruntime, which is not installed: pip install 'feedrank[onnx]'"
            ) from None
        from tokenizers import Tokenizer

        self.folder = folder
        self.template = PairTemplate.load(folder / TEMPLATE)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # threads that wait by spinning take the cores from LightGBM's, and from other sessions'
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # a sum and its normalisation as one step takes six times as long as the normalisation alone
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL), options, disabled_optimizers=["SkipLayerNormFusion"]
        )
        self.items = TokenIds(np.empty(0, np.int32), np.zeros(1, np.int64))

    def with_items(self, items: TokenIds) -> PairModel:
        """The same model, which knows these items by row."""
        self.items = items
        return self

    @property
    def digest(self) -> str:
        """That of the weights."""
        return dict(self.template.about).get("digest", "")

    def tokens(self, texts: Sequence[str], most: int) -> TokenIds:
        """Token ids of each text, cut to `most`."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        cut = [one.ids[:most] for one in found]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in cut])]).astype(np.int64)
        flat = [np.array(one, np.int32) for one in cut]
        return TokenIds(np.concatenate([np.empty(0, np.int32), *flat]), offsets)

    def score(self, texts: Sequence[str], rows: Rows) -> Scores:
        """(N,) logits of (texts[i], item rows[i]); NaN where either has no tokens, or the item is not known."""
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        asked = self.tokens(distinct, self.template.text_tokens)
        which = np.array([place[text] for text in texts], np.int64)
        return self.pairs(asked, which, self.items, rows)

    def pairs(
        self, asked: TokenIds, which: NDArray[np.int64], items: TokenIds, rows: NDArray[np.int32] | NDArray[np.int64]
    ) -> Scores:
        """(N,) logits of text which[i] of `asked` and text rows[i] of `items`; NaN where either has no tokens."""
        out = np.full(len(rows), np.nan, np.float32)
        lengths = np.diff(asked.offsets)[which] + np.where(rows >= 0, np.diff(items.offsets)[rows], 0)
        known = (rows >= 0) & (np.diff(asked.offsets)[which] > 0)
        known &= np.where(rows >= 0, np.diff(items.offsets)[rows] > 0, False)
        order = np.flatnonzero(known)
        order = order[np.argsort(lengths[order], kind="stable")]  # pairs of like length: little is padded
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            out[chosen] = self._run(asked, which[chosen], items, rows[chosen])
        return out

    def _run(self, asked: TokenIds, which: NDArray[Any], items: TokenIds, rows: NDArray[Any]) -> Scores:
        template, n = self.template, len(rows)
        left, right = np.diff(asked.offsets)[which], np.diff(items.offsets)[rows]
        fixed = (template.before, template.between, template.after)
        sizes = np.broadcast_arrays(len(fixed[0]), left, len(fixed[1]), right, len(fixed[2]))
        ends = np.cumsum(sizes, axis=0)[:, :, None]
        parts = (np.arange(ends[-1].max()) >= ends).sum(axis=0)  # which of the five a token is in; 5: none
        ids = np.full(parts.shape, template.pad, np.int64)
        before, between, after = (np.tile(np.array(one, np.int64), n) for one in fixed)
        for part, own in enumerate((before, asked.of(which), between, items.of(rows), after)):
            ids[parts == part] = own
        types = np.array((*template.types, 0), np.int64)[parts]
        mask = (parts < len(sizes)).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        (logits,) = self._session.run(None, {name: feed[name] for name in template.inputs})
        return np.asarray(logits, np.float32).reshape(n)
