"""`docker compose` for this home's project: which command, with which environment."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Mapping

from host_agent.errors import ComposeFailed, DockerUnavailable
from host_agent.services import child_environment
from host_agent.services.child_environment import HOST_FROM_CONTAINER, REPO
from host_agent.services.find_program import find_program
from host_agent.services.orchestrator import knowledge_mounts
from vestal.config import Config

SCALE, WORKER = "scale", "worker"  # a profile of docker-compose.yml, and its service
UP_TIMEOUT_S = 540.0  # it may have to build the image first
LAST_LINES = 3


class Compose:
    """One project. The CLI runs its commands in the foreground, the agent awaits them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.project = config.home.label

    def command(self, *arguments: str) -> list[str]:
        docker = find_program("docker")
        if docker is None:
            raise DockerUnavailable("The `docker` command is not installed: install Docker, or run natively.")
        where = ["--project-name", self.project, "--project-directory", str(REPO)]
        files = [REPO / "docker-compose.yml", *knowledge_mounts.write(self._config)]
        named = [part for file in files for part in ("--file", str(file))]
        return [docker, "compose", *where, *named, *arguments]

    def environment(self) -> Mapping[str, str]:
        """This process's environment, and what the compose file asks for."""
        config = self._config
        own = {
            "COMPOSE_PROJECT_NAME": self.project,
            "VESTAL_ORCHESTRATOR_IMAGE": self.image,
            "VESTAL_HOME": str(config.home.root),
            "VESTAL_ORCHESTRATOR_PORT": str(config.orchestrator.port),
            "VESTAL_MLX_PORT": str(config.mlx.port),
            "VESTAL_AGENT_PORT": str(config.agent.port),
            "VESTAL_ORCHESTRATOR_MEM_LIMIT": config.orchestrator.mem_limit,
            **knowledge_mounts.environment(config),
            "VESTAL_AGENTS_PATH": str(child_environment.agents_file(config)),
        }
        with contextlib.suppress(OSError):
            own["VESTAL_TOKEN"] = config.home.token.read_text().strip()
        told = child_environment.orchestrator(config, HOST_FROM_CONTAINER)
        # DOCKER_BUILDKIT: the Dockerfile's build secret needs it, and an older engine's default is off.
        return {**os.environ, "DOCKER_BUILDKIT": "1", **told, **own}

    @property
    def image(self) -> str:
        """The one image of both services; the project's own: two checkouts must not take turns with it."""
        return os.environ.get("VESTAL_ORCHESTRATOR_IMAGE") or f"{self.project}-orchestrator:local"

    def has_plugin(self) -> bool:
        """Whether `docker compose` exists on this machine."""
        docker = find_program("docker")
        if docker is None:
            return False
        try:
            done = subprocess.run(
                [docker, "compose", "version"], capture_output=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    async def run(self, *arguments: str, timeout_s: float = UP_TIMEOUT_S) -> None:
        """Run it to its end; ComposeFailed tells its last lines."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise ComposeFailed(f"`docker compose {arguments[0]}` took over {timeout_s:.0f} s.") from None
            raise
        if process.returncode:
            raise ComposeFailed(f"`docker compose {arguments[0]}` failed: {last_lines(output)}")


def last_lines(output: bytes) -> str:
    """The end of a command's output, in one line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-LAST_LINES:]) or "it said nothing"
