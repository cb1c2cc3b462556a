"""`ollama serve` as a child of ours: how it is started, and how its runners end with it."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

from host_agent.errors import NotPossible
from host_agent.services import OLLAMA, child_environment, terminate
from host_agent.services.ollama import classify, installation
from host_agent.services.ollama.installation import Address
from host_agent.services.restart_policy import restart_policy
from vestal.config import Config
from vestal.platform.processes import process_lookup
from vestal.supervision import (
    ChildSpec,
    ExitStatus,
    HandleWrapper,
    Intensity,
    Probe,
    ProcessIdentity,
    RestartPolicy,
    spawn,
)
from vestal.supervision.processes.exit_watch import wait_for_exit
from vestal.supervision.processes.process_group import adopt

RESTARTS_PER_HOUR = 5
HOUR_S = 3600.0
CHECK_WITHIN_S = 20.0  # the free questions, and a token
RUNNER_GRACE_S = 5.0
Guard = Callable[[], Awaitable[None]]
"""Raises LaunchError where Ollama may not be started just now."""


def spec(config: Config, where: Address, ready: Probe, health: Probe, guard: Guard) -> ChildSpec:
    """The child. Its program is looked for at each start: it may be installed, or moved, meanwhile."""
    home = config.home
    return ChildSpec(
        name=OLLAMA,
        command=(installation.program() or "ollama", "serve"),
        env={**child_environment.common(config), "OLLAMA_HOST": where.netloc},
        log_path=home.logs / "ollama.log",
        pid_file=home.run / "ollama.json",
        ready=ready,
        health=health,
        policy=_policy(config),
        launcher=OllamaLauncher(),
        before_launch=guard,
    )


def _policy(config: Config) -> RestartPolicy:
    """As everywhere, and at most five restarts an hour (R4.4): what hangs again and again needs a person."""
    policy = restart_policy(config.supervision)
    window_s = max(HOUR_S, config.supervision.window_s)
    return replace(
        policy,
        intensity=Intensity(min(RESTARTS_PER_HOUR, config.supervision.max_restarts), window_s),
        probe=replace(policy.probe, timeout_s=CHECK_WITHIN_S),
    )


class OllamaLauncher:
    """Starts the program where it is now."""

    async def launch(self, spec: ChildSpec) -> "OllamaProcess":
        found = installation.program()
        command = (found, *spec.command[1:]) if found else spec.command
        return OllamaProcess(await spawn(replace(spec, command=command)))

    def adopt(self, identity: ProcessIdentity) -> "OllamaProcess":
        return OllamaProcess(adopt(identity))


class OllamaProcess(HandleWrapper):
    """Where the server is gone, its runners are ended gracefully before what is left of the group is killed:
    SIGKILL strands a runner's wired memory (ollama/ollama 5642, 17792)."""

    async def wait(self) -> ExitStatus:
        await wait_for_exit(self.pid)
        await end_runners(await asyncio.to_thread(runners_of_group, self.pid))
        return await super().wait()


def runners_of_group(group: int) -> tuple[int, ...]:
    """The runners in a server's process group: their parent may be gone, their group is not."""
    found = []
    for process in process_lookup.find_by_words("ollama", "llama-server"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if classify.is_runner(process) and os.getpgid(process.pid) == group:
                found.append(process.pid)
    return tuple(found)


async def end_runners(pids: tuple[int, ...], grace_s: float = RUNNER_GRACE_S) -> None:
    """SIGTERM, and SIGKILL for one that does not end."""
    with contextlib.suppress(NotPossible):
        await asyncio.gather(*(terminate.terminate(pid, grace_s) for pid in pids))
