"""Decide at the agent's start whether the orchestrator runs in containers or as the agent's child."""

import asyncio
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from host_agent.errors import DockerUnavailable
from vestal.config import Config


class DockerEngine(Protocol):
    """The methods of the Docker engine that are needed to decide where the orchestrator runs."""

    async def version(self) -> str:
        """Return the version of the Docker engine. Raises DockerUnavailable if it does not answer."""

    async def has_image(self, name: str) -> bool:
        """Return whether the Docker engine has an image of this name. Raises DockerUnavailable if the engine
        does not answer.
        """


class ComposeCommand(Protocol):
    """The methods of `docker compose` that are needed to decide where the orchestrator runs."""

    @property
    def image(self) -> str:
        """Return the name of the orchestrator's image."""

    def has_plugin(self) -> bool:
        """Return whether `docker compose` exists."""


class Mode(StrEnum):
    """The place where the orchestrator runs: in containers, as the agent's child, or nowhere."""

    DOCKER = "docker"
    NATIVE = "native"
    OFF = "off"


class ModeCause(StrEnum):
    """The reason why the orchestrator runs in containers, as the agent's child, or not at all."""

    CONFIGURED = "configured"  # the setting orchestrator.mode names the mode
    POSSIBLE = "possible"  # containers, because all that they need is there
    NO_ENGINE = "no_engine"  # no Docker engine answered
    NO_COMPOSE = "no_compose"  # `docker compose` is missing
    NO_IMAGE = "no_image"  # the orchestrator's image is not built


@dataclass(frozen=True)
class ModeDecision:
    """The mode (where the orchestrator runs), and why it was chosen: `cause` is the kind of reason, and `why`
    a text with the evidence at that time.
    """

    mode: Mode
    why: str
    cause: ModeCause = ModeCause.CONFIGURED


async def decide(config: Config, docker: DockerEngine, compose: ComposeCommand) -> ModeDecision:
    """Return, with the reason, the mode that the setting orchestrator.mode names. If that is `auto`, return
    containers if a Docker engine and `docker compose` are there and the orchestrator's image is built, and
    otherwise the native mode.

    With `auto`, a Vestal home (VESTAL_HOME) that has containers keeps them even if Docker or the image is
    missing now, because their volume holds the tasks. A Docker engine that does not answer counts as missing;
    nothing is raised.
    """
    possible = await possible_mode(config, docker, compose)
    if possible.mode is not Mode.DOCKER or config.orchestrator.mode != "auto" or has_containers(config):
        return possible
    try:
        is_built = await docker.has_image(compose.image)
    except DockerUnavailable as error:
        return ModeDecision(Mode.NATIVE, str(error).rstrip("."), ModeCause.NO_ENGINE)
    if not is_built:
        return ModeDecision(Mode.NATIVE, "its image is not built; `vestal up` builds it", ModeCause.NO_IMAGE)
    return possible


async def possible_mode(config: Config, docker: DockerEngine, compose: ComposeCommand) -> ModeDecision:
    """Return the mode that the setting orchestrator.mode names. If that is `auto`, return the mode that will
    be possible once the orchestrator's image is built: containers if a Docker engine and `docker compose` are
    there, else the native mode. With `auto`, a Vestal home (VESTAL_HOME) that has containers keeps them even
    if Docker is missing now.
    """
    wanted = config.orchestrator.mode
    if wanted != "auto":
        return ModeDecision(Mode(wanted), f"orchestrator.mode is {wanted}")
    if has_containers(config):
        return ModeDecision(Mode.DOCKER, "it has containers already", ModeCause.POSSIBLE)
    try:
        version = await docker.version()
    except DockerUnavailable as error:
        return ModeDecision(Mode.NATIVE, str(error).rstrip("."), ModeCause.NO_ENGINE)
    if not await asyncio.to_thread(compose.has_plugin):
        return ModeDecision(Mode.NATIVE, "`docker compose` is missing", ModeCause.NO_COMPOSE)
    return ModeDecision(Mode.DOCKER, f"Docker engine {version} answers", ModeCause.POSSIBLE)


def remember_containers(config: Config) -> None:
    """Record in the Vestal home of `config` that the orchestrator's containers were created, so that with the
    mode `auto` the orchestrator stays in containers until `forget_containers` is called.
    """
    _marker(config).touch(mode=0o600)


def forget_containers(config: Config) -> None:
    """Record in the Vestal home of `config` that the orchestrator's containers were removed, so that
    `has_containers` returns False.
    """
    _marker(config).unlink(missing_ok=True)


def has_containers(config: Config) -> bool:
    """Return whether the Vestal home of `config` has containers of the orchestrator: `remember_containers`
    was called for it, and `forget_containers` has not been called since. Docker is not asked.
    """
    return os.path.exists(_marker(config))


def _marker(config: Config) -> Path:
    return config.home.root / "containers"
