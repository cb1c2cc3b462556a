"""The environment variables that the agent's children get, natively and in containers."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from vestal import tracing
from vestal.config import Config

REPO = Path(__file__).resolve().parents[2]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
HOST_FROM_CONTAINER = "host.docker.internal"
_LOOPBACK_IN_URL = re.compile(r"(?<=[/@])(127\.0\.0\.1|localhost|\[::1\])(?=[:/]|$)", re.IGNORECASE)


def common(config: Config) -> dict[str, str]:
    """Return the variables that every child gets, so that all use the same home and configuration file."""
    environment = {"VESTAL_HOME": str(config.home.root), "PYTHONUNBUFFERED": "1"}
    if config.file:
        environment["VESTAL_CONFIG"] = str(config.file)
    return environment


def orchestrator(config: Config, host: str) -> dict[str, str]:
    """Return the orchestrator's settings as environment variables.

    `host` is this machine's name as the orchestrator sees it: 127.0.0.1 natively, host.docker.internal in a
    container.
    """
    settings = config.orchestrator
    mlx = settings.mlx_api_url or settings.mac_llm_url or f"http://{host}:{config.mlx.port}"
    webhook = settings.recovery_webhook_url or f"http://{host}:{config.agent.port}/recover"
    ollama = "" if config.ollama.manage == "off" else _from(host, config.ollama.base_url)
    return {
        # The first URL is this machine's; an empty one is not used.
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
        "NIGHTLY_HOUR": str(settings.nightly_hour),
        "VESTAL_CHAT_MODEL": settings.chat_model,
        "VESTAL_EMBED_MODEL": settings.embed_model,
        "VESTAL_RERANK_MODEL": settings.rerank_model or "",
        "VESTAL_DATABASE_URL": settings.database_url or "",
        "VESTAL_TASKS_AT_ONCE": str(settings.tasks_at_once),
        "VESTAL_MAX_UNFINISHED_TASKS": str(settings.max_unfinished_tasks),
    }


def container_traces(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which docker-compose.yml makes the containers send traces if tracing is on.

    VESTAL_TRACING adds OpenTelemetry to the image; it is empty if tracing is off. The addresses of the trace
    collector are taken from `environment`, with loopback replaced by the host's name in a container.
    VESTAL_TRACE_ATTRIBUTES carries OTEL_RESOURCE_ATTRIBUTES, because the `docker` command replaces the
    latter.
    """
    is_on = tracing.is_on(environment)
    endpoints = {name: environment[name] for name in tracing.ENDPOINTS if environment.get(name)}
    from_container = {name: _from(HOST_FROM_CONTAINER, url) for name, url in endpoints.items()}
    attributes = environment.get("OTEL_RESOURCE_ATTRIBUTES", "") if is_on else ""
    return {
        "VESTAL_TRACING": "1" if is_on else "",
        "VESTAL_TRACE_ATTRIBUTES": attributes,
        **from_container,
    }


def native_orchestrator(config: Config) -> Mapping[str, str]:
    """Return the settings of the orchestrator and of `nightly`, the process for long knowledge work at night,
    as environment variables. Both get the same ones when they run as children of the agent, in addition to
    the agent's own environment.
    """
    own = {
        "VESTAL_TOKEN": "",  # one of this shell, perhaps of another home, would win over the file
        "VESTAL_TOKEN_FILE": str(config.home.token),
        "VESTAL_ORCHESTRATOR_PORT": str(config.orchestrator.port),
        "VESTAL_AGENTS_FILE": str(agents_file(config)),
        # With the same name after a restart, a worker on Postgres resumes its own tasks at once.
        "VESTAL_WORKER_ID": f"{socket.gethostname()}:{config.orchestrator.port}",
        "VESTAL_KNOWLEDGE": ",".join(f"{name}={path}" for name, path in knowledge_folders(config).items()),
    }
    return common(config) | orchestrator(config, "127.0.0.1") | own


def knowledge_folders(config: Config) -> dict[str, Path]:
    """Return, by the name of the orchestrator's agent, the folder whose Markdown files this agent may search.
    An agent without such a folder is left out. A relative path begins at the checkout.
    """
    return {name: REPO / path.expanduser() for name, path in config.orchestrator.knowledge.items()}


def agents_file(config: Config) -> Path:
    """Return the path of the file that defines the orchestrator's agents. A relative path begins at the
    checkout.
    """
    return REPO / config.orchestrator.agents.expanduser()


def _from(host: str, url: str) -> str:
    """Return the URL with `host` in place of loopback, since loopback inside a container is the container
    itself.
    """
    return url if host in LOOPBACK else _LOOPBACK_IN_URL.sub(host, url)
