"""The neural parts, as the config names them: what items and queries go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import numpy as np

from api.config import Config
from api.home import Home
from engine.catalogue import Catalogue
from engine.types import Matrix, QueryVectors, Vector
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


def query_encoder(home: Home, opened: Bundle) -> Callable[[str], QueryVectors] | None:
    """Turns a request's text into vectors, by the models that the bundle's items went through, loaded at the first."""
    config: Mapping[str, Any] = opened.manifest["config"]
    text = None if config["embedder"]["model"] == NONE else known(EmbedderSettings, config["embedder"])
    late = known(LateSettings, config["late_interaction"]) if opened.knowledge.tokens is not None else None
    if text is None and late is None:
        return None
    embedders: list[SentenceEmbedder] = []
    encoders: list[TokenEncoder] = []

    def encode(query: str) -> QueryVectors:
        vector: Vector | None = None
        tokens: Matrix | None = None
        if text is not None:
            embedders[:] = embedders or [SentenceEmbedder(text, home.vectors)]
            vector = embedders[0].query(query)
        if late is not None:
            encoders[:] = encoders or [TokenEncoder(late, home.vectors)]
            tokens = encoders[0].query(query)
        return QueryVectors(vector, tokens)

    return encode


def known(kind: type[T], found: Mapping[str, Any]) -> T:
    """Settings from their plain form, by the fields that `kind` has."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    return kind(**{name: value for name, value in found.items() if name in names})


def corpus(catalogue: Catalogue, signals: Signals, terms: Any) -> Corpus:
    """What training takes."""
    return Corpus(catalogue, signals.text, terms, signals.tokens, signals.pairs, signals.made_by)


def documents_of(opened: Bundle) -> Sequence[str]:
    """The items' texts as the bundle's models read them."""
    return opened.knowledge.catalogue.documents(tuple(opened.manifest["config"]["embedder"]["document"]))


def _of_length_one(vectors: Matrix) -> Matrix:
    """Vectors whose length carries meaning, scaled to length 1 on average: views are weighed against each other."""
    lengths = np.linalg.norm(vectors, axis=1)
    mean = float(lengths[lengths > 0].mean()) if np.any(lengths > 0) else 1.0
    return vectors if abs(mean - 1) < 1e-3 else vectors / np.float32(mean)
