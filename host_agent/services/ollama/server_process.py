"""`ollama serve` as a child of the agent: how it is started, and how its runners are terminated after it."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

from host_agent.errors import NotPossible
from host_agent.services import OLLAMA, child_environment, terminate
from host_agent.services.configured_restart_policy import restart_policy
from host_agent.services.find_process import find_supervised
from host_agent.services.ollama import classify, installation
from host_agent.services.ollama.installation import Address
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
CHECK_TIMEOUT_S = 25.0  # of a health check: version, models, a token, and a look at the runners
RUNNER_GRACE_S = 5.0
LaunchGuard = Callable[[], Awaitable[None]]
"""Raises LaunchError if Ollama may not be started at present."""


def spec(config: Config, address: Address, ready: Probe, health: Probe, guard: LaunchGuard) -> ChildSpec:
    """Return the child spec of `ollama serve`."""
    home = config.home
    return ChildSpec(
        name=OLLAMA,
        command=(installation.program() or "ollama", "serve"),
        env={**child_environment.common(config), "OLLAMA_HOST": installation.served_at(address)},
        log_path=home.logs / "ollama.log",
        pid_file=home.run / "ollama.json",
        find=find_supervised,
        ready=ready,
        health=health,
        policy=_policy(config),
        launcher=OllamaLauncher(),
        before_launch=guard,
    )


def _policy(config: Config) -> RestartPolicy:
    """Return the common restart policy with at most five restarts an hour, because a server that fails more
    often needs a person.
    """
    policy = restart_policy(config.supervision)
    window_s = max(HOUR_S, config.supervision.window_s)
    return replace(
        policy,
        intensity=Intensity(min(RESTARTS_PER_HOUR, config.supervision.max_restarts), window_s),
        probe=replace(policy.probe, timeout_s=CHECK_TIMEOUT_S),
    )


class OllamaLauncher:
    """Starts or adopts `ollama serve`. The program is searched for at each start, because it may have been
    installed or moved meanwhile.
    """

    async def launch(self, spec: ChildSpec) -> "OllamaProcess":
        """Start `ollama serve` as `spec` says, and return its process at once, before it answers. Raises
        LaunchError if it cannot be started.
        """
        found = installation.program()
        command = (found, *spec.command[1:]) if found else spec.command
        return OllamaProcess(await spawn(replace(spec, command=command)))

    def adopt(self, identity: ProcessIdentity) -> "OllamaProcess":
        """Take over a server that an earlier agent started."""
        return OllamaProcess(adopt(identity))


class OllamaProcess(HandleWrapper):
    """A process of `ollama serve`. When it has ended, its runners are terminated gracefully before its
    process group is killed.

    SIGKILL can leak the memory that a runner has wired (ollama/ollama issues 5642, 17792).
    """

    async def wait(self) -> ExitStatus:
        """Wait until the server and its runners have ended."""
        await wait_for_exit(self.pid)
        await terminate_runners(await asyncio.to_thread(runners_of_group, self.pid))
        return await super().wait()


def runners_of_group(group: int) -> tuple[int, ...]:
    """Return the PIDs of the runners in a server's process group, which they do not leave when the server
    ends.
    """
    found = []
    for process in process_lookup.find_by_words("ollama", "llama-server"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if classify.is_runner(process) and os.getpgid(process.pid) == group:
                found.append(process.pid)
    return tuple(found)


async def terminate_runners(pids: tuple[int, ...], grace_s: float = RUNNER_GRACE_S) -> None:
    """Send SIGTERM to the runners, and SIGKILL to those that still run after `grace_s`."""
    with contextlib.suppress(NotPossible):
        await asyncio.gather(*(terminate.terminate_pid(pid, grace_s) for pid in pids))
