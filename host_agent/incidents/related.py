"""Define which services depend on each other, and the services' names for sentences. Pure."""

from __future__ import annotations

from host_agent.services import AGENT, DOCKER, MLX_ENGINE, MLX_SERVER, NIGHTLY, OLLAMA, ORCHESTRATOR

WATCHDOG, DISK, MEMORY = "watchdog", "disk", "memory"
WORKER = "worker"
PARENTS = {MLX_ENGINE: MLX_SERVER}
"""Maps a service to its parent. When the parent's process ends, it ends the service's process too."""

NAMES = {
    AGENT: "the agent",
    DISK: "the disk",
    DOCKER: "the Docker engine",
    MEMORY: "memory",
    MLX_ENGINE: "the engine",
    MLX_SERVER: "the gateway",
    NIGHTLY: "the nightly worker",
    OLLAMA: "Ollama",
    ORCHESTRATOR: "the orchestrator",
    WATCHDOG: "the watchdog",
    WORKER: "a worker",
}


def name_of(service: str) -> str:
    """Return the name of a service for the middle of a sentence, such as "the engine". A service that is not
    in NAMES keeps its own name.
    """
    return NAMES.get(service, service)


def with_children(service: str) -> tuple[str, ...]:
    """Return the service and its children, whose processes end when the service's process ends."""
    return (service, *(child for child, parent in PARENTS.items() if parent == service))


def subject(service: str) -> str:
    """Return the name of a service for the beginning of a sentence."""
    name = name_of(service)
    return name[:1].upper() + name[1:]
