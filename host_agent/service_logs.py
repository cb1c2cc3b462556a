"""The path of each service's log."""

from pathlib import Path

LOG_FILES = {
    "agent": "agent.log",
    "mlx_server": "mlx_server.log",
    "mlx_engine": "engine.log",
    "ollama": "ollama.log",
    "orchestrator": "orchestrator.log",
    "nightly": "nightly.log",
}


def log_path(logs: Path, service: str) -> Path:
    """Return the path of a service's log in the folder `logs`."""
    return logs / LOG_FILES.get(service, f"{service}.log")
