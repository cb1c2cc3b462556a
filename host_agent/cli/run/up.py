"""`vestal up`: everything, in order, with progress; safe to run again."""

import argparse
import json

from host_agent.agent import running_settings, single_instance
from host_agent.agent_client import AgentClient
from host_agent.cli.run import background_agent, fetch_models
from host_agent.cli.run.build_image import NATIVELY, build_image, in_foreground
from host_agent.cli.run.down import stop_agent
from host_agent.cli.run.progress import Progress, wait_until_healthy
from host_agent.errors import ComposeFailed, HostAgentError
from host_agent.services.docker.compose import SCALE, WORKER, Compose
from host_agent.services.orchestrator import knowledge_mounts, mode
from host_agent.services.port_check import check_ports
from vestal.config import Config
from vestal.platform.file_lock import LockHeld, hold_lock_blocking

LOCK_WITHIN_S = 120.0


def run(options: argparse.Namespace, config: Config) -> int:
    progress = Progress()
    config.home.prepare()
    client = AgentClient(config)
    _apply_changed_settings(config, progress)
    if not client.answers():
        check_ports(config)
    fetch_models.ensure(config, progress)
    try:
        # No recovery pass may begin to build or start what is being built and started here.
        with hold_lock_blocking(config.home.run / "recovery.lock", LOCK_WITHIN_S):
            build_image(config, progress)
            _bring_up(config, client, progress)
    except LockHeld as error:
        raise HostAgentError(f"Not started: {error}; `vestal status` shows it.") from None
    wait_until_healthy(client, progress, options.timeout, config.home.logs)
    _say_what_to_try(config, client)
    return 0


def _apply_changed_settings(config: Config, progress: Progress) -> None:
    """An agent that was started with other settings is ended in order, and all it looks after with it."""
    began_with = running_settings.read(config.home)
    if single_instance.running(config.home) and began_with not in (None, running_settings.of(config)):
        progress.say("agent", "its settings have changed; stopping it and what it looks after")
        stop_agent(config)


def _bring_up(config: Config, client: AgentClient, progress: Progress) -> None:
    started = background_agent.ensure_running(config)
    progress.say("agent", "started" if started else "runs already")
    where = client.get("/status")["services"]["docker"]
    client.post("/recover/reset")  # what was stopped by hand is wanted again
    if where["orchestrator_mode"] == "docker":
        _containers(config, progress)
    elif where["orchestrator_mode"] == "native":
        progress.say("orchestrator", f"runs natively under the agent ({where['why']})")
        if config.orchestrator.workers:
            progress.say("workers", "not started: they are containers, and there is no Docker to run them")


def _containers(config: Config, progress: Progress) -> None:
    knowledge_mounts.check(config)
    compose = Compose(config)
    mode.remember_containers(config)
    progress.say("containers", f"starting them (compose project {compose.project})")
    if not in_foreground(compose, *_up(config)):
        raise ComposeFailed(f"`docker compose up` failed (its lines are above); {NATIVELY}.")


def _up(config: Config) -> list[str]:
    """With the number of workers always: fewer than before must leave."""
    workers = f"{WORKER}={config.orchestrator.workers}"
    return ["--profile", SCALE, "up", "--detach", "--remove-orphans", "--scale", workers]


def _say_what_to_try(config: Config, client: AgentClient) -> None:
    mlx = f"http://127.0.0.1:{config.mlx.port}"
    rows = client.get("/status")["services"]
    lines = [
        "",
        f"MLX server    {mlx}  (Ollama's API and OpenAI's, under /v1)",
        f"Agent         http://127.0.0.1:{config.agent.port}  (`vestal status --open` opens the page)",
    ]
    if rows["orchestrator"]["state"] != "absent":
        lines.append(
            f"Orchestrator  http://127.0.0.1:{config.orchestrator.port}  ({rows['orchestrator']['runs']})"
        )
    question = {"model": config.orchestrator.chat_model, "messages": [{"role": "user", "content": "Hello!"}]}
    lines += [
        "",
        "Try:",
        f"  curl {mlx}/api/chat -d '{json.dumps(question)}'",
        f"  curl {mlx}/v1/models",
        f"  kill -9 {rows['mlx_engine']['process_pid']}    # the engine; then ask again",
        "  make status",
    ]
    print("\n".join(lines), flush=True)
