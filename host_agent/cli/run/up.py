"""`vestal up`: start everything in order, show the progress, and wait until all is healthy.

It is safe to run again.
"""

import argparse
import contextlib
import json
import shlex

from host_agent.agent import single_instance
from host_agent.agent_client import AgentClient
from host_agent.cli.gateway import GatewayClient
from host_agent.cli.launch.installed import installed_language_models
from host_agent.cli.launch.models import Needs, best
from host_agent.cli.run import background_agent, fetch_models, image_packages, preflight
from host_agent.cli.run.build_image import WITHOUT_DOCKER, build_image, run_in_foreground
from host_agent.cli.run.down import stop_containers
from host_agent.cli.run.progress import Progress, wait_until_healthy
from host_agent.cli.run.replace_outdated import replace_outdated
from host_agent.errors import ComposeFailed, GatewayUnreachable, HostAgentError
from host_agent.services.docker.compose import SCALE, WORKER, Compose
from host_agent.services.orchestrator import knowledge_mounts, mode
from vestal.config import Config
from vestal.platform.file_lock import LockHeld, hold_lock_blocking

LOCK_TIMEOUT_S = 120.0
ANY_MODEL = Needs(context_tokens=0, tools=False)


def run(options: argparse.Namespace, config: Config) -> int:
    progress = Progress()
    client = AgentClient(config)
    # Another home's agent may answer on this port; its services are not this home's.
    agent_runs = single_instance.running(config.home) is not None and client.answers()
    preflight.check(config, progress, agent_runs)
    config.home.prepare()
    fetch_models.fetch_missing(config, progress)
    image_packages.install_if_needed(config, progress)
    replace_outdated(config, progress)
    try:
        # While this lock is held, no recovery pass builds or starts the same things at the same time.
        with hold_lock_blocking(config.home.recovery_lock, LOCK_TIMEOUT_S):
            build_image(config, progress)
            start_services(config, client, progress)
    except LockHeld as error:
        raise HostAgentError(f"Not started: {error}; `vestal status` shows it.") from None
    wait_until_healthy(client, progress, options.timeout, config.home.logs)
    _print_addresses(config, client)
    return 0


def start_services(config: Config, client: AgentClient, progress: Progress) -> None:
    """Start the agent, and the containers if the orchestrator runs in containers, and stop containers that
    the settings no longer include. The agent starts the other services.
    """
    progress.show("agent", background_agent.ensure_running(config))
    replace_outdated(config, progress)  # an agent that has just been started may have adopted older services
    docker = client.get("/status")["services"]["docker"]
    if docker["orchestrator_mode"] != "docker" and mode.has_containers(config):
        _stop_unwanted_containers(config, progress)  # they hold the orchestrator's port
    client.post("/recover/reset")  # start again what was stopped by hand
    if docker["orchestrator_mode"] == "docker":
        _start_containers(config, progress)
    elif docker["orchestrator_mode"] == "native":
        why = f"decided when the agent started: {docker['why']}"
        progress.show("orchestrator", f"runs natively under the agent ({why})")
        if config.orchestrator.workers:
            progress.show("workers", "not started: they are containers, and there is no Docker to run them")


def _stop_unwanted_containers(config: Config, progress: Progress) -> None:
    """Stop and remove the containers, because `orchestrator.mode` was changed to one without containers.
    Their volume, and so their tasks, remain. If that fails, only show the reason: `vestal down` tries again.
    """
    problem, lines = stop_containers(config)
    for line in [*lines, problem]:
        if line:
            name, _, text = line.partition(": ")
            progress.show(name, text)


def _start_containers(config: Config, progress: Progress) -> None:
    knowledge_mounts.check(config)
    compose = Compose(config)
    mode.remember_containers(config)
    progress.show("containers", f"starting them (compose project {compose.project})")
    # The number of workers is always given, so that surplus workers of an earlier start are removed.
    workers = f"{WORKER}={config.orchestrator.workers}"
    arguments = ("--profile", SCALE, "up", "--detach", "--remove-orphans", "--scale", workers)
    if not run_in_foreground(compose, *arguments):
        raise ComposeFailed(f"`docker compose up` failed (its output is above); {WITHOUT_DOCKER}.")


def _print_addresses(config: Config, client: AgentClient) -> None:
    """Print the addresses on which the services listen, and commands to try them."""
    mlx = f"http://127.0.0.1:{config.mlx.port}"
    services = client.get("/status")["services"]
    lines = [
        "",
        f"MLX server    {mlx}  (Ollama's API and OpenAI's, under /v1)",
        f"Agent         http://127.0.0.1:{config.agent.port}  (`vestal status --open` opens the page)",
    ]
    orchestrator = services["orchestrator"]
    if orchestrator["state"] != "absent":
        url = f"http://127.0.0.1:{config.orchestrator.port}"
        lines.append(f"Orchestrator  {url}  ({orchestrator['runs']})")
    lines += ["", "Try:"]
    with contextlib.suppress(GatewayUnreachable):
        if model := best(installed_language_models(GatewayClient(config)), ANY_MODEL):
            question = {"model": model.name, "messages": [{"role": "user", "content": "Hello!"}]}
            lines.append(f"  curl {mlx}/api/chat -d {shlex.quote(json.dumps(question))}")
    lines.append(f"  curl {mlx}/v1/models")
    if pid := services["mlx_engine"]["process_pid"]:
        lines.append(f"  kill -9 {pid}    # the engine; then ask again")
    lines.append("  make status")
    print("\n".join(lines), flush=True)
