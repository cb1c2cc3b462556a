"""The agent's periodic work: each loop runs until the agent stops, and is restarted if it fails."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from host_agent.agent.components import Components
from host_agent.journal import Journal
from host_agent.services import MLX_SERVER
from host_agent.services.orchestrator.mode import Mode
from vestal.best_effort.files import KeptFile
from vestal.config import Config, KeptToken
from vestal.platform import log_rotation
from vestal.supervision import SystemClock, next_tick, watch_sleep

log = logging.getLogger("vestal")

FIRST_PASS_AFTER_S = 15.0
MAINTENANCE_INTERVAL_S = 600.0
FILE_CHECK_INTERVAL_S = 1.0
RECREATE_GRACE_S = 3.0
LOOP_RESTART_DELAY_S = 5.0

Loop = Callable[[], Awaitable[None]]


class BackgroundLoops:
    """Runs each background loop of the agent in an asyncio task of its own. Such loops request recovery
    passes, check the MLX server and rotate logs, for example; the method `start` lists all of them.

    `token` is the bearer token that clients of the agent must send. `kept_files` are files of the agent, such
    as its PID file. One loop writes the token's file and each of `kept_files` again if that file is deleted
    or changed.
    """

    def __init__(
        self,
        config: Config,
        token: str,
        journal: Journal,
        components: Components,
        kept_files: Sequence[KeptFile] = (),
    ) -> None:
        self._config, self._token, self._journal = config, token, journal
        self._components, self._kept_files = components, kept_files
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops. The two loops for containers run only if the orchestrator runs in containers."""
        components = self._components
        loops: dict[str, Loop] = {
            "scheduled passes": self._run_scheduled_passes,
            "monitor": self._monitor_mlx_server,
            "file maintenance": self._maintain_files,
            "engine events": components.engine_events.follow,
            "files": self._keep_files,
            "Ollama": components.ollama.watch,
            "sleep": self._watch_sleep,
            "notifications": components.notifier.run,
            "history": components.history.run,
        }
        if components.mode_decision.mode is Mode.DOCKER:
            loops["container events"] = components.containers.deaths.run
            loops["container recovery"] = self._recover_dead_containers
        self._tasks = [asyncio.create_task(self._run(name, loop)) for name, loop in loops.items()]

    async def stop(self) -> None:
        """Cancel every loop and wait until all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, loop: Loop) -> None:
        """Run `loop`, and run it again LOOP_RESTART_DELAY_S after it ends. If it fails, record the error in
        the journal.
        """
        while True:
            try:
                await loop()
            except Exception as error:
                log.exception("%s failed", name)
                self._journal.record("agent", "loop_failed", f"{name}: {error!r}")
            await asyncio.sleep(LOOP_RESTART_DELAY_S)

    async def _run_scheduled_passes(self) -> None:
        """Request a recovery pass, wait for its end, and repeat this after `agent.recovery_interval_s`. If a
        recovery pass is already running, the request joins it instead of starting a second one.
        """
        delay_s = FIRST_PASS_AFTER_S
        while True:
            self._components.listener_context.next_pass_at = time.monotonic() + delay_s
            await asyncio.sleep(delay_s)
            self._components.passes.request("scheduled")
            await self._components.passes.wait()
            delay_s = self._config.agent.recovery_interval_s

    async def _monitor_mlx_server(self) -> None:
        """Check at each interval (30 s by default) whether the MLX server hangs; if so, request a recovery
        pass.

        The recovery pass replaces the hung server, at most 5 times an hour.
        """
        while True:
            await asyncio.sleep(self._config.agent.monitor_interval_s)
            if await self._components.checks.is_hung(MLX_SERVER):
                self._components.passes.request("the monitor had no answer from the MLX server")

    async def _watch_sleep(self) -> None:
        await watch_sleep(self._components.sleep_detector, SystemClock(), self._on_wake)

    def _on_wake(self, slept_s: float) -> None:
        """Have all services checked at once after the machine slept for `slept_s` seconds.

        Metal's context may be lost, and Ollama may hang.
        """
        self._components.supervisor.machine_woke(slept_s)
        self._components.ollama.machine_woke(slept_s)
        self._components.restart_budget.reset()
        self._components.passes.request(f"the machine woke after {slept_s:.0f} s of sleep")

    async def _keep_files(self) -> None:
        """Restore the agent's files every FILE_CHECK_INTERVAL_S: the token, the PID file, the running
        settings, the journal and the history. A file is written again if it was deleted or changed, or if an
        earlier attempt to write it failed.

        In the same loop, pass duplicates of the gateway's listening sockets to the watchdog, and record in
        the journal when writes to the disk begin or cease to fail.
        """
        token = KeptToken(self._config.home, self._token)  # every client reads the token from this file
        while True:
            if token.keep():
                cause = f"{self._config.home.token} was gone or changed"
                self._journal.record("agent", "token_restored", cause)
            for file in self._kept_files:
                if file.keep():
                    self._journal.record("agent", "file_written_again", f"{file.path} was gone or changed")
            self._journal.keep()
            self._components.history.keep()
            await self._components.watchdog.keep_sockets(self._components.mlx.sockets.held)
            await self._components.disk.record_change()
            await next_tick(SystemClock(), FILE_CHECK_INTERVAL_S)

    async def _recover_dead_containers(self) -> None:
        """Request a recovery pass whenever Docker reports a container as unhealthy, or does not restart one
        that died, for example because a person killed it. Run until cancelled.

        The request is sent RECREATE_GRACE_S seconds after the report or the death is known, so that a person
        who is recreating the container has time to finish. If a recovery pass is already running, the request
        makes it check the containers once more, because this container may have died a second time during the
        pass.
        """
        while True:
            reason = await self._components.containers.deaths.pass_requests.get()
            await asyncio.sleep(RECREATE_GRACE_S)
            self._components.passes.request(reason)

    async def _maintain_files(self) -> None:
        """Rotate the logs and check the journal for damage, every MAINTENANCE_INTERVAL_S."""
        while True:
            await asyncio.to_thread(log_rotation.rotate, self._config.home.logs)
            await self._journal.check()
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)
