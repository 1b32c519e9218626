"""What an item's text and categories say of behaviour: views that hold for items nobody has touched yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from engine.catalogue import Catalogue
from engine.space import unit_rows
from engine.types import Matrix
from features.items import VectorPair
from models.sequences import Sequences

CATEGORY_WEIGHT = 0.3
"""Length of a category's dimension beside the unit vector of the text."""
COMPONENTS = 96
"""Principal components of the text that features and the taste view work on."""
PEOPLE = 50_000
"""People whose touches are added up at a time."""


def centred(text: Matrix) -> Matrix:
    """Unit vectors around the mean of the items: what tells them apart, without what all of them share."""
    known = np.any(text != 0, axis=1)
    vectors = np.zeros_like(text)
    if known.any():
        vectors[known] = unit_rows(text[known] - text[known].mean(axis=0))
    return vectors


def principal(vectors: Matrix, sequences: Sequences) -> Matrix:
    """(n, at most COMPONENTS) centred vectors in the directions in which the touched items differ most.

    What is left out tells the texts apart least; what is kept costs a quarter of the time in every feature.
    """
    known = vectors[np.unique(sequences.items)].astype(np.float64)
    if vectors.shape[1] <= COMPONENTS or not len(known):
        return vectors
    _, directions = np.linalg.eigh(np.cov(known, rowvar=False))
    return np.asarray(vectors @ directions[:, ::-1][:, :COMPONENTS], np.float32)


def expected_factors(
    vectors: Matrix, catalogue: Catalogue, factors: Matrix, sequences: Sequences, ridge: float = 30.0
) -> Matrix:
    """(n, rank) the co-click factors that an item's text and categories lead one to expect, as unit vectors.

    Ridge regression weighted by the square root of how often an item was touched; so an item that nobody has touched
    stands near what the people like who like such texts. vectors: (n, d) as `centred` gives them.
    """
    counts = np.bincount(sequences.items, minlength=len(catalogue)).astype(np.float64)
    inputs = _inputs(vectors, catalogue)
    known = np.flatnonzero(counts > 0)
    weighted = inputs[known] * np.sqrt(counts[known])[:, None]
    gram = weighted.T @ inputs[known] + ridge * np.eye(inputs.shape[1])
    return unit_rows((inputs @ np.linalg.solve(gram, weighted.T @ factors[known])).astype(np.float32))


def taste(vectors: Matrix, catalogue: Catalogue, sequences: Sequences) -> VectorPair:
    """Sources and targets whose product says how well an item goes with the rest of a person's touches.

    A bilinear map between an item's content and the mean content of the other touches of the people who touched it, by
    regularised canonical correlation (Hotelling, Relations between two sets of variates, 1936). A person weighs
    1 / sqrt(touches). vectors: (n, d) as `principal` gives them.
    """
    inputs = _inputs(vectors, catalogue)
    several = np.diff(sequences.offsets) > 1
    touched = sequences.keep(np.repeat(several, np.diff(sequences.offsets)))
    if not len(touched.items):
        nothing = np.zeros((len(catalogue), inputs.shape[1]), np.float32)
        return VectorPair(nothing, nothing)
    counts = np.bincount(touched.items, minlength=len(catalogue))
    inputs -= counts @ inputs / counts.sum()
    of_items, of_rest, across = _moments(inputs, touched)
    identity = np.eye(len(across)) * np.trace(of_items) / len(across)
    onto = np.linalg.solve(of_items + 0.3 * identity, across)
    onto = np.linalg.solve(of_rest + np.eye(len(across)) * np.trace(of_rest) / len(across), onto.T).T
    return VectorPair(unit_rows(inputs.astype(np.float32)), unit_rows((inputs @ onto).astype(np.float32)))


def _moments(
    inputs: NDArray[np.float64], sequences: Sequences
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Second moments of touched items x, of the rest of their people's touches r = (S - x) / (m - 1 + 5), and across.

    S is the sum of a person's m touches. Written out, sums over touches become sums over items and over people, so
    nothing is as long as the log: with w = 1 / sqrt(m) and c = m + 4, and a sum over a person's touches,
    sum(x r') = (S S' - sum(x x')) / c and sum(r r') = ((m - 2) S S' + sum(x x')) / c^2.
    """
    sizes = np.diff(sequences.offsets).astype(np.float64)
    weight, damped = 1 / np.sqrt(np.maximum(sizes, 1)), sizes + 4
    owners = sequences.person

    def of_touches(by_person: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of x x' over all touches, each weighed by its person."""
        by_item = np.bincount(sequences.items, by_person[owners], len(inputs))
        return np.asarray((inputs * by_item[:, None]).T @ inputs)

    of_items, of_rest = of_touches(weight), of_touches(weight / damped**2)
    across = -of_touches(weight / damped)
    for first in range(0, len(sizes), PEOPLE):
        part = slice(first, min(first + PEOPLE, len(sizes)))
        bounds = sequences.offsets[part.start : part.stop + 1]
        items = sequences.items[bounds[0] : bounds[-1]]
        shape = (part.stop - part.start, len(inputs))
        totals = sparse.csr_matrix((np.ones(len(items)), items, bounds - bounds[0]), shape=shape) @ inputs
        of_rest += (totals * (weight * (sizes - 2) / damped**2)[part, None]).T @ totals
        across += (totals * (weight / damped)[part, None]).T @ totals
    return of_items, of_rest, across


def _inputs(vectors: Matrix, catalogue: Catalogue) -> NDArray[np.float64]:
    """(n, d + categories) text vectors beside category flags."""
    n, codes = len(catalogue), catalogue.category_codes
    values = np.full(len(codes), CATEGORY_WEIGHT)
    shape = (n, max(len(catalogue.categories), 1))
    flags = sparse.csr_matrix((values, codes, catalogue.category_offsets), shape=shape).toarray()
    return np.concatenate([vectors, flags], axis=1).astype(np.float64)
