"""The checks of Ollama: its state, who controls it, and runners that outlived their server."""

from host_agent.recovery.facts import ControlledBy, OrphanFacts, ServiceFacts
from host_agent.services import OLLAMA
from host_agent.services.ollama import OllamaService
from host_agent.services.ollama.ownership import OwnerKind
from host_agent.services.service_status import ServiceStatus
from vestal.platform.processes import process_lookup
from vestal.supervision import UP, State


class OllamaChecks:
    """Turns the last observation of Ollama into facts for a recovery pass."""

    def __init__(self, service: OllamaService) -> None:
        self._service = service

    def facts(self, status: ServiceStatus, restarts_left: int) -> ServiceFacts:
        """Return the facts about Ollama. `status` comes from a check that was made for this pass, and
        `restarts_left` is how many times recovery passes may still restart Ollama within the hour.
        """
        seen, controller = self._service.observation, self._service.controller
        answers = not seen.is_down if status.state in UP else None
        plan = controller.control_plan(seen.owner, "restart" if seen.owner.runs else "start")
        return ServiceFacts(
            name=OLLAMA,
            controlled_by=self._controlled_by(status),
            state=status.state,
            detail=status.detail,
            healthy=status.healthy and answers is not False,
            answers=answers,
            stopped_by_hand=controller.stopped_by_hand and not seen.owner.runs,
            pid=status.process_pid,
            restarts_left=restarts_left,
            owner_plan=str(plan),
            refusal=plan.refusal,
        )

    async def orphans(self) -> tuple[OrphanFacts, ...]:
        """Return the runners whose server has ended. The agent may terminate none of them if it only watches
        Ollama.
        """
        may_act = self._service.controller.may_act
        return tuple(
            OrphanFacts(OLLAMA, runner.pid, process_lookup.rss_bytes(runner.pid), is_mine and may_act)
            for runner, is_mine in await self._service.orphans()
        )

    def _controlled_by(self, status: ServiceStatus) -> ControlledBy:
        controller, seen = self._service.controller, self._service.observation
        if controller.has_child:
            return ControlledBy.SUPERVISOR
        if not status.expected or status.state is State.ABSENT or not seen.installed:
            return ControlledBy.NOBODY
        is_ours_to_start = seen.owner.kind is OwnerKind.NOBODY and controller.may_act
        return ControlledBy.SUPERVISOR if is_ours_to_start else ControlledBy.OWNER
