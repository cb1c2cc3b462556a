"""Running `docker compose`, with a script in place of the `docker` command."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.cli.run import down
from host_agent.errors import ComposeFailed
from host_agent.services.docker.compose import Compose
from host_agent.services.orchestrator import knowledge_mounts, mode
from tests.processes import has_ended
from vestal.best_effort import files
from vestal.config import Config, load

Install = Callable[[str], Compose]


@pytest.fixture
def install(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that installs a script as the `docker` command and returns the compose project."""

    def made(script: str) -> Compose:
        command = tmp_path / "docker"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return Compose(load({"VESTAL_HOME": str(home)}, cwd=home))

    return made


async def test_compose_run_that_fails_raises_an_error_with_the_last_lines_of_output(install: Install):
    compose = install("echo one; echo two >&2; echo three; exit 3")
    with pytest.raises(ComposeFailed, match="`docker compose up` failed: one; two; three"):
        await compose.run("up", "--detach")


async def test_docker_compose_runs_with_its_project_name_and_buildkit_set_in_the_environment(
    install: Install, tmp_path: Path
):
    compose = install(f'echo "$COMPOSE_PROJECT_NAME $DOCKER_BUILDKIT" > {tmp_path}/seen')
    await compose.run("up")
    assert (tmp_path / "seen").read_text() == f"{compose.project} 1\n"


async def test_compose_run_that_times_out_kills_docker_and_its_compose_plugin(
    install: Install, tmp_path: Path
):
    """`docker` runs the compose plugin as a child, which went on when only `docker` was killed."""
    compose = install(f"cd {tmp_path}; sleep 600 & echo $! > started; mv started plugin; wait")
    for timeout_s in (1, 5, 60):  # a busy machine may not have started the script's commands within a second
        with pytest.raises(ComposeFailed, match=rf"took over {timeout_s} s"):
            await compose.run("up", timeout_s=timeout_s)
        if (tmp_path / "plugin").exists():
            break
    plugin = int((tmp_path / "plugin").read_text())
    async with asyncio.timeout(30):
        while not has_ended(plugin):  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.02)


@pytest.fixture
def on_a_read_only_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of a home with two knowledge folders and containers, which cannot be written."""
    folders = f"{{docs: {home}, reader: {home}}}"
    config = load({"VESTAL_HOME": str(home), "VESTAL_ORCHESTRATOR__KNOWLEDGE": folders}, cwd=home)
    mode.remember_containers(config)

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(knowledge_mounts, "write_file", refuse)
    monkeypatch.setattr(mode, "forget_containers", refuse)
    return config


def test_down_on_a_read_only_disk_stops_the_containers(
    install: Install, on_a_read_only_disk: Config, tmp_path: Path
):
    """It once failed before it had asked Docker for anything, and left the containers running."""
    install(f'echo "$@" >> {tmp_path}/seen')
    problem, lines = down.stop_containers(on_a_read_only_disk)
    assert (problem, len(lines)) == ("", 1)
    assert " down --remove-orphans" in (tmp_path / "seen").read_text()


def test_down_whose_docker_command_cannot_be_run_says_so_in_one_sentence(
    install: Install, on_a_read_only_disk: Config, tmp_path: Path
):
    install("")
    (tmp_path / "docker").write_text("#!/no/such/interpreter\n")
    problem, _ = down.stop_containers(on_a_read_only_disk)
    assert problem.startswith("containers: not stopped, because `docker compose` could not be run (")


def test_compose_file_of_the_knowledge_folders_is_written_only_if_its_text_changes(
    install: Install, on_a_read_only_disk: Config, monkeypatch: pytest.MonkeyPatch
):
    install("")
    compose = Compose(on_a_read_only_disk)
    with pytest.raises(OSError, match="Read-only"):
        compose.command("up")
    with monkeypatch.context() as patch:
        patch.setattr(knowledge_mounts, "write_file", files.write_file)
        command = compose.command("up")
    assert compose.command("up") == command
    assert command.count("--file") == 2
    assert compose.command("logs").count("--file") == 1, "only a start needs the mounts"


def test_has_compose_plugin_is_true_only_if_docker_compose_answers(install: Install):
    assert install('[ "$1 $2" = "compose version" ]').has_plugin()
    assert not install("exit 1").has_plugin()
