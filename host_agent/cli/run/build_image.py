"""The orchestrator's image, built in the foreground before the agent decides where the orchestrator runs."""

import asyncio
import subprocess
import sys

from host_agent.cli.run.progress import Progress
from host_agent.errors import ComposeFailed
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.orchestrator import mode
from vestal.config import Config

NATIVELY = "VESTAL_ORCHESTRATOR__MODE=native runs the orchestrator without Docker"


def build_image(config: Config, progress: Progress) -> None:
    """Build it where containers are possible.

    A base image that cannot be had (no network, no registry) is no reason to have no stack: with
    `orchestrator.mode: auto` it is said, and the agent goes on natively, or with the image it has.
    Raises ComposeFailed with `docker`, where the user insisted.
    """
    compose = Compose(config)
    if asyncio.run(_possible(config, compose)) is not mode.Mode.DOCKER:
        return
    progress.say("containers", "building the image (the first time takes a minute or two)")
    if in_foreground(compose, "build", *([] if sys.stdout.isatty() else ["--quiet"])):
        return
    if config.orchestrator.mode == "docker":
        raise ComposeFailed(f"`docker compose build` failed (its lines are above); {NATIVELY}.")
    progress.say("containers", "the image could not be built (see above); going on without a new one")


def in_foreground(compose: Compose, *arguments: str) -> bool:
    """Run `docker compose …` with its output shown; whether it succeeded."""
    done = subprocess.run(
        compose.command(*arguments), env=dict(compose.environment()), stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode == 0


async def _possible(config: Config, compose: Compose) -> mode.Mode:
    api = DockerApi()
    try:
        return (await mode.possible_mode(config, api, compose)).mode
    finally:
        await api.close()
