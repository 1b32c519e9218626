"""Experiments over HTTP: declared, changed and read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug import exceptions
from werkzeug.exceptions import BadRequest, Conflict, NotFound

from api import declarations
from api.compose.experiments import body as readout_body
from api.compose.experiments import told
from api.http.bodies import Body, Id
from api.http.group import group
from api.http.guards import takes
from api.http.service import one_at_a_time, service, upkeep
from engine.experiments.roster import ChangeError, Roster, Standing

routes = group("experiments", "Experiments")


class ExperimentPath(BaseModel):
    """Which experiment."""

    name: str = Field(min_length=1, max_length=100)


class DeclaredExperiment(BaseModel):
    """An experiment, with the keys of the TOML file."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1, max_length=100)
    arms: dict[Id, dict[str, Any]] = Field(min_length=1, max_length=50, description="The first is compared with.")


class Ended(Body):
    """Why it ends."""

    reason: str = Field(default="", max_length=2_000)
    arm: Id | None = Field(default=None, description="Only this arm; the experiment goes on.")


class Weighed(Body):
    """Other weights."""

    weights: dict[Id, float] = Field(min_length=1, max_length=50)


class Stands(BaseModel):
    """How an experiment stands."""

    name: str
    kind: str = Field(description="ab, interleave or shadow.")
    status: str = Field(description="created, running or stopped.")
    started: int | None = Field(description="Epoch milliseconds.")
    stopped: int | None
    reason: str
    stopped_arms: dict[str, str] = Field(description="Arm -> why.")
    declared: dict[str, Any] = Field(description="As it is declared, with all defaults.")


class Experiments(BaseModel):
    """All of them, in the order of creation."""

    experiments: list[Stands]


class Says(Stands):
    """What an experiment says so far; its sequential intervals hold at every look."""

    moved_units: int = Field(description="Seen in more than one arm; they count for the first.")
    readout: dict[str, Any] | None = Field(description="Of an A/B test: verdict, lifts, sequences, guardrails, ...")
    preferences: list[dict[str, Any]] = Field(description="Of an interleaving, by day.")
    shadows: list[dict[str, Any]] = Field(description="Of arms that score along.")
    holdout: list[dict[str, Any]] = Field(description="All that are in it over those that are kept away.")


@routes.get("/v1/experiments", responses={200: Experiments})
@takes("none")
def experiments() -> dict[str, Any]:
    """All experiments."""
    return {"experiments": [told(one) for one in _roster().standings.values()]}


@routes.post("/v1/experiments", responses={200: Stands})
@takes("json", "admin")
def create(body: DeclaredExperiment) -> dict[str, Any]:
    """Declare an experiment. Nobody is in it before it is started."""
    try:
        made = declarations.declared(body.model_dump(exclude_unset=True), "body")
    except ValueError as problem:
        raise BadRequest(str(problem)) from None
    return _changed(lambda: upkeep().experiments.create(made, service().clock()))


@routes.get("/v1/experiments/<string:name>", responses={200: Stands})
@takes("none")
def experiment(path: ExperimentPath) -> dict[str, Any]:
    """How one stands."""
    return told(_standing(path.name))


@routes.get("/v1/experiments/<string:name>/readout", responses={200: Says})
@takes("none", "admin")
def readout(path: ExperimentPath) -> dict[str, Any]:
    """What it says so far. Slow where the journal is long, so it is done one at a time."""
    _standing(path.name)
    behind = upkeep()
    with one_at_a_time(behind):
        try:
            return readout_body(behind.experiments.found(path.name))
        except ChangeError as problem:
            raise Conflict(str(problem)) from None
        except ImportError as problem:  # the extra; the message names it
            raise exceptions.NotImplemented(str(problem)) from None


@routes.post("/v1/experiments/<string:name>/start", responses={200: Stands})
@takes("none", "admin")
def start(path: ExperimentPath) -> dict[str, Any]:
    """Let it have its units from now on."""
    _standing(path.name)
    return _changed(lambda: upkeep().experiments.start(path.name, service().clock()))


@routes.post("/v1/experiments/<string:name>/stop", responses={200: Stands})
@takes("json", "admin")
def stop(path: ExperimentPath, body: Ended) -> dict[str, Any]:
    """End it, or one of its arms."""
    _standing(path.name)
    said = {"reason": body.reason} | ({"arm": body.arm} if body.arm else {})
    what = "stop-arm" if body.arm else "stop"
    return _changed(lambda: upkeep().experiments.change(path.name, what, said, service().clock()))


@routes.post("/v1/experiments/<string:name>/weights", responses={200: Stands})
@takes("json", "admin")
def weigh(path: ExperimentPath, body: Weighed) -> dict[str, Any]:
    """Change the weights of its arms, by moving as few units as can be."""
    _standing(path.name)
    said = {"weights": dict(body.weights)}
    return _changed(lambda: upkeep().experiments.change(path.name, "weights", said, service().clock()))


def _roster() -> Roster:
    """As this process knows it, once it has read what others wrote."""
    here = service()
    here.recommender.catch_up(here.clock())
    return here.recommender.trials.roster


def _standing(name: str) -> Standing:
    try:
        return _roster().of(name)
    except ChangeError as problem:
        raise NotFound(str(problem)) from None


def _changed(change: Any) -> dict[str, Any]:
    try:
        return told(change())
    except ChangeError as problem:
        raise Conflict(str(problem)) from None
