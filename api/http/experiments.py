"""Experiment routes: create, start, stop and re-weight experiments, and read their results."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from werkzeug import exceptions
from werkzeug.exceptions import BadRequest, Conflict, NotFound

from feedrank.api import experiment_config
from feedrank.api.compose.experiments import report_json, state_json
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import Id, RequestBody
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import admin_services, current_service, exclusive
from feedrank.engine.experiments.registry import ChangeError, ExperimentRegistry, ExperimentState

routes = make_blueprint("experiments", "Experiments")


class ExperimentPath(BaseModel):
    """Path parameters of the experiment routes."""

    name: Id


class CreateExperimentRequest(BaseModel):
    """An experiment spec, with the same keys as the TOML file."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Id
    arms: dict[Id, dict[str, Any]] = Field(min_length=1, max_length=50, description="The first arm is the control.")


class StopRequest(RequestBody):
    """A request to stop an experiment or one of its arms."""

    reason: str = Field(default="", max_length=2_000)
    arm: Id | None = Field(default=None, description="Stop only this arm; the experiment continues.")


class WeightsRequest(RequestBody):
    """A request to change the weights of arms."""

    weights: dict[Id, float] = Field(min_length=1, max_length=50, description="Arm -> weight.")


class ExperimentSummary(BaseModel):
    """The state of an experiment."""

    name: str
    kind: str = Field(description="ab, interleave or shadow.")
    status: str = Field(description="created, running or stopped.")
    started: int | None = Field(description="Epoch milliseconds.")
    stopped: int | None = Field(description="Epoch milliseconds.")
    reason: str
    stopped_arms: dict[str, str] = Field(description="Stopped arm -> reason.")
    spec: dict[str, Any] = Field(description="The experiment spec, with all defaults.")


class ExperimentList(BaseModel):
    """All experiments, in creation order."""

    experiments: list[ExperimentSummary]


class ExperimentReport(ExperimentSummary):
    """The state and results of an experiment; its confidence sequences are valid at every look."""

    reassigned_units: int = Field(description="Units seen in more than one arm; they count for their first arm.")
    notes: list[str] = Field(description="What was done with the log, such as interactions that were moved.")
    readout: dict[str, Any] | None = Field(description="A/B test: verdict, lifts, guardrails, ...")
    preferences: list[dict[str, Any]] = Field(description="Interleaving: preference per day.")
    shadows: list[dict[str, Any]] = Field(description="Shadow arms: agreement with the shown rankings.")
    holdout: list[dict[str, Any]] = Field(description="Lift of all units in the experiment over the holdout.")


@routes.get("/v1/experiments", responses={200: ExperimentList})
@route_policy("none")
def experiments() -> dict[str, Any]:
    """List all experiments."""
    return {"experiments": [state_json(state) for state in _registry().states.values()]}


@routes.post("/v1/experiments", responses={200: ExperimentSummary})
@route_policy("json", "admin")
def create(body: CreateExperimentRequest) -> dict[str, Any]:
    """Create an experiment. It assigns no units before it is started."""
    try:
        spec = experiment_config.parse_experiment(body.model_dump(exclude_unset=True), "body")
    except ValueError as problem:
        raise BadRequest(str(problem)) from None
    return _apply(lambda: admin_services().experiments.create(spec, current_service().clock()))


@routes.get("/v1/experiments/<string:name>", responses={200: ExperimentSummary})
@route_policy("none")
def experiment(path: ExperimentPath) -> dict[str, Any]:
    """Return the state of an experiment."""
    return state_json(_state_of(path.name))


@routes.get("/v1/experiments/<string:name>/readout", responses={200: ExperimentReport})
@route_policy("none", "admin")
def readout(path: ExperimentPath) -> dict[str, Any]:
    """Return the results of an experiment so far. Slow for a long journal: a process runs one at a time."""
    _state_of(path.name)
    admin = admin_services()
    with exclusive(admin):
        try:
            return report_json(admin.experiments.report(path.name))
        except ChangeError as problem:
            raise Conflict(str(problem)) from None
        except ImportError as problem:  # the message names the missing extra
            raise exceptions.NotImplemented(str(problem)) from None


@routes.post("/v1/experiments/<string:name>/start", responses={200: ExperimentSummary})
@route_policy("none", "admin")
def start(path: ExperimentPath) -> dict[str, Any]:
    """Start the experiment: it assigns units from now on."""
    _state_of(path.name)
    return _apply(lambda: admin_services().experiments.start(path.name, current_service().clock()))


@routes.post("/v1/experiments/<string:name>/stop", responses={200: ExperimentSummary})
@route_policy("json", "admin")
def stop(path: ExperimentPath, body: StopRequest) -> dict[str, Any]:
    """Stop the experiment, or one of its arms."""
    _state_of(path.name)
    payload = {"reason": body.reason} | ({"arm": body.arm} if body.arm else {})
    change_type = "stop-arm" if body.arm else "stop"
    return _apply(
        lambda: admin_services().experiments.change(path.name, change_type, payload, current_service().clock())
    )


@routes.post("/v1/experiments/<string:name>/weights", responses={200: ExperimentSummary})
@route_policy("json", "admin")
def set_weights(path: ExperimentPath, body: WeightsRequest) -> dict[str, Any]:
    """Change the weights of the arms; as few units as possible are reassigned."""
    _state_of(path.name)
    payload = {"weights": dict(body.weights)}
    return _apply(lambda: admin_services().experiments.change(path.name, "weights", payload, current_service().clock()))


def _registry() -> ExperimentRegistry:
    """The experiment registry, after reading what other processes wrote."""
    svc = current_service()
    svc.recommender.catch_up(svc.clock())
    return svc.recommender.arm_servers.registry


def _state_of(name: str) -> ExperimentState:
    try:
        return _registry().get(name)
    except ChangeError as problem:
        raise NotFound(str(problem)) from None


def _apply(change: Any) -> dict[str, Any]:
    try:
        return state_json(change())
    except ChangeError as problem:
        raise Conflict(str(problem)) from None
