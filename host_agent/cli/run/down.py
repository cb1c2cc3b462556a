"""`vestal down`: nothing of ours stays: no process, container, network, port or PID file."""

import argparse
import asyncio
import contextlib
import subprocess

from host_agent.agent import single_instance
from host_agent.errors import DockerUnavailable
from host_agent.service_manager import service_manager
from host_agent.services import terminate
from host_agent.services.docker.compose import SCALE, Compose, last_lines
from host_agent.services.mlx.service import SIX_STAGES_S
from host_agent.services.orchestrator import mode
from vestal.config import Config
from vestal.platform.processes import vestal_processes
from vestal.supervision import read_pid_file

ENGINE_ASKED_S = 20.0
COMPOSE_WITHIN_S = 120.0


def run(options: argparse.Namespace, config: Config) -> int:
    stopped = [line for line in (_manager(config), stop_agent(config)) if line]
    stopped += _left_overs(config)
    problem, containers = _containers(config)
    stopped += containers
    _tidy(config)
    for line in stopped or ["nothing was running"]:
        print(line)
    if problem:
        print(problem)
    return 1 if problem else 0


def _manager(config: Config) -> str:
    """Where launchd or systemd keeps the agent alive, it is told first: or it would bring it back."""
    if not service_manager.is_installed(config.home):
        return ""
    if problems := service_manager.stop(config.home):
        return f"service manager: {'; '.join(problems)}"
    return "service manager: told to stop the agent until the next login (`vestal uninstall` is for good)"


def stop_agent(config: Config) -> str:
    """Ends the agent and, through it, its children in order; a sentence of what was stopped."""
    identity = single_instance.running(config.home)
    if identity is None:
        return ""
    # It ends its children in order: the gateway drains, native orchestrators finish.
    grace_s = config.mlx.drain_s + SIX_STAGES_S + 4 * config.supervision.stop_s
    asyncio.run(terminate.terminate_identity(identity, grace_s))
    return f"agent: stopped (PID {identity.pid}), with all it looked after"


def _left_overs(config: Config) -> list[str]:
    """What outlived a killed agent: by PID file, and by the home in its environment."""
    found = {}
    for path in sorted(config.home.run.glob("*.json")):
        identity = read_pid_file(path)
        if identity and identity.alive():
            found[identity.pid] = path.stem
    for pid, module in vestal_processes.servers_of_home(config.home.root, config.home.default_root):
        found.setdefault(pid, module)
    # The gateway before its engine: it ends it, in the right order.
    order = sorted(found, key=lambda pid: "engine" in found[pid])
    return [_end(pid, found[pid], config) for pid in order]


def _end(pid: int, name: str, config: Config) -> str:
    asyncio.run(terminate.terminate(pid, config.mlx.drain_s + SIX_STAGES_S))
    return f"{name}: stopped (PID {pid}, left over)"


def _containers(config: Config) -> tuple[str, list[str]]:
    """What could not be done, and what was."""
    compose = Compose(config)
    try:
        had = mode.has_containers(config) or _listed(compose)
        if not had:
            return "", []
        command = compose.command("--profile", SCALE, "down", "--remove-orphans", "--timeout", "20")
        environment = dict(compose.environment())
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPOSE_WITHIN_S,
            check=False,
        )
    except (DockerUnavailable, subprocess.TimeoutExpired) as error:
        return f"containers: not stopped, since Docker does not answer ({error})", []
    if done.returncode:
        return f"containers: `docker compose down` failed: {last_lines(done.stderr)}", []
    mode.forget_containers(config)
    return "", [f"containers: stopped and removed (project {compose.project}; its data volume stays)"]


def _listed(compose: Compose) -> bool:
    """Whether an engine knows containers or networks of the project."""
    label = f"label=com.docker.compose.project={compose.project}"
    with contextlib.suppress(DockerUnavailable, OSError, subprocess.TimeoutExpired):
        docker = compose.command()[0]
        for what in (("ps", "-aq"), ("network", "ls", "-q")):
            command = [docker, *what, "--filter", label]
            done = subprocess.run(command, capture_output=True, timeout=ENGINE_ASKED_S, check=False)
            if done.returncode == 0 and done.stdout.strip():
                return True
    return False


def _tidy(config: Config) -> None:
    for path in config.home.run.glob("*.*"):
        path.unlink(missing_ok=True)
