"""The neural parts, as the config names them: what items and queries go through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from api.config import Config
from api.home import Home
from engine.catalogue import Catalogue
from engine.space import unit_rows
from engine.types import Matrix, QueryVectors
from features.late import TokenVectors
from models.bundle import Bundle
from models.second_phase import SecondPhase
from models.text.embedder import EmbedderSettings, SentenceEmbedder
from models.text.pair_export import exported
from models.text.pair_model import PairModel
from models.text.token_encoder import LateSettings, TokenEncoder
from models.text.vector_cache import Progress
from models.training import Corpus

NONE = "none"
"""The embedder's name where there is to be none."""
T = TypeVar("T")


class Signals(NamedTuple):
    """What models say of the items."""

    text: Matrix
    """(n, d) embeddings, of length 1 or, where length carries meaning, of length 1 on average; (n, 0): none."""
    tokens: TokenVectors | None
    pairs: SecondPhase | None
    made_by: dict[str, str]


def of_items(home: Home, config: Config, catalogue: Catalogue, progress: Progress | None = None) -> Signals:
    """Run the models that the config names over the catalogue; what the caches know is not computed again."""
    documents = catalogue.documents(config.embedder.document)
    text, made_by = np.zeros((len(documents), 0), np.float32), {}
    if config.embedder.model != NONE:
        embedder = SentenceEmbedder(config.embedder, home.vectors)
        text = _of_length_one(embedder.encode(documents, progress))
        made_by["text"] = embedder.digest
    tokens = None
    if config.late_interaction.model:
        encoder = TokenEncoder(config.late_interaction, home.vectors)
        tokens = encoder.items(documents, progress)
        made_by["late"] = encoder.digest
    pairs = None
    chosen = config.cross_encoder
    if chosen.model:
        model = PairModel(exported(chosen, home.pair_models), chosen.threads)
        model = model.with_items(model.tokens(documents, chosen.item_tokens))
        pairs = SecondPhase(model, chosen.best, chosen.ready_share)
        made_by["pair"] = model.digest
    return Signals(text, tokens, pairs, made_by)


class TextModels:
    """The models that a bundle's items went through, for requests' texts and for items that came later."""

    def __init__(self, home: Home, opened: Bundle) -> None:
        config: Mapping[str, Any] = opened.manifest["config"]
        named = config["embedder"]["model"] != NONE
        self._text = known(EmbedderSettings, config["embedder"]) if named else None
        tokens = opened.knowledge.tokens
        self._late = None if tokens is None else known(LateSettings, config["late_interaction"])
        self._projection = None if tokens is None else tokens.projection
        self._home = home

    def __bool__(self) -> bool:
        return self._text is not None or self._late is not None

    def query(self, text: str) -> QueryVectors:
        """A request's text as vectors; models are loaded at the first."""
        vector = None if self._embedder is None else self._embedder.query(text)
        return QueryVectors(vector, None if self._encoder is None else self._encoder.query(text))

    def items(self, documents: Sequence[str]) -> tuple[Matrix, TokenVectors | None]:
        """(n, d) vectors of length 1 of items' documents, and their token vectors in the bundle's numbers."""
        text = np.zeros((len(documents), 0), np.float32)
        if self._embedder is not None:
            text = unit_rows(self._embedder.encode(list(documents)))
        return text, None if self._encoder is None else self._encoder.items(documents, None, self._projection)

    @cached_property
    def _embedder(self) -> SentenceEmbedder | None:
        return None if self._text is None else SentenceEmbedder(self._text, self._home.vectors)

    @cached_property
    def _encoder(self) -> TokenEncoder | None:
        return None if self._late is None else TokenEncoder(self._late, self._home.vectors)


def known(kind: type[T], found: Mapping[str, Any]) -> T:
    """Settings from their plain form, by the fields that `kind` has."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    return kind(**{name: value for name, value in found.items() if name in names})


def corpus(catalogue: Catalogue, signals: Signals, terms: Any) -> Corpus:
    """What training takes."""
    return Corpus(catalogue, signals.text, terms, signals.tokens, signals.pairs, signals.made_by)


def documents_of(opened: Bundle) -> Sequence[str]:
    """The items' texts as the bundle's models read them."""
    return opened.knowledge.catalogue.documents(parts_of(opened))


def parts_of(opened: Bundle) -> tuple[str, ...]:
    """The parts of an item that these are made of."""
    return tuple(opened.manifest["config"]["embedder"]["document"])


def _of_length_one(vectors: Matrix) -> Matrix:
    """Vectors whose length carries meaning, scaled to length 1 on average: views are weighed against each other."""
    lengths = np.linalg.norm(vectors, axis=1)
    mean = float(lengths[lengths > 0].mean()) if np.any(lengths > 0) else 1.0
    return vectors if abs(mean - 1) < 1e-3 else vectors / np.float32(mean)
