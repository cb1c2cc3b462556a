"""Run `docker compose` for the project of this home."""

import contextlib
import os
from collections.abc import Mapping

from host_agent.errors import ComposeFailed, DockerUnavailable
from host_agent.services import child_environment
from host_agent.services.child_environment import HOST_FROM_CONTAINER, REPO
from host_agent.services.docker import docker_endpoint
from host_agent.services.docker.time_zone import find_time_zone
from host_agent.services.find_program import find_program
from host_agent.services.orchestrator import knowledge_mounts
from vestal.config import Config
from vestal.platform import commands

SCALE, WORKER = "scale", "worker"  # a profile of docker-compose.yml, and its service
UP_TIMEOUT_S = 540.0  # building the image may be part of it
VERSION_TIMEOUT_S = 20.0
LAST_LINES = 3


class Compose:
    """Builds the `docker compose` commands for the project of one Vestal home. `run` runs a command and
    captures its output. Programs that show the output, such as `vestal up`, run what `command` returns
    themselves, with the variables of `environment`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.project = config.home.label

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `docker compose` with `arguments`, for this project.

        Raises DockerUnavailable if the program `docker` is not installed, and for `up` OSError if the file
        that mounts further knowledge folders cannot be written. No other command needs that file.
        """
        docker = find_program("docker")
        if docker is None:
            raise DockerUnavailable("The `docker` command is not installed: install Docker, or run natively.")
        project = ["--project-name", self.project, "--project-directory", str(REPO)]
        mounts = knowledge_mounts.write(self._config) if "up" in arguments else []
        files = [REPO / "docker-compose.yml", *mounts]
        file_arguments = [part for file in files for part in ("--file", str(file))]
        return [docker, "compose", *project, *file_arguments, *arguments]

    def environment(self) -> Mapping[str, str]:
        """Return this process's environment, with the variables that docker-compose.yml reads, and those with
        which the `docker` command finds the engine that the agent observes.
        """
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
            "TZ": find_time_zone(os.environ),
        }
        with contextlib.suppress(OSError):
            own["VESTAL_TOKEN"] = config.home.token.read_text().strip()
        settings = child_environment.orchestrator(config, HOST_FROM_CONTAINER)
        # The Dockerfile's build secret needs BuildKit, which older engines do not use by default.
        traces = child_environment.container_traces(os.environ)
        engine = docker_endpoint.variables()
        return {**os.environ, "DOCKER_BUILDKIT": "1", **engine, **settings, **traces, **own}

    @property
    def image(self) -> str:
        """Return the name of the image that every service of the project runs. By default, each project has
        its own.
        """
        return os.environ.get("VESTAL_ORCHESTRATOR_IMAGE") or f"{self.project}-orchestrator:local"

    def has_plugin(self) -> bool:
        """Return whether `docker compose` exists on this machine."""
        docker = find_program("docker")
        if docker is None:
            return False
        return commands.run(docker, "compose", "version", timeout_s=VERSION_TIMEOUT_S).exit_code == 0

    async def run(self, *arguments: str, timeout_s: float = UP_TIMEOUT_S) -> None:
        """Run a command to its end. Raises ComposeFailed if the command fails, with the last lines of its
        output, or if it takes longer than `timeout_s`.
        """
        done = await commands.run_async(
            *self.command(*arguments), timeout_s=timeout_s, env=self.environment()
        )
        if done.exit_code == commands.TIMED_OUT:
            raise ComposeFailed(f"`docker compose {arguments[0]}` took over {timeout_s:.0f} s.")
        if done.exit_code:
            raise ComposeFailed(f"`docker compose {arguments[0]}` failed: {last_lines(done.text)}")


def last_lines(output: str) -> str:
    """Return the last LAST_LINES non-empty lines of a command's output, joined by semicolons; if there are
    none, the text `it printed nothing`.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "; ".join(lines[-LAST_LINES:]) or "it printed nothing"
