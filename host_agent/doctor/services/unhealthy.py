"""A service is failed, degraded or stopped, as the agent reports. The other diagnoses look for the reason."""

from collections.abc import Iterator, Mapping
from typing import Any

from host_agent.agent import single_instance
from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.errors import AgentUnreachable, HostAgentError
from host_agent.services import DOCKER, MLX_ENGINE, MLX_SERVER, NIGHTLY, ORCHESTRATOR
from vestal.config import Config, ConfigError

NAME = "services"
HEALTHY_STATES = ("ready", "busy", "absent", "starting", "stopping")
GIVEN_UP_STATES = ("failed", "open")
STOPPED_BY_HAND = "stopped by hand"
DEPENDS_ON = {MLX_ENGINE: MLX_SERVER, ORCHESTRATOR: DOCKER, NIGHTLY: DOCKER}


def diagnose(config: Config) -> Iterator[Finding]:
    """Ask the agent for the states that `vestal status` shows."""
    if single_instance.running(config.home) is None:
        sentence = "No agent runs for this home."
        yield Finding(NAME, "note", sentence, "`vestal up` starts everything.")
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
    """Return one finding for each unhealthy service that does not depend on another unhealthy one."""
    found = {
        name: finding for name, service in services.items() if (finding := assess_service(name, service))
    }
    return [finding for name, finding in found.items() if DEPENDS_ON.get(name) not in found]


def assess_service(name: str, service: Mapping[str, Any]) -> Finding | None:
    """Assess one service of `GET /status`; return None where it is healthy, or not expected to run."""
    state, detail = str(service["state"]), str(service.get("detail") or "")
    if state in HEALTHY_STATES or not service["expected"]:
        return None
    if detail == STOPPED_BY_HAND:
        return Finding(NAME, "note", f"{name} was {STOPPED_BY_HAND}.", "`vestal up` starts it again.")
    if state in GIVEN_UP_STATES:
        remedy = "Correct the cause, then run `vestal recover --reset`."
        return Finding(NAME, "fault", f"{name} is no longer restarted ({state}).", remedy, detail)
    return Finding(NAME, "fault", f"{name} is {state}.", "`vestal recover --once`", detail)


DIAGNOSIS = Diagnosis(NAME, diagnose, 30.0)
