"""What the agent's children are told through their environment."""

import socket
from collections.abc import Mapping
from pathlib import Path

from vestal.config import Config

REPO = Path(__file__).resolve().parents[2]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
HOST_FROM_CONTAINER = "host.docker.internal"


def common(config: Config) -> dict[str, str]:
    """For every child: the same home and the same configuration file, wherever it is started from."""
    told = {"VESTAL_HOME": str(config.home.root), "PYTHONUNBUFFERED": "1"}
    if config.file:
        told["VESTAL_CONFIG"] = str(config.file)
    return told


def orchestrator(config: Config, host: str) -> dict[str, str]:
    """The environment of R5.7, natively (`host` is 127.0.0.1) or in a container (host.docker.internal)."""
    settings = config.orchestrator
    mlx = settings.mlx_api_url or f"http://{host}:{config.mlx.port}"
    webhook = settings.recovery_webhook_url or f"http://{host}:{config.agent.port}/recover"
    ollama = "" if config.ollama.manage == "off" else _from(host, config.ollama.base_url)
    return {
        # The first is this machine's; empty, it is not used.
        "OLLAMA_BASE_URL": ",".join([ollama, *settings.more_ollama_urls]),
        "MLX_API_URL": ",".join([_from(host, mlx), *settings.more_mlx_urls]),
        "VESTAL_LLM_API_KEY": settings.more_api_key or "",
        "VESTAL_MAX_ANSWER_TOKENS": str(settings.max_answer_tokens),
        "VESTAL_CONTEXT_TOKENS": str(settings.context_tokens),
        "MAC_LLM_URL": _from(host, settings.mac_llm_url or mlx),
        "RECOVERY_WEBHOOK_URL": _from(host, webhook),
        "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": f"{settings.health_monitor_interval_s:g}",
        "ORCHESTRATOR_CYCLE_INTERVAL": f"{settings.cycle_interval_s:g}",
        "SMART_WORKER_MAX_CONCURRENT": str(settings.max_concurrent),
        "VESTAL_CHAT_MODEL": settings.chat_model,
        "VESTAL_EMBED_MODEL": settings.embed_model,
        "VESTAL_DATABASE_URL": settings.database_url or "",
        "VESTAL_TASKS_AT_ONCE": str(settings.tasks_at_once),
    }


def native_orchestrator(config: Config) -> Mapping[str, str]:
    """For the orchestrator and nightly as children of the agent."""
    own = {
        "VESTAL_TOKEN_FILE": str(config.home.token),
        "VESTAL_ORCHESTRATOR_PORT": str(config.orchestrator.port),
        "VESTAL_AGENTS_FILE": str(agents_file(config)),
        # The same after a restart: on Postgres it then goes on with its own tasks at once.
        "VESTAL_WORKER_ID": f"{socket.gethostname()}:{config.orchestrator.port}",
        "VESTAL_KNOWLEDGE": ",".join(f"{name}={path}" for name, path in knowledge_folders(config).items()),
    }
    return common(config) | orchestrator(config, "127.0.0.1") | own


def knowledge_folders(config: Config) -> dict[str, Path]:
    """The folders whose Markdown the agents may search, by agent; relative to the checkout."""
    return {name: REPO / path.expanduser() for name, path in config.orchestrator.knowledge.items()}


def agents_file(config: Config) -> Path:
    """Who works on tasks; relative to the checkout."""
    return REPO / config.orchestrator.agents.expanduser()


def _from(host: str, url: str) -> str:
    """The URL as `host` must say it: loopback means this machine, and a container has its own."""
    if host in LOOPBACK:
        return url
    for name in LOOPBACK:
        url = url.replace(f"//{name}:", f"//{host}:").replace(f"//{name}/", f"//{host}/")
    return url
