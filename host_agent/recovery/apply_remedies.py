"""Carry out the remedies of a recovery pass on this machine."""

import time

from host_agent.errors import NotPossible
from host_agent.recovery.ollama_remedies import STOPPED_MEANWHILE, OllamaRemedies
from host_agent.recovery.remedies import (
    BringUpContainer,
    ControlThroughOwner,
    Remedy,
    ReplaceHungChild,
    RestartContainer,
    StartChild,
    TerminateOldServer,
    TerminateOrphan,
    UnpauseContainer,
)
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import OLLAMA, terminate
from host_agent.services.docker.containers import STOP_S, Containers
from vestal.supervision import State, Supervisor

HUNG_STOP_S = 3
REPLACED_WITHIN_S = 30.0
BY_PASS = "a recovery pass"


class HostRemedies:
    """Applies remedies on this machine. Each restart counts against `budget`. SIGKILL follows SIGTERM after
    `stop_s` seconds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        containers: Containers,
        ollama: OllamaRemedies,
        budget: RestartBudget,
        stop_s: float,
    ) -> None:
        self._supervisor, self._containers, self._ollama = supervisor, containers, ollama
        self._budget, self._stop_s = budget, stop_s

    async def apply(self, remedy: Remedy) -> None:
        """Carry one remedy out. Raises an exception whose text is a sentence if that is not possible."""
        match remedy:
            case TerminateOldServer(_, pid):
                await terminate.terminate_pid(pid, self._stop_s)
            case TerminateOrphan(_, pid):
                await self._ollama.terminate_orphan(pid)
            case StartChild(service):
                await self._start_child(service)
            case ReplaceHungChild(service, pid):
                self._spend(service)
                await self._replace_hung_child(service, pid)
            case ControlThroughOwner(service, action, _):
                self._spend(service)
                await self._ollama.control_through_owner(action, f"{action} by {BY_PASS}")
            case BringUpContainer(service):
                _refuse_if_stopped(self._containers.stopped_by_hand(service))
                await self._containers.bring_up(service)
            case RestartContainer(service, hung, container):
                _refuse_if_stopped(self._containers.stopped_by_hand(service))
                self._spend(container or service)
                stop_s = HUNG_STOP_S if hung else STOP_S
                await self._containers.restart(service, BY_PASS, stop_s, container)
            case UnpauseContainer(service, container):
                _refuse_if_stopped(self._containers.stopped_by_hand(service))
                await self._containers.unpause(service, container)

    async def _start_child(self, service: str) -> None:
        cause = f"started by {BY_PASS}"
        if service == OLLAMA:
            await self._ollama.start_child(cause)
        else:
            _refuse_if_stopped(self._supervisor.status()[service].stopped_by_hand)
            await self._supervisor.start_child(service, cause)

    async def _replace_hung_child(self, service: str, pid: int) -> None:
        if service == OLLAMA:
            await self._ollama.replace_hung_child(pid)
            return
        await terminate.terminate_pid(pid, self._stop_s)
        replaced = set(State) - {State.STOPPING, State.STOPPED}
        await self._supervisor.wait_for(service, replaced, REPLACED_WITHIN_S)

    def _spend(self, restarted: str) -> None:
        self._budget.spend(restarted, time.monotonic())


def _refuse_if_stopped(stopped_by_hand: bool) -> None:
    """Raise NotPossible if a person has stopped the service since the check that chose the remedy. The
    remedies before this one may have taken minutes.
    """
    if stopped_by_hand:
        raise NotPossible(STOPPED_MEANWHILE)
