"""The status of the Docker engine. Vestal never starts it: it belongs to the user or the system."""

from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

START_IT = "start Docker Desktop, or on Linux `sudo systemctl start docker`"


class DockerEngineMonitor:
    """Asks the Docker engine for its version. Only an orchestrator in containers needs the Docker engine."""

    def __init__(self, api: DockerApi, project: str, decision: ModeDecision) -> None:
        self._api, self._project, self._decision = api, project, decision
        self._failures = 0

    async def service_status(self) -> ServiceStatus:
        """Return the Docker engine's status. It is `absent` if it is not needed and does not answer."""
        needed = self._decision.mode is Mode.DOCKER
        extra = {
            "project": self._project,
            "orchestrator_mode": str(self._decision.mode),
            "why": self._decision.why,
        }
        try:
            version = await self._api.version()
        except DockerUnavailable as error:
            return self._without_answer(needed, str(error)).with_extra(**extra)
        self._failures = 0
        detail = "" if needed else f"it answers and is not needed: {_why_not_needed(self._decision)}"
        return ServiceStatus(State.READY, detail=detail, expected=needed, extra={**extra, "version": version})

    def _without_answer(self, needed: bool, why: str) -> ServiceStatus:
        if not needed:
            detail = f"{why} It is not needed: {_why_not_needed(self._decision)}"
            return ServiceStatus(State.ABSENT, detail=detail, expected=False)
        self._failures += 1
        return ServiceStatus(State.STOPPED, health_check_failures=self._failures, detail=f"{why} {START_IT}.")


def _why_not_needed(decision: ModeDecision) -> str:
    """Return why the orchestrator uses no containers. The decision was made when the agent started."""
    if decision.mode is Mode.OFF:
        return "the orchestrator is switched off (orchestrator.mode)"
    return f"the orchestrator runs natively (decided when the agent started: {decision.why})"
