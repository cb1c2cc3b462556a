"""How a pass looks at Ollama, and heals it: ours as a child, anybody else's through its owner (R4.2)."""

from host_agent.errors import NotPossible
from host_agent.recovery.facts import Kind, OrphanFacts, ServiceFacts
from host_agent.services import OLLAMA, terminate
from host_agent.services.ollama import OllamaService
from host_agent.services.ollama.ownership import OwnerKind
from host_agent.services.service_status import ServiceStatus
from vestal.platform.processes import process_lookup
from vestal.supervision import UP, State

HUNG_STOP_S = 3.0


class OllamaEffects:
    """The part of a pass's hands that is about Ollama. It judges from what the row's check has just seen."""

    def __init__(self, service: OllamaService, stop_s: float) -> None:
        self._service, self._stop_s = service, stop_s

    @property
    def stopped_by_hand(self) -> bool:
        return self._service.keeper.stopped_by_hand

    def facts(self, row: ServiceStatus, restarts_left: int) -> ServiceFacts:
        """`row` is the fresh one of this pass."""
        scene, keeper = self._service.scene, self._service.keeper
        answers = self._answers(row)
        way = keeper.way(scene.owner, "restart" if scene.owner.runs else "start")
        return ServiceFacts(
            name=OLLAMA,
            kind=self._kind(row),
            state=row.state,
            detail=row.detail,
            well=row.well and answers is not False,
            answers=answers,
            stopped_by_hand=self.stopped_by_hand and not scene.owner.runs,
            pid=row.process_pid,
            restarts_left=restarts_left,
            way=str(way),
            refusal=way.refusal,
        )

    async def orphans(self) -> tuple[OrphanFacts, ...]:
        """Runners without a server. They are ended where Vestal may act, and told where it only watches."""
        acts = self._service.keeper.acts
        return tuple(
            OrphanFacts(OLLAMA, one.pid, process_lookup.rss_bytes(one.pid), mine and acts)
            for one, mine in await self._service.orphans()
        )

    async def end_orphan(self, pid: int) -> None:
        """Only one that is still an orphan: the PID may be another's by now."""
        if any(one.pid == pid for one, _ in await self._service.orphans()):
            await terminate.terminate(pid, self._stop_s)

    async def start(self, cause: str) -> None:
        self._service.start_afresh()
        await self._service.keeper.start(cause)

    async def replace(self, pid: int) -> None:
        """It hangs: its supervisor starts another as soon as it has ended."""
        if self._service.keeper.pid != pid:
            return
        await terminate.terminate(pid, self._stop_s)
        self._service.start_afresh()

    async def through_owner(self, action: str, cause: str) -> None:
        """Asked once more before it is touched: it may have come back by itself."""
        if action == "restart" and (await self._service.check()).verdict.ok:
            raise NotPossible("it answers again, so it was left alone")
        await self._service.keeper.through_owner(action, cause)
        self._service.start_afresh()

    def _kind(self, row: ServiceStatus) -> Kind:
        keeper, owner = self._service.keeper, self._service.scene.owner
        if keeper.has_one:
            return Kind.CHILD
        if not row.expected or row.state is State.ABSENT or not self._service.scene.installed:
            return Kind.WATCHED
        is_ours_to_start = owner.kind is OwnerKind.NOBODY and keeper.acts
        return Kind.CHILD if is_ours_to_start else Kind.OWNED

    def _answers(self, row: ServiceStatus) -> bool | None:
        """None where it is down or coming up: there is nothing to ask."""
        if row.state not in UP:
            return None
        return not self._service.scene.down
