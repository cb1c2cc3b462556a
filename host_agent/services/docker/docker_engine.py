"""The status of the Docker engine. Vestal never starts it: it belongs to the user or the system."""

from dataclasses import dataclass

from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.orchestrator.mode import Mode, ModeCause, ModeDecision
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

START_IT = "start Docker Desktop, or on Linux run `sudo systemctl start docker`"
MOVE_IN = "`vestal down` and `vestal up` move it into containers, without its tasks so far"
WHY_NATIVE = {
    ModeCause.CONFIGURED: "as orchestrator.mode says",
    ModeCause.NO_ENGINE: "because no Docker engine answered when the agent started",
    ModeCause.NO_COMPOSE: "because `docker compose` was missing when the agent started",
    ModeCause.NO_IMAGE: "because its image was not built when the agent started",
}


@dataclass(frozen=True)
class DockerObservation:
    """One observation of the Docker engine: its version, or a sentence about why it did not answer.

    `failures` is the number of successive observations without an answer.
    """

    version: str = ""
    error: str = ""
    failures: int = 0


class DockerEngineMonitor:
    """Observes the Docker engine by requesting its version."""

    def __init__(self, api: DockerApi) -> None:
        self._api = api
        self._failures = 0

    async def observe(self) -> DockerObservation:
        """Request the Docker engine's version now. Return an observation with the version or, if the engine
        does not answer, with the reason in `error`; nothing is raised.
        """
        try:
            version = await self._api.version()
        except DockerUnavailable as error:
            self._failures += 1
            return DockerObservation(error=str(error), failures=self._failures)
        self._failures = 0
        return DockerObservation(version)


def service_status(seen: DockerObservation, decision: ModeDecision) -> ServiceStatus:
    """Return the Docker engine's status from an observation of it and from the `decision`, made when the
    agent started, about where the orchestrator runs.

    An engine that does not answer is `stopped` if the orchestrator runs in containers. Otherwise it is
    `absent`, because nothing needs it.
    """
    extra = {"orchestrator_mode": str(decision.mode), "why": decision.why}
    if seen.version:
        extra["version"] = seen.version
    if decision.mode is Mode.DOCKER:
        if seen.version:
            return ServiceStatus(State.READY, extra=extra)
        return ServiceStatus(
            State.STOPPED,
            health_check_failures=seen.failures,
            detail=seen.error,
            remedy=START_IT,
            extra=extra,
        )
    unused = _why_unused(decision)
    if not seen.version:
        detail = f"{seen.error.rstrip('.')}; it is not needed: {unused}"
        return ServiceStatus(State.ABSENT, detail=detail, expected=False, extra=extra)
    may_move = decision.mode is Mode.NATIVE and decision.cause is not ModeCause.CONFIGURED
    return ServiceStatus(
        State.READY,
        detail=f"Docker engine {seen.version} answers and is not used: {unused}",
        remedy=MOVE_IN if may_move else "",
        expected=False,
        extra=extra,
    )


def _why_unused(decision: ModeDecision) -> str:
    if decision.mode is Mode.OFF:
        return "the orchestrator is switched off (orchestrator.mode)"
    return f"the orchestrator runs natively, {WHY_NATIVE[decision.cause]}"
