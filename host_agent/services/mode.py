"""Where the orchestrator runs: in containers, or natively under the agent. Decided at the agent's start."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from host_agent.config import Config
from host_agent.errors import DockerUnavailable
from host_agent.services.compose import Compose
from host_agent.services.docker_api import DockerApi


class Mode(StrEnum):
    DOCKER = "docker"
    NATIVE = "native"
    OFF = "off"


@dataclass(frozen=True)
class Decision:
    mode: Mode
    why: str


async def decide(config: Config, api: DockerApi, compose: Compose) -> Decision:
    """As configured; with `auto`, containers where an engine and `docker compose` answer.

    Once containers were made for this home it stays with them: their volume holds the tasks.
    """
    wanted = config.orchestrator.mode
    if wanted != "auto":
        return Decision(Mode(wanted), f"orchestrator.mode is {wanted}")
    if _marker(config).exists():
        return Decision(Mode.DOCKER, "it has containers already")
    try:
        version = await api.version()
    except DockerUnavailable as error:
        return Decision(Mode.NATIVE, f"{str(error).rstrip('.')}, so the orchestrator runs natively")
    if not await asyncio.to_thread(compose.has_plugin):
        return Decision(Mode.NATIVE, "`docker compose` is missing, so the orchestrator runs natively")
    return Decision(Mode.DOCKER, f"Docker engine {version} answers")


def remember_containers(config: Config) -> None:
    """Containers exist now."""
    _marker(config).touch(mode=0o600)


def forget_containers(config: Config) -> None:
    """They were taken down."""
    _marker(config).unlink(missing_ok=True)


def has_containers(config: Config) -> bool:
    return _marker(config).exists()


def _marker(config: Config) -> Path:
    return config.home.root / "containers"
