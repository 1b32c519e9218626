"""Items that came after training: known without another fit, in rows after those that were there.

What the old items' vectors made of text and categories is a map that was never kept; here it is learnt back from them,
exactly where there are many more items than dimensions, so that a newcomer stands where training would have put it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from engine.catalogue import Catalogue, told_on
from engine.events import FieldValue
from engine.space import Space, unit_rows
from engine.types import NOBODY, Matrix, Offsets, Rows, Scores, Vector
from features.bm25 import TermWeights, words
from features.items import ItemKnowledge, VectorPair
from features.late import TokenVectors

OF_TEXT = ("text", "content", "taste")
"""The views that are functions of an item's text and categories; in the others a newcomer is not known."""
SAMPLE = 16
"""Items an input that the maps are learnt from: the relation is exact, so more of them say no more."""
PASSES, ENOUGH = 50, 1e-4
"""Times that a map is solved at most, and the mean change of a length after which it is solved no more."""
Array = NDArray[Any]
Pairs = Mapping[str, VectorPair]
Items = Mapping[str, Mapping[str, FieldValue]]


class Newcomers:
    """Extends what is known of a bundle's items; made once a bundle, of its knowledge as it was trained."""

    def __init__(self, knowledge: ItemKnowledge, k1: float = 1.5, b: float = 0.75) -> None:
        """k1 and b as the BM25 weights were fitted with."""
        self._knowledge, self._k1, self._b = knowledge, k1, b
        self._room = _Room()

    def extend(
        self, knowledge: ItemKnowledge, items: Items, text: Matrix, documents: Sequence[str],
        tokens: TokenVectors | None = None,
    ) -> ItemKnowledge:  # fmt: skip
        """The bundle's knowledge, or what this gave before, with k items: new ones after the others, in their order.

        Of a known item the fields are merged, and all that is made of its text is made anew in its row; what is known
        of its behaviour stays. text: (k, d) unit vectors of the documents, (k, 0) for zeros. tokens: of the documents,
        in the numbers of those that the knowledge has, if any. Raises ValueError where these do not go together.
        """
        if not items:
            return knowledge
        view, k = knowledge.space.view("text"), len(items)
        width = view.stop - view.start
        text = text if text.shape[1] else np.zeros((len(text), width), np.float32)
        sizes = {"text vectors": len(text), "documents": len(documents), "token vectors": len(tokens or documents)}
        if set(sizes.values()) != {k} or text.shape[1] != width:
            raise ValueError(f"found {sizes} and {text.shape[1]} dimensions, expected {k} of each and {width}")
        catalogue = replaced(knowledge.catalogue, items)
        rows, pad = catalogue.ids.rows(list(items)), (0, len(catalogue) - len(knowledge.catalogue))
        return replace(
            knowledge,
            catalogue=catalogue,
            space=self._space(knowledge.space, rows, text),
            vectors=self._vectors(knowledge.vectors, rows, text, catalogue),
            tables={name: t._replace(offsets=np.pad(t.offsets, pad, "edge")) for name, t in knowledge.tables.items()},
            terms=self._terms(knowledge.terms, rows, documents),
            statistics=_statistics(knowledge.statistics, rows, catalogue, touch_count=0, mean_value=self._mean_value),
            tokens=None if knowledge.tokens is None else self._tokens(knowledge.tokens, rows, tokens),
        )

    def _space(self, space: Space, rows: Rows, text: Matrix) -> Space:
        """Text alone: a newcomer is nowhere in the views of behaviour."""
        view, known, sides = space.view("text"), rows < len(space.targets), list[Array]()
        for old in (space.targets, space.sources):
            made = np.zeros((len(rows), space.dimensions), np.float32)
            made[known] = old[rows[known]]
            made[:, view.slice] = text * np.float32(np.sqrt(view.weight))
            sides.append(self._room.placed(f"space {len(sides)}", old, rows, made))
        return replace(space, targets=sides[0], sources=sides[1])

    def _vectors(self, old: Pairs, rows: Rows, text: Matrix, catalogue: Catalogue) -> Pairs:
        text, flags = text[:, : len(self._mean)], _flags(catalogue, rows)
        # one by one: an item gets the same bits whichever others come with it
        inputs = [self._inputs(text[one : one + 1], flags[one : one + 1])[0] for one in range(len(rows))]
        vectors = {}
        for name, pair in old.items():
            sides = []
            for side, array in list(pair._asdict().items())[: 1 if pair.targets is pair.sources else 2]:
                told = rows if name in OF_TEXT else rows[rows >= len(array)]
                made = np.zeros((len(told), array.shape[1]), np.float32)
                for place, one in enumerate(inputs if name in OF_TEXT else ()):
                    said = one @ self._maps[name, side]  # usually of length 1; what is next to nothing says nothing
                    made[place] = unit_rows(said[None])[0] if np.linalg.norm(said) > 1e-3 else 0
                if name == "text":
                    made[~np.any(text != 0, axis=1)] = 0
                sides.append(self._room.placed(f"vectors {name} {side}", array, told, made))
            vectors[name] = VectorPair(sides[0], sides[-1])
        return vectors

    def _terms(self, old: TermWeights, rows: Rows, documents: Sequence[str]) -> TermWeights:
        """With the idf and the mean length that were fitted; words that no old item has are passed over."""
        idf, mean = self._fitted_terms
        said = [words(document) for document in documents]
        found = [Counter(code for code in old.terms.rows(each).tolist() if code != NOBODY) for each in said]
        sizes = np.array([len(each) for each in found])
        lengths = np.repeat([len(each) for each in said], sizes)
        codes: Array = np.array([code for each in found for code in each], np.int32)
        counts = np.array([count for each in found for count in each.values()], np.float64)
        weights = idf[codes] * self._share(counts, lengths / mean)
        bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        made = {"codes": codes, "weights": weights, "counts": counts}
        flat = {
            name: self._room.flat(f"terms {name}", getattr(old, name), old.offsets, rows, values, bounds)
            for name, values in made.items()
        }
        return TermWeights(old.terms, offsets=_bounds(old.offsets, rows, bounds), **flat)

    def _share(self, counts: Array, lengths: Array) -> NDArray[np.float64]:
        """What BM25 makes of a term's counts in documents of these lengths relative to the mean."""
        return np.asarray(counts * (self._k1 + 1) / (counts + self._k1 * (1 - self._b + self._b * lengths)))

    def _tokens(self, old: TokenVectors, rows: Rows, tokens: TokenVectors | None) -> TokenVectors:
        tokens = tokens or TokenVectors(old.codes[:0], np.zeros(len(rows) + 1, np.int64))
        if tokens.codes.dtype != old.codes.dtype:
            raise ValueError(f"found token vectors in {tokens.codes.dtype}, expected {old.codes.dtype}")
        codes = self._room.flat("tokens", old.codes, old.offsets, rows, tokens.codes, tokens.offsets)
        return TokenVectors(codes, _bounds(old.offsets, rows, tokens.offsets), old.projection)

    @cached_property
    def _mean(self) -> Vector:
        """(d,) of the old items that have a text; (0,) where text weighs nothing, as it can't be had back."""
        text = _text(self._knowledge.space)
        known = np.any(text != 0, axis=1)
        return np.asarray(text[known].mean(axis=0) if known.any() else np.zeros(text.shape[1]), np.float32)

    def _inputs(self, text: Matrix, flags: Matrix) -> Matrix:
        """(n, d + old categories + 1) text around the old items' mean, as `models.content` has it, categories, 1."""
        around = np.zeros_like(text)
        known = np.any(text != 0, axis=1)
        around[known] = unit_rows(text[known] - self._mean)
        return np.concatenate([around, flags[:, : len(self._knowledge.catalogue.categories)], flags[:, -1:]], axis=1)

    @cached_property
    def _maps(self) -> dict[tuple[str, str], Matrix]:
        """(view, side) -> (inputs, width) what makes its vectors of the inputs, up to their length."""
        base = self._knowledge
        n, wanted = len(base.catalogue), SAMPLE * (len(self._mean) + len(base.catalogue.categories) + 1)
        rows = np.sort(np.random.default_rng(7).permutation(n)[:wanted]).astype(np.int32)
        inputs = self._inputs(_text(base.space)[rows], _flags(base.catalogue, rows))
        gram = inputs.T.astype(np.float64) @ inputs
        ridge = 1e-6 * max(float(np.trace(gram)) / len(gram), 1.0)  # little: there is no noise
        gram[np.diag_indices_from(gram)] += ridge
        factor = cho_factor(gram)
        return {
            (name, side): _learnt(inputs, factor, vectors[rows])
            for name, pair in base.vectors.items()
            for side, vectors in pair._asdict().items()
            if name in OF_TEXT and (side == "sources" or vectors is not pair.sources)
        }

    @cached_property
    def _fitted_terms(self) -> tuple[NDArray[np.float64], float]:
        """(terms,) idf, had back from the weights, and the mean length of a document in words."""
        terms = self._knowledge.terms
        idf, n = np.zeros(len(terms.terms)), len(terms.offsets) - 1
        if not len(terms.codes):
            return idf, 1.0
        sizes, counts = np.diff(terms.offsets), terms.counts.astype(np.float64)
        lengths = np.bincount(np.repeat(np.arange(n), sizes), counts, n)
        mean = float(lengths.sum() / n)
        idf[terms.codes] = terms.weights / self._share(counts, np.repeat(lengths / mean, sizes))
        return idf, mean

    @cached_property
    def _mean_value(self) -> float:
        """What an item without values was given: the mean over all; to the digit where every touch has a value."""
        known = self._knowledge.statistics
        if not len(self._knowledge.catalogue) or not {"touch_count", "mean_value"} <= known.keys():
            return float("nan")
        weights = np.expm1(known["touch_count"].astype(np.float64)) + 5  # as `models.items` damps it
        return float(np.average(known["mean_value"].astype(np.float64), weights=weights))


def changed(knowledge: ItemKnowledge, items: Items) -> ItemKnowledge:
    """With these fields of known items, whose documents they leave as they were: nothing is made of a text anew."""
    catalogue = replaced(knowledge.catalogue, items)
    statistics = _statistics(knowledge.statistics, catalogue.ids.rows(list(items)), catalogue)
    return replace(knowledge, catalogue=catalogue, statistics=statistics)


def merged(catalogue: Catalogue, items: Items) -> dict[str, dict[str, FieldValue]]:
    """All fields of these items: those that the catalogue has, where a new one of the same name takes their place."""
    whole: dict[str, dict[str, FieldValue]] = {}
    for item, fields in items.items():
        whole[item] = {}
        if (row := catalogue.ids.row(item)) != NOBODY:
            whole[item] |= {"title": catalogue.titles[row], "text": catalogue.texts[row]}
            whole[item] |= {"category": catalogue.category_names(row), "tags": list(catalogue.tags[row])}
            if not np.isnan(catalogue.published[row]):
                whole[item]["published"] = float(round(catalogue.published[row] * 1000))
            whole[item] |= catalogue.fields[row]
        whole[item] = told_on(whole[item], fields)
    return whole


def replaced(catalogue: Catalogue, items: Items) -> Catalogue:
    """The catalogue with these items: known ones in their rows, their fields merged; new ones after the others.

    No row and no category code moves; new categories get codes after the old ones.
    """
    told = Catalogue.from_items(merged(catalogue, items))
    ids, categories = deepcopy(catalogue.ids), deepcopy(catalogue.categories)
    rows = np.array([ids.add(item) for item in items], np.int32)
    codes = np.array([categories.add(name) for name in told.categories], np.int32)[told.category_codes]
    more = len(ids) - len(catalogue)
    published = np.concatenate([catalogue.published, np.empty(more)])
    published[rows] = told.published
    columns: dict[str, Any] = {}
    for name in ("titles", "texts", "tags", "fields"):
        column = [*getattr(catalogue, name), *[None] * more]
        for row, value in zip(rows.tolist(), getattr(told, name), strict=True):
            column[row] = value
        columns[name] = tuple(column)
    offsets, bounds = catalogue.category_offsets, told.category_offsets
    columns["category_codes"] = _spliced(catalogue.category_codes, offsets, rows, codes, bounds)
    columns["category_offsets"] = _bounds(offsets, rows, bounds)
    return Catalogue(ids=ids, published=published, categories=categories, **columns)


class _Room(dict[str, tuple[Array, Array]]):
    """Arrays by name, with room behind them: adding to the latest one copies nothing, and no older one changes."""

    def after(self, name: str, old: Array, new: Array, afresh: bool = False) -> Array:
        """New rows after the old ones; afresh: in a copy of its own, of which any row may be written to."""
        latest, held = self.get(name, (None, old))
        total = len(old) + len(new)
        if afresh or latest is not old or total > len(held):
            held = np.zeros((total + total // 8 + 1_024, *old.shape[1:]), old.dtype)
            held[: len(old)] = old
        held[len(old) : total] = new
        self[name] = held[:total], held
        return self[name][0]

    def placed(self, name: str, old: Array, rows: Rows, made: Array) -> Array:
        """With what was made in these rows."""
        known = rows < len(old)
        longer = self.after(name, old, made[~known], bool(known.any()))
        longer[rows[known]] = made[known]
        return longer

    def flat(self, name: str, old: Array, offsets: Offsets, rows: Rows, made: Array, bounds: Offsets) -> Array:
        """As `placed`, of rows of any length, flattened."""
        if rows.min() < len(offsets) - 1:
            return _spliced(old, offsets, rows, made, bounds)
        return self.after(name, old, made)


def _spliced(old: Array, offsets: Offsets, rows: Rows, made: Array, bounds: Offsets) -> Array:
    """Flattened rows with those that were made in their places; those past the end come last."""
    last, at, pieces = len(offsets) - 1, 0, []
    for place in np.argsort(rows).tolist():
        pieces += [old[at : offsets[min(rows[place], last)]], made[bounds[place] : bounds[place + 1]]]
        at = int(offsets[min(rows[place] + 1, last)])
    return np.concatenate([*pieces, old[at:]]).astype(old.dtype)


def _bounds(offsets: Offsets, rows: Rows, bounds: Offsets) -> Offsets:
    """The bounds that go with `_spliced`."""
    sizes = np.pad(np.diff(offsets), (0, max(int(rows.max(initial=0)) + 2 - len(offsets), 0)))
    sizes[rows] = np.diff(bounds)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _statistics(old: Mapping[str, Scores], rows: Rows, catalogue: Catalogue, **usual: float) -> dict[str, Scores]:
    """With those of new items, and when these items were published; usual: of an item that nobody has touched."""
    statistics = {}
    for name, column in old.items():
        more = np.full(len(catalogue) - len(column), usual.get(name, np.nan), np.float32)
        statistics[name] = np.concatenate([column, more])
        if name == "published":
            statistics[name][rows] = catalogue.published[rows] / 86_400
    return statistics


def _text(space: Space) -> Matrix:
    """(n, d) the items' text vectors, had back from the space; (n, 0) where they weigh nothing."""
    view = space.view("text")
    width = view.stop - view.start if view.weight > 0 else 0
    return space.targets[:, view.start : view.start + width] / np.float32(np.sqrt(view.weight) or 1)


def _flags(catalogue: Catalogue, rows: Rows) -> Matrix:
    """(len(rows), categories + 1) 1 where an item is in a category, and 1."""
    shape = (len(catalogue), len(catalogue.categories) + 1)
    ones = np.ones(len(catalogue.category_codes), np.float32)
    flags = sparse.csr_matrix((ones, catalogue.category_codes, catalogue.category_offsets), shape=shape)[rows].toarray()
    flags[:, -1] = 1
    return np.asarray(flags, np.float32)


def _learnt(inputs: Matrix, factor: Any, vectors: Matrix) -> Matrix:
    """The map whose results have the directions of these vectors; their lengths are what it says, pass after pass."""
    weights = np.zeros((inputs.shape[1], vectors.shape[1]), np.float32)
    lengths = np.ones(len(vectors), np.float32)
    for _ in range(PASSES if vectors.any() else 0):
        weights = cho_solve(factor, (inputs.T @ (vectors * lengths[:, None])).astype(np.float64)).astype(np.float32)
        before, lengths = lengths, np.einsum("nd,nd->n", inputs @ weights, vectors)
        lengths /= max(float(lengths.mean()), 1e-9)
        if float(np.abs(lengths - before).mean()) < ENOUGH:
            break
    return weights
