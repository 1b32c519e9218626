"""Holds the shared embedding space of users and items: blocks `[text | co-occurrence | transitions]`, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from feedrank.engine.types import UNKNOWN_ROW, Matrix, Rows, Scores, Vector


@dataclass(frozen=True, slots=True)
class EmbeddingBlock:
    """A named range of the dimensions, and its weight."""

    name: str
    start: int
    stop: int
    weight: float
    """Share of the block in a dot product; vectors are scaled by its square root."""

    @property
    def slice(self) -> slice:
        """The block's dimensions."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False, slots=True)
class EmbeddingSpace:
    """Item vectors, and the computation of user vectors from them.

    A symmetric block has the same rows on both sides. In a directed block (transitions), `user_side` holds the source
    factors of an item (what follows it) and `item_side` its target factors (what it follows).
    """

    blocks: tuple[EmbeddingBlock, ...]
    item_side: Matrix
    """(n, d) item vectors; the norm of each block is about sqrt(weight), or 0 if the block has no data."""
    user_side: Matrix
    """(n, d) vectors that an item adds to the vector of a user who interacted with it."""
    decay: float
    """Weight of an interaction relative to the next later one, in (0, 1]."""
    history_length: int = 50
    """Number of latest interactions that count."""
    _last_user_vector: tuple[bytes, Vector] | None = field(default=None, init=False, repr=False)
    """Cache of the last user vector, keyed by the bytes of the history rows."""

    def __post_init__(self) -> None:
        if self.item_side.shape != self.user_side.shape or self.item_side.shape[1] != self.blocks[-1].stop:
            raise ValueError(
                f"found item_side {self.item_side.shape}, user_side {self.user_side.shape}, blocks {self.blocks};"
                " expected equal shapes, and as many columns as the blocks have"
            )
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; expected more than 0 and at most 1")

    @property
    def dimensions(self) -> int:
        """Number of dimensions d of a vector."""
        return int(self.item_side.shape[1])

    def block(self, name: str) -> EmbeddingBlock:
        """Return the block of this name. Raises KeyError."""
        for block in self.blocks:
            if block.name == name:
                return block
        raise KeyError(f"found no block {name!r}; there are {', '.join(block.name for block in self.blocks)}")

    @property
    def supports_queries(self) -> bool:
        """Whether query vectors can be searched: there is a text block, and its weight is above 0."""
        return any(block.name == "text" and block.stop > block.start and block.weight > 0 for block in self.blocks)

    def user_vector(self, history: Rows) -> Vector:
        """Return the vector (d,) of a user with this history (item rows, latest first); zeros if it has no known item.

        Each block is the decayed sum of the items' `user_side` vectors, scaled to norm sqrt(weight).
        """
        rows = history[: self.history_length]
        rows = rows[rows != UNKNOWN_ROW]
        last, key = self._last_user_vector, rows.tobytes()
        if last is not None and last[0] == key:  # a request needs it twice: for recall and for features
            return last[1]
        vector = np.zeros(self.dimensions, np.float32)
        if len(rows):
            weights = np.power(self.decay, np.arange(len(rows)), dtype=np.float64).astype(np.float32)
            # an ordered sum, not a matrix product, so that the bits do not depend on the batch
            summed = np.add.reduce(self.user_side[rows] * weights[:, None], axis=0)
            for block in self.blocks:
                vector[block.slice] = _with_squared_norm(summed[block.slice], block.weight)
        vector.flags.writeable = False
        object.__setattr__(self, "_last_user_vector", (key, vector))
        return vector

    def query_vector(self, text_vector: Vector) -> Vector:
        """Return the vector (d,) of a query embedding (text dimensions,).

        Its dot product with an item vector is the cosine of the two texts.
        """
        vector = np.zeros(self.dimensions, np.float32)
        block = self.block("text")
        if block.weight > 0:
            vector[block.slice] = _with_squared_norm(text_vector, 1 / block.weight)
        return vector

    def scores(self, vector: Vector, rows: Rows) -> Scores:
        """Return the (len(rows),) dot products of a vector (d,) with item vectors."""
        return np.asarray(self.item_side[rows] @ vector, np.float32)


def build_embedding_space(
    matrices: dict[str, tuple[Matrix, Matrix]], weights: dict[str, float], decay: float, history_length: int
) -> EmbeddingSpace:
    """Build a space from name -> (item_side, user_side), each (n, d_name), scaled by the square root of its share.

    weights: name -> weight; shares are the weights divided by their sum. Rows are not normalized here: they should have
    norm 1, or 1 on average if the norm carries meaning.
    """
    shares = sum(weights[name] for name in matrices)
    blocks: list[EmbeddingBlock] = []
    start = 0
    for name, (item_side, _) in matrices.items():
        blocks.append(EmbeddingBlock(name, start, start + item_side.shape[1], weights[name] / shares))
        start = blocks[-1].stop
    item_side, user_side = (
        np.concatenate(
            [
                sides[side] * np.float32(np.sqrt(block.weight))
                for sides, block in zip(matrices.values(), blocks, strict=True)
            ],
            axis=1,
        ).astype(np.float32)
        for side in (0, 1)
    )
    return EmbeddingSpace(tuple(blocks), item_side, user_side, decay, history_length)


def unit_rows(matrix: Matrix) -> Matrix:
    """Scale the rows of a matrix to norm 1; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    return (matrix / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def _with_squared_norm(vector: Vector, squared_norm: float) -> Vector:
    length = float(np.sqrt(np.add.reduce(np.square(vector, dtype=np.float64))))
    return vector * np.float32(np.sqrt(squared_norm) / length) if length > 0 else vector
