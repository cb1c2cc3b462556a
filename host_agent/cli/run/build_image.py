"""Build the orchestrator's image in the foreground, before the agent decides where the orchestrator runs."""

import asyncio
import subprocess
import sys

from host_agent.cli.run.progress import Progress
from host_agent.errors import ComposeFailed
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.orchestrator import mode
from vestal.config import Config

WITHOUT_DOCKER = "VESTAL_ORCHESTRATOR__MODE=native runs the orchestrator without Docker"


def build_image(config: Config, progress: Progress) -> None:
    """Build the orchestrator's image if it can run in containers on this machine.

    If the build fails, for example without a network, and the mode is `auto`, only say so: the agent then
    runs the orchestrator natively, or uses the image of an earlier build. Raises ComposeFailed if the build
    fails and the mode is `docker`, because the user insists on containers.
    """
    compose = Compose(config)
    if asyncio.run(_possible_mode(config, compose)) is not mode.Mode.DOCKER:
        return
    progress.show("containers", "building the image (the first time takes a minute or two)")
    if run_in_foreground(compose, "build", *([] if sys.stdout.isatty() else ["--quiet"])):
        return
    if config.orchestrator.mode == "docker":
        raise ComposeFailed(f"`docker compose build` failed (its output is above); {WITHOUT_DOCKER}.")
    progress.show("containers", "the image could not be built (see above); going on without a new one")


def run_in_foreground(compose: Compose, *arguments: str) -> bool:
    """Run `docker compose` with `arguments` and its output shown, and return whether it succeeded."""
    result = subprocess.run(
        compose.command(*arguments), env=dict(compose.environment()), stdin=subprocess.DEVNULL, check=False
    )
    return result.returncode == 0


async def _possible_mode(config: Config, compose: Compose) -> mode.Mode:
    api = DockerApi()
    try:
        return (await mode.possible_mode(config, api, compose)).mode
    finally:
        await api.close()
