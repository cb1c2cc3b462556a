"""What the agent itself calls unwell: given up, degraded, stopped. The other diagnoses look for why."""

from collections.abc import Iterator, Mapping
from typing import Any

from host_agent.agent import single_instance
from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Finding
from host_agent.errors import AgentUnreachable, HostAgentError
from host_agent.services import DOCKER, MLX_ENGINE, MLX_SERVER, NIGHTLY, ORCHESTRATOR
from vestal.config import Config, ConfigError

NAME = "services"
WELL = ("ready", "busy", "absent", "starting", "stopping")
GIVEN_UP = ("failed", "open")
BY_HAND = "stopped by hand"
NEEDS = {MLX_ENGINE: MLX_SERVER, ORCHESTRATOR: DOCKER, NIGHTLY: DOCKER}


def look(config: Config) -> Iterator[Finding]:
    """Its table, as `vestal status` shows it."""
    if single_instance.running(config.home) is None:
        yield Finding(NAME, "note", "no agent runs for this home", "`vestal up` starts everything")
        return
    try:
        rows = AgentClient(config).get("/status")["services"]
    except AgentUnreachable as error:  # `hung` and `configuration` tell why
        yield Finding(NAME, "note", "the agent runs and does not tell its state", "", str(error))
        return
    except (HostAgentError, ConfigError) as error:
        yield Finding(
            NAME, "fault", "the agent runs and refuses to tell its state", "`vestal up`", str(error)
        )
        return
    yield from unwell(rows) or [Finding(NAME, "ok", "the agent calls everything well")]


def unwell(rows: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """One for each, but for what is down because of another one."""
    found = {name: finding for name, row in rows.items() if (finding := judge(name, row))}
    return [finding for name, finding in found.items() if NEEDS.get(name) not in found]


def judge(name: str, row: Mapping[str, Any]) -> Finding | None:
    """One row of the table; None where it is well, or not wanted."""
    state, detail = str(row["state"]), str(row.get("detail") or "")
    if state in WELL or not row["expected"]:
        return None
    if detail == BY_HAND:
        return Finding(NAME, "note", f"{name} was {BY_HAND}", "`vestal up` starts it again")
    if state in GIVEN_UP:
        remedy = "mend the cause, then `vestal recover --reset`"
        return Finding(NAME, "fault", f"{name} was given up ({state})", remedy, detail)
    return Finding(NAME, "fault", f"{name} is {state}", "`vestal recover --once`", detail)
