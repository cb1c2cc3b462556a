"""Diagnose services that the agent reports as unhealthy. Other diagnoses look for the reason."""

from collections.abc import Iterator, Mapping
from typing import Any

from host_agent.agent import agent_state
from host_agent.agent.agent_state import AgentState
from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.errors import AgentUnreachable, HostAgentError
from host_agent.services import DOCKER, MLX_ENGINE, MLX_SERVER, NIGHTLY, ORCHESTRATOR
from vestal.config import Config, ConfigError

NAME = "services"
HEALTHY_STATES = ("ready", "busy", "absent", "starting", "stopping")
UP_STATES = ("ready", "busy", "degraded", "absent")
GIVEN_UP_STATES = ("failed", "open")
DEPENDS_ON = {MLX_ENGINE: MLX_SERVER, ORCHESTRATOR: DOCKER, NIGHTLY: DOCKER}


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a finding for each service that is unhealthy according to the agent. `vestal status` shows the
    same states.
    """
    silent = agent_state.of_silent_agent(config)
    if silent.state in (AgentState.NOT_RUNNING, AgentState.SUSPENDED):
        yield Finding(
            NAME, "note", silent.sentence, silent.remedy
        )  # `hung` reports a suspended one as a fault
        return
    try:
        services = AgentClient(config).get("/status")["services"]
    except AgentUnreachable as error:  # `hung` and `configuration` report why
        yield Finding(NAME, "note", "The agent runs and does not report its state.", "", str(error))
        return
    except (HostAgentError, ConfigError) as error:
        sentence = "The agent runs and refuses to report its state."
        yield Finding(NAME, "fault", sentence, "`vestal up`", str(error))
        return
    yield from assess_services(services) or [
        Finding(NAME, "ok", "The agent reports all services as healthy.")
    ]


def assess_services(services: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return a finding for each unhealthy service, except those that depend on another unhealthy service.
    `services` maps each service's name to its entry in the body of `GET /status`.

    If the engine has failed too often and is not restarted, its gateway gets no finding, because the engine's
    finding has the remedy.
    """
    found = {
        name: finding for name, service in services.items() if (finding := assess_service(name, service))
    }
    if MLX_ENGINE in found and is_given_up(services[MLX_ENGINE]):
        found.pop(MLX_SERVER, None)
    return [finding for name, finding in found.items() if DEPENDS_ON.get(name) not in found]


def is_given_up(service: Mapping[str, Any]) -> bool:
    """Return whether a service has failed so often that it is not restarted for now. `service` is its entry
    in the body of `GET /status`.

    The state of such a service is `failed` or `open`, or the service is not up and its circuit breaker is not
    closed. `vestal recover --reset` closes the breaker.
    """
    is_open = service.get("circuit_breaker_state", "closed") != "closed"
    return service["state"] in GIVEN_UP_STATES or (is_open and service["state"] not in UP_STATES)


def assess_service(name: str, service: Mapping[str, Any]) -> Finding | None:
    """Return a finding that says how a service is unhealthy, or None if it is healthy or not expected to run.

    `service` is the service's entry in the body of `GET /status`.
    """
    state = str(service["state"])
    detail = str(service.get("detail") or "").removesuffix(f"; {service.get('remedy') or ''}")
    given_up = is_given_up(service)
    if not service["expected"] or (state in HEALTHY_STATES and not given_up):
        return None
    if service.get("stopped_by_hand", detail == "stopped by hand"):
        return Finding(NAME, "note", f"{name} was stopped by hand.", "`vestal up` starts it again.")
    if given_up:
        remedy = "Correct the cause, then run `vestal recover --reset`."
        if state in GIVEN_UP_STATES:
            return Finding(NAME, "fault", f"{name} is no longer restarted ({state}).", remedy, detail)
        breaker = str(service["circuit_breaker_state"]).replace("_", "-")
        sentence = f"{name} has failed too often: it is {state}, and its breaker is {breaker}."
        return Finding(NAME, "fault", sentence, remedy, detail)
    return Finding(NAME, "fault", f"{name} is {state}.", "`vestal recover --once`", detail)


DIAGNOSIS = Diagnosis(NAME, diagnose, 30.0)
