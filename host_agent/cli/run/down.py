"""`vestal down`: stop everything. No process, container, network, port or PID file of Vestal remains."""

import argparse
import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Mapping

from host_agent.agent import single_instance
from host_agent.cli.screen.waiting import waiting_for
from host_agent.errors import DockerUnavailable
from host_agent.service_manager import service_manager
from host_agent.services import terminate
from host_agent.services.docker.compose import SCALE, Compose, last_lines
from host_agent.services.mlx.service import SHUTDOWN_STAGES_S
from host_agent.services.orchestrator import mode
from host_agent.watchdog.child import stop_leftover as stop_watchdog
from vestal.config import Config
from vestal.platform.processes import process_lookup, vestal_processes
from vestal.supervision import read_pid_file

LIST_TIMEOUT_S = 20.0
COMPOSE_DOWN_TIMEOUT_S = 120.0
MOST_ROUNDS = 3


def run(options: argparse.Namespace, config: Config) -> int:
    """Stop the agent, its services and the containers, and delete their files, such as PID files, in the
    folder `run` of the home folder. If this version of Vestal refuses the home folder because of its format,
    delete no file.

    Return 0, or 1 if the containers could not be stopped.
    """
    with waiting_for(f"stopping the services; requests have up to {config.mlx.drain_s:.0f} s to end"):
        lines = [line for line in (_stop_installed_jobs(config), stop_agent(config)) if line]
        lines += _stop_leftover_processes(config)
    _print(lines)
    with waiting_for("stopping the containers"):
        problem, container_lines = stop_containers(config)
    _print(container_lines)
    if not config.home.judge_format().refusal:
        _delete_run_files(config)
    if not lines and not container_lines:
        print("nothing was running")
    if problem:
        print(problem)
    return 1 if problem else 0


def _delete_run_files(config: Config) -> None:
    for path in config.home.run.glob("*.*"):
        with contextlib.suppress(OSError):  # a stale PID file on a read-only disk is harmless
            path.unlink(missing_ok=True)


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


def stop_agent(config: Config) -> str:
    """Stop the agent, which stops its children in order. Return a line for the user, or "" if no agent ran.

    The watchdog is stopped first, because it would start another agent if this one is dead or must be killed.
    """
    asyncio.run(stop_watchdog(config.home))
    identity = single_instance.running(config.home)
    if identity is None:
        return ""
    was_suspended = process_lookup.is_suspended(identity.pid)
    asyncio.run(terminate.terminate_identity(identity, graceful_stop_s(config)))
    suspended = "; SIGSTOP had stopped it, so it was continued to end in order" if was_suspended else ""
    return f"agent: stopped (PID {identity.pid}), with all its services{suspended}"


def graceful_stop_s(config: Config) -> float:
    """Return how long an agent may take to stop, in seconds.

    This includes the time in which the gateway finishes its requests and the stages of its shutdown, and the
    time in which native orchestrators finish their current step.
    """
    return config.mlx.drain_s + SHUTDOWN_STAGES_S + 4 * config.supervision.stop_s


def _stop_installed_jobs(config: Config) -> str:
    """Tell launchd or systemd to stop the installed jobs, so that it does not restart the agent.

    Return a line for the user, or "" if no job is installed.
    """
    if not service_manager.is_any_job_installed(config.home):
        return ""
    if problems := service_manager.stop_installed_jobs(config.home):
        return f"service manager: {'; '.join(problems)}"
    return "service manager: the agent stays stopped until the next login (`vestal uninstall` removes it)"


def _stop_leftover_processes(config: Config) -> list[str]:
    """Stop processes that outlived a killed agent, and return a line about each of them.

    They are found by PID files and by VESTAL_HOME in their environment. The search is repeated after each
    round, because an agent may have been started meanwhile.
    """
    lines: list[str] = []
    for _ in range(MOST_ROUNDS):
        found = _leftover_processes(config)
        if not found:
            break
        lines += [_stop_leftover(pid, found[pid], config) for pid in sorted(found, key=_stop_rank(found))]
    return lines


def _leftover_processes(config: Config) -> dict[int, str]:
    """Return the running processes of this home: a dict from PID to name."""
    found = {}
    for path in sorted(config.home.run.glob("*.json")):
        identity = read_pid_file(path)
        if identity and identity.alive():
            found[identity.pid] = path.stem
    for pid, module in vestal_processes.servers_of_home(config.home.root, config.home.default_root):
        found.setdefault(pid, module)
    return found


def _stop_rank(names: Mapping[int, str]) -> Callable[[int], int]:
    """Return the sort key that puts PIDs into the order in which to stop the processes. `names` maps PIDs to
    names.

    The watchdog comes before the agent, which it would start again, and the agent before its services.
    Engines come last, because the gateway stops its own engine.
    """
    order = ("watchdog", "agent", "")

    def rank(pid: int) -> int:
        if "engine" in names[pid]:
            return len(order)
        return next(number for number, suffix in enumerate(order) if names[pid].endswith(suffix))

    return rank


def _stop_leftover(pid: int, name: str, config: Config) -> str:
    asyncio.run(terminate.terminate_pid(pid, config.mlx.drain_s + SHUTDOWN_STAGES_S))
    return f"{name}: stopped (PID {pid}, left over)"


def stop_containers(config: Config) -> tuple[str, list[str]]:
    """Stop and remove the containers. Return the problem, or "" if there is none, and lines about what was
    stopped.
    """
    compose = Compose(config)
    try:
        if not (mode.has_containers(config) or _has_containers_or_networks(compose)):
            return "", []
        command = compose.command("--profile", SCALE, "down", "--remove-orphans", "--timeout", "20")
        result = subprocess.run(
            command,
            env=dict(compose.environment()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPOSE_DOWN_TIMEOUT_S,
            check=False,
        )
    except (DockerUnavailable, subprocess.TimeoutExpired) as error:
        return f"containers: not stopped, because Docker does not answer ({error})", []
    except OSError as error:
        return f"containers: not stopped, because `docker compose` could not be run ({error})", []
    if result.returncode:
        return (
            f"containers: `docker compose down` failed: {last_lines(result.stderr.decode(errors='replace'))}",
            [],
        )
    if not config.home.judge_format().refusal:
        with contextlib.suppress(OSError):  # on a read-only disk: the containers are gone all the same
            mode.forget_containers(config)
    return "", [f"containers: stopped and removed (project {compose.project}; its data volume stays)"]


def _has_containers_or_networks(compose: Compose) -> bool:
    """Return whether Docker has containers or networks of `compose`'s project, which is the project of this
    installation of Vestal. Return False if Docker does not answer.
    """
    label = f"label=com.docker.compose.project={compose.project}"
    with contextlib.suppress(DockerUnavailable, OSError, subprocess.TimeoutExpired):
        docker = compose.command()[0]
        for listing in (("ps", "-aq"), ("network", "ls", "-q")):
            command = [docker, *listing, "--filter", label]
            result = subprocess.run(
                command,
                env=dict(compose.environment()),
                capture_output=True,
                timeout=LIST_TIMEOUT_S,
                check=False,
            )
            if result.returncode == 0 and result.stdout.strip():
                return True
    return False
