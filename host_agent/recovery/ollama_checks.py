"""What a recovery pass finds out about Ollama: its state, who controls it, and the runners it left behind."""

from host_agent.recovery.facts import ControlledBy, OrphanFacts, ServiceFacts
from host_agent.services import OLLAMA
from host_agent.services.ollama import OllamaService
from host_agent.services.ollama.ownership import OwnerKind
from host_agent.services.service_status import ServiceStatus
from vestal.platform.processes import process_lookup
from vestal.supervision import UP, State


class OllamaChecks:
    """Turns what the Ollama service observed last into facts."""

    def __init__(self, service: OllamaService) -> None:
        self._service = service

    def facts(self, status: ServiceStatus, restarts_left: int) -> ServiceFacts:
        """Return the facts about Ollama. `status` was checked for this pass."""
        scene, keeper = self._service.scene, self._service.keeper
        answers = not scene.down if status.state in UP else None
        plan = keeper.way(scene.owner, "restart" if scene.owner.runs else "start")
        return ServiceFacts(
            name=OLLAMA,
            controlled_by=self._controlled_by(status),
            state=status.state,
            detail=status.detail,
            healthy=status.well and answers is not False,
            answers=answers,
            stopped_by_hand=keeper.stopped_by_hand and not scene.owner.runs,
            pid=status.process_pid,
            restarts_left=restarts_left,
            owner_plan=str(plan),
            refusal=plan.refusal,
        )

    async def orphans(self) -> tuple[OrphanFacts, ...]:
        """Return the runners whose server has ended. None may be terminated where Ollama is only watched."""
        acts = self._service.keeper.acts
        return tuple(
            OrphanFacts(OLLAMA, one.pid, process_lookup.rss_bytes(one.pid), mine and acts)
            for one, mine in await self._service.orphans()
        )

    def _controlled_by(self, status: ServiceStatus) -> ControlledBy:
        keeper, owner = self._service.keeper, self._service.scene.owner
        if keeper.has_one:
            return ControlledBy.SUPERVISOR
        if not status.expected or status.state is State.ABSENT or not self._service.scene.installed:
            return ControlledBy.NOBODY
        is_ours_to_start = owner.kind is OwnerKind.NOBODY and keeper.acts
        return ControlledBy.SUPERVISOR if is_ours_to_start else ControlledBy.OWNER
