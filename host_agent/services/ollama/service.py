"""The agent's interface to Ollama: check the server, report its status, and pass requests to start or stop it
on to `controller`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil

from host_agent.services import OLLAMA
from host_agent.services.http_probe import NoAnswer
from host_agent.services.ollama import installation, status
from host_agent.services.ollama.answers import ModelProbeResult
from host_agent.services.ollama.controller import OllamaController
from host_agent.services.ollama.discovery import Discovery
from host_agent.services.ollama.probe import SERVER_INFO_TIMEOUT_S, CheckResult, OllamaProbe
from host_agent.services.ollama.probe_budget import TOKEN_TIMEOUT_S
from host_agent.services.ollama.runners import RunnerLook, log_of
from host_agent.services.ollama.silence import RunnerJudgement
from host_agent.services.ollama.status import FAILURES_UNTIL_DOWN, Observation
from host_agent.services.service_status import ServiceStatus
from vestal.config import Config
from vestal.platform.processes.process_snapshot import ProcessSnapshot
from vestal.supervision import Event, EventStream, ProbeResult, State, StateStore

CACHE_S = 1.0
RECHECK_INTERVAL_S = 0.1


class OllamaService:
    """Checks Ollama, reports its status, and has its OllamaController start and stop it.

    Simultaneous callers of `check` share one check. `request_pass` is called with a reason if a recovery pass
    is needed. If a model has generated no token for a probe within `token_timeout_s` seconds, the progress
    and the CPU use of Ollama's runners, the processes that hold its models, decide whether it is busy or
    hangs.
    """

    def __init__(
        self,
        config: Config,
        session: aiohttp.ClientSession,
        store: StateStore,
        on_event: Callable[[Event], None],
        request_pass: Callable[[str], object] = lambda reason: None,
        token_timeout_s: float = TOKEN_TIMEOUT_S,
    ) -> None:
        self._config, self._request_pass = config, request_pass
        self._address = installation.parse_address(config.ollama.base_url)
        self.off = config.ollama.manage == "off"
        self._discovery = Discovery(config, self._address)
        self._events = EventStream(time.time, on_event)
        look = RunnerLook(session, self._runners, self._log)
        self._probe = OllamaProbe(config.ollama, session, look, token_timeout_s, self._record_judgement)
        given = (config, self._address, self._discovery, store, on_event)
        self.controller = OllamaController(*given, ready=self._ready, health=self._health)
        self._observation = Observation(installed=True, url=self._address.url)
        self._observed_at = float("-inf")
        self._observed_child: tuple[int | None, State] = (None, State.STOPPED)
        self._checking: asyncio.Task[Observation] | None = None
        self._has_requested_pass = False  # since the failures in a row began

    # --- status and checks ----------------------------------------------------------------------------------

    async def service_status(self, fresh: bool = False) -> ServiceStatus:
        """Return the status of Ollama.

        With `fresh`, for callers that act on the result, check Ollama now. The state `absent` is not a fault:
        Ollama is not installed, or the configuration does not use it.
        """
        if absent := self._absent():
            return absent
        if fresh:
            seen = await self.check_until_certain()
        elif self._is_old() and (self._checking is None or self._is_another_server()):
            seen = await self._observe_server_info()
        else:
            seen = self._observation
        seen = replace(seen, stopped_by_hand=self.controller.stopped_by_hand)
        return status.service_status(seen, self.controller.status())

    async def check(self) -> Observation:
        """Ask Ollama for its version and models, probe a model if that is due, and count the failed checks in
        a row.
        """
        if self._checking is None:
            self._checking = asyncio.create_task(self._check(), name="ollama's check")
        return await asyncio.shield(self._checking)

    async def check_until_certain(self) -> Observation:
        """Check until one check succeeds, FAILURES_UNTIL_DOWN checks have failed in a row, or no server
        runs.
        """
        seen = await self.check()
        while not seen.verdict.ok and seen.failures < FAILURES_UNTIL_DOWN and seen.owner.runs:
            await asyncio.sleep(RECHECK_INTERVAL_S)
            seen = await self.check()
        return seen

    @property
    def observation(self) -> Observation:
        """Return the last observation of Ollama."""
        return self._observation

    async def orphans(self) -> tuple[tuple[ProcessSnapshot, bool], ...]:
        """Return the runners (processes that hold a model) whose server has ended. Each is paired with True
        if the process belongs to this user, so that the agent can terminate it without root. Return none if
        Ollama is switched off or is on another machine.
        """
        if self.off or not self._address.local:
            return ()
        found = await self._discovery.orphans()
        return tuple((runner, self._discovery.is_mine(runner)) for runner in found)

    def forget_failures(self) -> None:
        """Forget the failed checks, and the model probe that has no answer yet, and let Ollama count as
        working until the next check. Failures are obsolete once the server was started, stopped or replaced,
        or the machine has slept.
        """
        self._probe.reset()
        self._observation = replace(self._observation, failures=0, verdict=ModelProbeResult(True))
        self._observed_at, self._has_requested_pass = float("-inf"), False

    def machine_woke(self, slept_s: float) -> None:
        """Forget the failures from before the machine slept, and have the supervisor probe at once."""
        self.forget_failures()
        self.controller.machine_woke(slept_s)

    # --- start and stop -------------------------------------------------------------------------------------

    async def adopt_or_start(self) -> None:
        """Adopt the server that an earlier agent started, or start one if Ollama has no other owner."""
        if self._absent() is None:
            await self.controller.adopt_or_start()
            await self._observe_server_info()

    def refusal(self, action: str) -> str:
        """Return why the agent may not `start`, `stop` or `restart` Ollama; empty if it may try."""
        absent = self._absent()
        return f"Ollama is {absent.detail}." if absent else self.controller.refusal(action)

    async def manual_action(self, action: str) -> None:
        """Start, stop or restart Ollama because a person asks for it. Raises NotPossible if the agent may not
        do that, or a command fails.
        """
        self.forget_failures()
        await self.controller.manual_action(action)

    async def start_again(self) -> None:
        """Start Ollama, for `vestal up` and `vestal recover --reset`, if a person stopped it, or if its
        supervisor has given up or waits before a restart; otherwise do nothing. Raises NotPossible if the
        agent may not control Ollama, or a command fails.
        """
        given_up = self.controller.has_child and self.controller.pid is None
        if self._absent() is None and (self.controller.stopped_by_hand or given_up):
            await self.manual_action("start")

    # --- watching -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Check Ollama each `supervision.health_interval_s` while another owner runs it, until cancelled."""
        while True:
            await asyncio.sleep(self._config.supervision.health_interval_s)
            if self._absent() is None:
                await self.watch_once()

    async def watch_once(self) -> None:
        """Check an Ollama server that the agent did not start (Ollama's app or a service manager did), and
        request a recovery pass, once an outage, if the server does not answer or its process has ended. The
        recovery pass limits how often the server is restarted.
        """
        if await self.controller.yield_to_other_server():
            self.forget_failures()
        if self.controller.has_child:
            return
        seen = await self.check()
        is_wanted = self.controller.may_act and seen.installed and not self.controller.stopped_by_hand
        is_gone = not seen.owner.runs and is_wanted
        # A dry run checks too, so this check may be the first one here and yet not the third that fails.
        is_outage = (seen.is_down or is_gone) and seen.failures >= FAILURES_UNTIL_DOWN
        if is_outage and not self._has_requested_pass:
            self._request_pass("Ollama is gone" if is_gone else f"Ollama is down: {seen.verdict.detail}")
            self._has_requested_pass = True

    # --- observing ------------------------------------------------------------------------------------------

    def _absent(self) -> ServiceStatus | None:
        """Return the status `absent` if the configuration does not use Ollama, else None."""
        if self.off:
            return ServiceStatus(State.ABSENT, detail="switched off (ollama.manage)", expected=False)
        if installation.is_replaced_by_mlx_server(self._config, self._address):
            detail = f"the MLX server stands in for it on port {self._address.port}"
            return ServiceStatus(State.ABSENT, detail=detail, expected=False)
        return None

    def _is_old(self) -> bool:
        """Return whether the last observation is older than CACHE_S, or the agent's own server has another
        PID or another state now than at that observation.
        """
        child = self.controller.status()
        changed = (child.process_pid, child.state) != self._observed_child
        return changed or time.monotonic() - self._observed_at > CACHE_S

    def _is_another_server(self) -> bool:
        """Return whether the server of the last observation has ended, or the agent's own server has another
        PID or another state now than at that observation.

        While a check runs, which a hung server can delay for long, a status request gets the last
        observation. If this returns True, the request makes a new observation instead.
        """
        child, pid = self.controller.status(), self._observation.owner.pid
        changed = (child.process_pid, child.state) != self._observed_child
        return changed or (pid is not None and not psutil.pid_exists(pid))

    async def _check(self) -> Observation:
        try:
            result = await self._probe.check()
            failures = 0 if result.verdict.ok else self._observation.failures + 1
            # A remedy needs the owner. After many failures it is not looked up at each check.
            fresh = not result.verdict.ok and failures <= FAILURES_UNTIL_DOWN
            return await self._observe(result, failures, fresh)
        finally:
            self._checking = None

    async def _observe_server_info(self) -> Observation:
        """Ask only for version and models, which is cheap, and keep the result of the last model probe."""
        before = self._observation
        try:
            info = await self._probe.server_info()
        except NoAnswer as error:
            no_answer = CheckResult(None, ModelProbeResult(False, str(error)))
            return await self._observe(no_answer, before.failures, fresh=False)
        owner = await self._discovery.owner(self.controller.pid)
        is_same_server = before.server_info is not None and owner.pid == before.owner.pid
        verdict = before.verdict if is_same_server else ModelProbeResult(True)
        result = CheckResult(info, ModelProbeResult(False, info.error) if info.error else verdict)
        return await self._observe(result, before.failures if is_same_server else 0, fresh=False)

    async def _observe(self, result: CheckResult, failures: int, fresh: bool) -> Observation:
        """Find out who starts and restarts Ollama (its owner) and whether it is installed, combine that with
        the `result` of a check, and keep and return it all as the last observation. `failures` counts the
        failed checks in a row. With `fresh`, the owner is not taken from the cache.
        """
        self._has_requested_pass = self._has_requested_pass and failures > 0
        child = self.controller.status()
        owner = await self._discovery.owner(child.process_pid, fresh)
        is_installed = await asyncio.to_thread(installation.installed)
        info = result.server_info
        lists_none = info is not None and not info.models and not info.error and self._address.local
        self._observation = Observation(
            owner=owner,
            server_info=info,
            verdict=result.verdict,
            failures=failures,
            installed=is_installed,
            required=self._config.ollama.manage == "always",
            lists_no_models=lists_none and await asyncio.to_thread(installation.has_manifests),
            instructions=self.controller.instructions(owner),
            url=self._address.url,
        )
        self.controller.owner = owner
        self._observed_at, self._observed_child = time.monotonic(), (child.process_pid, child.state)
        return self._observation

    def _runners(self) -> tuple[ProcessSnapshot, ...]:
        return self._discovery.runners(self._observation.owner.pid)

    def _log(self) -> Path | None:
        return log_of(self._observation.owner, self._config.home.logs / "ollama.log")

    def _record_judgement(self, judgement: RunnerJudgement | None) -> None:
        """Record in the journal whether a model that does not answer a probe is judged busy or hung, and on
        what evidence. If `judgement` is None, record that the model answers again.
        """
        if judgement is None:
            self._events.emit(OLLAMA, "silence_ended", "the model answers again")
        else:
            kind = "hangs" if judgement.hangs else "busy"
            self._events.emit(
                OLLAMA, "silence_judged", judgement.detail, judgement=kind, basis=judgement.basis
            )

    # --- the supervisor's probes of the agent's own server --------------------------------------------------

    async def _ready(self, pid: int) -> ProbeResult:
        info = await asyncio.wait_for(self._probe.server_info(), SERVER_INFO_TIMEOUT_S + 1)
        return ProbeResult(not info.error, info.error)

    async def _health(self, pid: int) -> ProbeResult:
        seen = await self.check()
        if not seen.verdict.ok:
            return ProbeResult(False, seen.verdict.detail)
        if seen.lists_no_models:
            return ProbeResult(True, status.no_models_sentence(seen), State.DEGRADED)
        return ProbeResult(True, seen.verdict.detail, State.BUSY if seen.verdict.busy else None)
