"""Experiment routes: create, start, stop and re-weight experiments, and read their results."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug import exceptions
from werkzeug.exceptions import BadRequest, Conflict, NotFound

from feedrank.api import experiment_config
from feedrank.api.compose.experiments import body as readout_body
from feedrank.api.compose.experiments import told
from feedrank.api.http.blueprint import group
from feedrank.api.http.bodies import Body, Id
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import one_at_a_time, service, upkeep
from feedrank.engine.experiments.registry import ChangeError, Roster, Standing

routes = group("experiments", "Experiments")


class ExperimentPath(BaseModel):
    """Path parameters of the experiment routes."""

    name: str = Field(min_length=1, max_length=100)


class DeclaredExperiment(BaseModel):
    """An experiment spec, with the same keys as the TOML file."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1, max_length=100)
    arms: dict[Id, dict[str, Any]] = Field(min_length=1, max_length=50, description="The first arm is the control.")


class Ended(Body):
    """A request to stop an experiment or one of its arms."""

    reason: str = Field(default="", max_length=2_000)
    arm: Id | None = Field(default=None, description="Stop only this arm; the experiment continues.")


class Weighed(Body):
    """A request to change the weights of arms."""

    weights: dict[Id, float] = Field(min_length=1, max_length=50, description="Arm -> weight.")


class Stands(BaseModel):
    """The state of an experiment."""

    name: str
    kind: str = Field(description="ab, interleave or shadow.")
    status: str = Field(description="created, running or stopped.")
    started: int | None = Field(description="Epoch milliseconds.")
    stopped: int | None = Field(description="Epoch milliseconds.")
    reason: str
    stopped_arms: dict[str, str] = Field(description="Stopped arm -> reason.")
    declared: dict[str, Any] = Field(description="The experiment spec, with all defaults.")


class Experiments(BaseModel):
    """All experiments, in creation order."""

    experiments: list[Stands]


class Says(Stands):
    """The state and results of an experiment; its confidence sequences are valid at every look."""

    moved_units: int = Field(description="Units seen in more than one arm; they count for their first arm.")
    readout: dict[str, Any] | None = Field(description="A/B test: verdict, lifts, guardrails, ...")
    preferences: list[dict[str, Any]] = Field(description="Interleaving: preference per day.")
    shadows: list[dict[str, Any]] = Field(description="Shadow arms: agreement with the shown rankings.")
    holdout: list[dict[str, Any]] = Field(description="Lift of all units in the experiment over the holdout.")


@routes.get("/v1/experiments", responses={200: Experiments})
@takes("none")
def experiments() -> dict[str, Any]:
    """List all experiments."""
    return {"experiments": [told(state) for state in _roster().standings.values()]}


@routes.post("/v1/experiments", responses={200: Stands})
@takes("json", "admin")
def create(body: DeclaredExperiment) -> dict[str, Any]:
    """Create an experiment. It assigns no units before it is started."""
    try:
        spec = experiment_config.declared(body.model_dump(exclude_unset=True), "body")
    except ValueError as problem:
        raise BadRequest(str(problem)) from None
    return _changed(lambda: upkeep().experiments.create(spec, service().clock()))


@routes.get("/v1/experiments/<string:name>", responses={200: Stands})
@takes("none")
def experiment(path: ExperimentPath) -> dict[str, Any]:
    """Return the state of an experiment."""
    return told(_standing(path.name))


@routes.get("/v1/experiments/<string:name>/readout", responses={200: Says})
@takes("none", "admin")
def readout(path: ExperimentPath) -> dict[str, Any]:
    """Return the results of an experiment so far. Slow for a long journal: a process runs one at a time."""
    _standing(path.name)
    admin = upkeep()
    with one_at_a_time(admin):
        try:
            return readout_body(admin.experiments.found(path.name))
        except ChangeError as problem:
            raise Conflict(str(problem)) from None
        except ImportError as problem:  # the message names the missing extra
            raise exceptions.NotImplemented(str(problem)) from None


@routes.post("/v1/experiments/<string:name>/start", responses={200: Stands})
@takes("none", "admin")
def start(path: ExperimentPath) -> dict[str, Any]:
    """Start the experiment: it assigns units from now on."""
    _standing(path.name)
    return _changed(lambda: upkeep().experiments.start(path.name, service().clock()))


@routes.post("/v1/experiments/<string:name>/stop", responses={200: Stands})
@takes("json", "admin")
def stop(path: ExperimentPath, body: Ended) -> dict[str, Any]:
    """Stop the experiment, or one of its arms."""
    _standing(path.name)
    payload = {"reason": body.reason} | ({"arm": body.arm} if body.arm else {})
    change_type = "stop-arm" if body.arm else "stop"
    return _changed(lambda: upkeep().experiments.change(path.name, change_type, payload, service().clock()))


@routes.post("/v1/experiments/<string:name>/weights", responses={200: Stands})
@takes("json", "admin")
def weigh(path: ExperimentPath, body: Weighed) -> dict[str, Any]:
    """Change the weights of the arms; as few units as possible are reassigned."""
    _standing(path.name)
    payload = {"weights": dict(body.weights)}
    return _changed(lambda: upkeep().experiments.change(path.name, "weights", payload, service().clock()))


def _roster() -> Roster:
    """The experiment registry, after reading what other processes wrote."""
    svc = service()
    svc.recommender.catch_up(svc.clock())
    return svc.recommender.trials.roster


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
