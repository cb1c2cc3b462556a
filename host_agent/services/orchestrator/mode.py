"""Where the orchestrator runs: in containers, or natively under the agent. Decided at the agent's start."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from host_agent.errors import DockerUnavailable
from vestal.config import Config


class Engine(Protocol):
    """What is asked of a Docker engine (DockerApi): raises DockerUnavailable where none answers."""

    async def version(self) -> str: ...
    async def has_image(self, name: str) -> bool: ...


class ComposeCommand(Protocol):
    """What is asked of `docker compose` (Compose)."""

    @property
    def image(self) -> str: ...
    def has_plugin(self) -> bool: ...


class Mode(StrEnum):
    DOCKER = "docker"
    NATIVE = "native"
    OFF = "off"


@dataclass(frozen=True)
class Decision:
    mode: Mode
    why: str


async def decide(config: Config, api: Engine, compose: ComposeCommand) -> Decision:
    """As configured; with `auto`, containers where engine and `docker compose` answer and the image is built.

    Once containers were made for this home it stays with them: their volume holds the tasks.
    """
    possible = await possible_mode(config, api, compose)
    if possible.mode is not Mode.DOCKER or config.orchestrator.mode != "auto" or has_containers(config):
        return possible
    try:
        built = await api.has_image(compose.image)
    except DockerUnavailable as error:
        return Decision(Mode.NATIVE, str(error).rstrip("."))
    return possible if built else Decision(Mode.NATIVE, "its image is not built; `vestal up` builds it")


async def possible_mode(config: Config, api: Engine, compose: ComposeCommand) -> Decision:
    """The same without a look at the image: what is worth building it for."""
    wanted = config.orchestrator.mode
    if wanted != "auto":
        return Decision(Mode(wanted), f"orchestrator.mode is {wanted}")
    if has_containers(config):
        return Decision(Mode.DOCKER, "it has containers already")
    try:
        version = await api.version()
    except DockerUnavailable as error:
        return Decision(Mode.NATIVE, str(error).rstrip("."))
    if not await asyncio.to_thread(compose.has_plugin):
        return Decision(Mode.NATIVE, "`docker compose` is missing")
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
