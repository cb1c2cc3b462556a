"""What stands at `ollama.base_url`: looked at, judged, and shown. `keeper` starts and stops it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import aiohttp

from host_agent.services.http_probe import NoAnswer
from host_agent.services.ollama import installation
from host_agent.services.ollama.answers import Verdict
from host_agent.services.ollama.controller import OllamaController
from host_agent.services.ollama.discovery import Discovery
from host_agent.services.ollama.ownership import Owner
from host_agent.services.ollama.probe import FREE_WITHIN_S, Check, Probe
from host_agent.services.ollama.status import FAILURES, Scene, lists_none, row
from host_agent.services.service_status import ServiceStatus
from vestal.config import Config
from vestal.platform.processes.process_snapshot import ProcessSnapshot
from vestal.supervision import Event, ProbeResult, State, StateStore

FRESH_S = 1.0
CHECK_AGAIN_S = 0.1


class OllamaService:
    """The one who knows how things stand with Ollama. Checks that arrive together are one check."""

    def __init__(
        self,
        config: Config,
        session: aiohttp.ClientSession,
        store: StateStore,
        on_event: Callable[[Event], None],
        calls_for_a_pass: Callable[[str], object] = lambda reason: None,
    ) -> None:
        self._config, self._calls_for_a_pass = config, calls_for_a_pass
        self._where = installation.address(config.ollama.base_url)
        self.off = config.ollama.manage == "off"
        self._survey = Discovery(config, self._where)
        self._probe = Probe(config.ollama, session, self._runners)
        self.keeper = OllamaController(
            config, self._where, self._survey, store, on_event, ready=self._ready, health=self._health
        )
        self._scene = Scene(installed=True, where=self._where.url)
        self._looked_at = float("-inf")
        self._looked_at_child: tuple[int | None, State] = (None, State.STOPPED)
        self._checking: asyncio.Task[Scene] | None = None

    # --- what it is like ---------------------------------------------------------------------------------

    async def row(self, fresh: bool = False) -> ServiceStatus:
        """`absent` is not a fault: nothing is installed, or Ollama is switched off in the configuration.
        `fresh`: judged now, for one who acts on it."""
        if absent := self._absent():
            return absent
        if fresh:
            scene = await self.judged()
        elif self._checking is None and self._is_old():
            scene = await self._glance()
        else:
            scene = self._scene
        return row(replace(scene, by_hand=self.keeper.stopped_by_hand), self.keeper.status())

    async def check(self) -> Scene:
        """Everything is asked now, a token too where one is due; a bad answer counts."""
        if self._checking is None:
            self._checking = asyncio.create_task(self._check(), name="ollama's check")
        return await asyncio.shield(self._checking)

    async def judged(self) -> Scene:
        """Checked until it is well, or three times in a row was not (R3.2)."""
        scene = await self.check()
        while not scene.verdict.ok and scene.failures < FAILURES and scene.owner.runs:
            await asyncio.sleep(CHECK_AGAIN_S)
            scene = await self.check()
        return scene

    async def probe_now(self, cause: str) -> bool:
        """After a GPU reset, say: old answers are dropped, everything is asked at once, and what is down
        is left to a recovery pass that begins now. True where it is well, or need not be there."""
        if self._absent() or self.keeper.stopped_by_hand:
            return True
        self.start_afresh()
        scene = await self.judged()
        if scene.down or not row(scene, self.keeper.status()).well:
            self._calls_for_a_pass(f"Ollama does not answer as it should ({cause})")
            return False
        return True

    def woke(self, slept_s: float) -> None:
        """The machine slept: failures from before do not count, and our own child is asked at once."""
        self.start_afresh()
        self.keeper.woke(slept_s)

    def start_afresh(self) -> None:
        """Earlier failures are forgotten: another server runs, or the machine has slept."""
        self._probe.forget()
        self._scene = replace(self._scene, failures=0, verdict=Verdict(True))
        self._looked_at = float("-inf")

    @property
    def scene(self) -> Scene:
        """What was seen last."""
        return self._scene

    async def orphans(self) -> tuple[tuple[ProcessSnapshot, bool], ...]:
        """The runners whose server is gone, and whether each is this user's."""
        if self.off or not self._where.local:
            return ()
        return tuple((one, self._survey.is_mine(one)) for one in await self._survey.orphans())

    # --- life ---------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """At the agent's start: what an earlier agent left is adopted, and what nobody runs is started."""
        if self._absent() is None:
            await self.keeper.begin()
            await self._glance()

    def refusal(self, action: str) -> str:
        """Why a person's `start`, `stop` or `restart` is not for us to do; nothing where it may be tried."""
        absent = self._absent()
        return f"Ollama is {absent.detail}." if absent else self.keeper.refusal(action)

    async def by_hand(self, action: str) -> None:
        """Because a person says so; raises NotPossible."""
        self.start_afresh()
        await self.keeper.by_hand(action)

    async def start_again(self) -> None:
        """`vestal up`, `vestal recover --reset`: what was stopped by hand, or given up, is wanted again."""
        given_up = self.keeper.has_one and self.keeper.pid is None
        if self._absent() is None and (self.keeper.stopped_by_hand or given_up):
            await self.by_hand("start")

    async def watch(self) -> None:
        """For ever: asks each `supervision.health_interval_s` what our supervisor does not ask itself."""
        while True:
            await asyncio.sleep(self._config.supervision.health_interval_s)
            if self._absent() is None:
                await self.look_after()

    async def look_after(self) -> None:
        """One round. What is down, or gone, is left to a recovery pass: it counts, and has its limits."""
        if await self.keeper.gives_way():
            self.start_afresh()
        if self.keeper.has_one:
            return
        scene = await self.check()
        gone = (
            not scene.owner.runs and self.keeper.acts and scene.installed and not self.keeper.stopped_by_hand
        )
        if (scene.down or gone) and scene.failures == FAILURES:
            self._calls_for_a_pass("Ollama is gone" if gone else f"Ollama is down: {scene.verdict.detail}")

    def _is_old(self) -> bool:
        """Whether what was seen may be otherwise by now."""
        child = self.keeper.status()
        changed = (child.process_pid, child.state) != self._looked_at_child
        return changed or time.monotonic() - self._looked_at > FRESH_S

    # --- looking ------------------------------------------------------------------------------------------

    def _absent(self) -> ServiceStatus | None:
        if self.off:
            return ServiceStatus(State.ABSENT, detail="switched off (ollama.manage)", expected=False)
        if installation.stands_in(self._config, self._where):
            told = f"the MLX server stands in for it on port {self._where.port}"
            return ServiceStatus(State.ABSENT, detail=told, expected=False)
        return None

    async def _check(self) -> Scene:
        try:
            check = await self._probe.check()
            failures = 0 if check.verdict.ok else self._scene.failures + 1
            # Who it is matters for a remedy; what has been down for long is not looked up each time.
            return await self._seen(check, failures, fresh=not check.verdict.ok and failures <= FAILURES)
        finally:
            self._checking = None

    async def _glance(self) -> Scene:
        """The free questions only: for people who look again and again. What a check found stays found."""
        before = self._scene
        try:
            light = await self._probe.light()
        except NoAnswer as error:
            return await self._seen(Check(None, Verdict(False, str(error))), before.failures, fresh=False)
        owner = await self._survey.owner(self.keeper.pid)
        is_the_same = before.light is not None and owner.pid == before.owner.pid
        kept = before.verdict if is_the_same else Verdict(True)
        check = Check(light, Verdict(False, light.wrong) if light.wrong else kept)
        return await self._seen(check, before.failures if is_the_same else 0, fresh=False)

    async def _seen(self, check: Check, failures: int, fresh: bool) -> Scene:
        child = self.keeper.status()
        owner = await self._survey.owner(child.process_pid, fresh)
        is_installed = await asyncio.to_thread(installation.installed)
        nothing = check.light is not None and not check.light.models and not check.light.wrong
        self._scene = Scene(
            owner=owner,
            light=check.light,
            verdict=check.verdict,
            failures=failures,
            installed=is_installed,
            must_be=self._config.ollama.manage == "always",
            lists_none=nothing and self._where.local and await asyncio.to_thread(installation.has_manifests),
            how=self.keeper.how(owner),
            where=self._where.url,
        )
        self.keeper.owner = owner
        self._looked_at, self._looked_at_child = time.monotonic(), (child.process_pid, child.state)
        return self._scene

    def _runners(self) -> tuple[int, ...]:
        owner: Owner = self._scene.owner
        return self._survey.runners(owner.pid)

    # --- probes of our own child --------------------------------------------------------------------------

    async def _ready(self, pid: int) -> ProbeResult:
        light = await asyncio.wait_for(self._probe.light(), FREE_WITHIN_S + 1)
        return ProbeResult(not light.wrong, light.wrong)

    async def _health(self, pid: int) -> ProbeResult:
        scene = await self.check()
        if not scene.verdict.ok:
            return ProbeResult(False, scene.verdict.detail)
        if scene.lists_none:
            return ProbeResult(True, lists_none(scene), State.DEGRADED)
        return ProbeResult(True, scene.verdict.detail, State.BUSY if scene.verdict.busy else None)
