"""What a bundle, or the policy of another log, would have earned on a journal's rankings with propensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.compose.serving import live
from api.compose.signals import TextModels
from api.config import Config
from api.home import Home
from engine.asked import Asked
from engine.events import Event, RankingEvent
from engine.ids import Ids
from engine.journal import Journal
from engine.live import Live
from engine.pipeline import GIVEN
from engine.types import QueryVectors
from features.state import BehaviouralState
from models import bundle
from models.off_policy.estimate import Estimate, EstimateSettings, estimate, estimate_slates
from models.off_policy.log import Floats
from models.off_policy.logged import Chosen, Logged, logged
from models.off_policy.policies import SlatePolicy, frequencies
from models.snapshot import Living
from models.training import Progress

SINGLE, SLATES = ("ips", "snips", "dm", "dr"), ("snips", "snrips", "rips", "cascade-dr")
"""Methods where none are asked for: of logs of single items, and of lists."""
MOST_CELLS = 400_000_000
"""Of lists x places x candidates, held at a time."""


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What the log says of a candidate."""

    logged: Logged
    shown: float
    """What the log itself earned a ranking."""
    estimates: dict[str, Estimate]
    on_policy: float | None = None
    """What the candidate's own log earned, where there is one."""


def of_variant(
    journal: Journal, chosen: Chosen, variant: str, methods: Sequence[str], settings: EstimateSettings, seed: int
) -> Answer:
    """The candidate is the policy that made another variant's rankings of single items, by what it showed where.

    Its clicks are not looked at, but to say what it earned. Raises ValueError for lists.
    """
    own = logged((one for _, one in journal.in_order()), chosen)
    other = logged(
        (one for _, one in journal.in_order()), Chosen(variant, chosen.surface, chosen.since, chosen.reward), False
    )
    if not (own.single and other.single):
        raise ValueError("found lists of several items; the policy of a variant is counted for single items alone")
    names = own.items
    rows = np.array([names.add(one) for one in other.items.names(other.rows)], np.int32)
    places = int(max(own.position.max(), other.position.max())) + 1
    policy = frequencies(rows, other.position, places, len(names))
    found = estimate(own.bandit(), policy, methods or SINGLE, settings, seed=seed)
    return Answer(own, float(own.reward.mean()), found, float(other.reward.mean()))


def of_bundle(
    home: Home, config: Config, journal: Journal, chosen: Chosen, name: str, drawn: tuple[float, int],
    methods: Sequence[str], settings: EstimateSettings, seed: int, progress: Progress,
) -> Answer:  # fmt: skip
    """The candidate is a bundle. drawn: the temperature by which it draws by its scores (Plackett-Luce), and among how
    many of the best; temperature 0: it shows the best.

    Its lists are made again for every logged request, from the state as it was then.
    """
    opened = bundle.load(home.bundles / name)
    own = logged((one for _, one in journal.in_order()), chosen)
    progress("requests asked again", 0, len(own))
    catalogue = opened.knowledge.catalogue
    state = BehaviouralState(catalogue, opened.builder.spec)
    made = live(home, config, opened, Living(state, Ids()), TextModels(home, opened))
    found = _again(made, journal, own, progress)
    width = max(len(one) for _, one in found)
    cells = len(own) * int(np.diff(own.offsets).max()) * width
    if cells > MOST_CELLS:
        raise ValueError(
            f"{len(own):,} rankings of up to {width:,} candidates take {cells * 8 / 1e9:.0f} GB; choose a later --since"
        )
    scores = np.full((len(own), width), -np.inf)
    for place, (_, worth) in enumerate(found):
        scores[place, : len(worth)] = worth
    temperature, depth = drawn
    if temperature > 0:
        scores[:, depth:] = -np.inf
    slates = own.slates(np.concatenate([codes for codes, _ in found]))
    policy = SlatePolicy.ranking_by(scores, slates, temperature)
    names = methods or SLATES
    earned = float(own.reward.sum() / len(own))
    return Answer(own, earned, estimate_slates(slates, policy, names, settings, seed=seed))


def _again(made: Live, journal: Journal, own: Logged, progress: Progress) -> list[tuple[NDArray[np.int32], Floats]]:
    """For each logged ranking, the places of what it showed in the candidate's order, and the candidate's scores in
    that order; what the candidate could not show has a place after these, with a score of -inf."""
    wanted = {event.id for event in own.events}
    late: list[Event] = []
    found: list[tuple[NDArray[np.int32], Floats]] = []
    for _, event in journal.in_order():
        if isinstance(event, RankingEvent) and event.id in wanted:
            made.observe(late)
            late = []
            found.append(_one(made, event))
            if len(found) % 100 == 0:
                progress("requests asked again", len(found), len(own))
        late.append(event)
    return found


def _one(made: Live, event: RankingEvent) -> tuple[NDArray[np.int32], Floats]:
    asked = Asked.of(event)
    vectors = made.encode(asked.query) if asked.query and made.encode is not None else QueryVectors()
    request = made.request(event.timestamp / 1000, asked, vectors)
    given = asked.items if event.fields.get("source") == GIVEN else None
    ranking = made.pipeline.run(request, given=None if given is None else made.catalogue.ids.rows(given))
    names = made.catalogue.ids.names(ranking.rows) if given is None else [given[n] for n in ranking.order.tolist()]
    place = {name: code for code, name in enumerate(names)}
    others = [item for item in event.items if item not in place]
    place |= {item: len(names) + code for code, item in enumerate(others)}
    worth = np.concatenate([ranking.scores.astype(np.float64), np.full(len(others), -np.inf)])
    return np.array([place[item] for item in event.items], np.int32), np.nan_to_num(worth, nan=-np.inf, neginf=-np.inf)
