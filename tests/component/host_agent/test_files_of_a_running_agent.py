"""An agent whose files are deleted, or whose disk is full: nothing is started twice, and all comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.component.host_agent.conftest import PROGRAM, REPO, AgentUnderTest
from tests.disks.full_disk import FullDisk, SmallDisk, small_disk
from tests.processes import has_ended

pytestmark = pytest.mark.timeout(300)  # agents and commands start one after the other

# Under this name, the process table shows the test's agent as it shows a real one: `vestal agent`.
AS_VESTAL = (
    f"import runpy, sys; sys.argv = sys.argv[:1]; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
)


class VisibleAgent(AgentUnderTest):
    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        program = self.home.parent / "vestal"
        program.write_text(AS_VESTAL)
        return subprocess.Popen(
            [sys.executable, str(program), "agent", *arguments],
            env=self.env | {"PYTHONPATH": str(REPO)},
            cwd=REPO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def agent(home: Path, free_port: Callable[[], int]) -> Iterator[AgentUnderTest]:
    under_test = VisibleAgent(home, free_port(), free_port())
    yield under_test
    under_test.end_all()


def _vestal(agent: AgentUnderTest, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
    return subprocess.run(command, env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=100)


def _gateways(agent: AgentUnderTest) -> list[int]:
    found = []
    for process in agent.processes():
        with contextlib.suppress(psutil.Error):
            if "fake_gateway.py" in str(process.cmdline()):
                found.append(process.pid)
    return found


def _delete_run_folder(agent: AgentUnderTest) -> None:
    """Delete the folder at once: the agent, which writes its files again, must not write between them."""
    deleted = (agent.home / "run").rename(agent.home / "deleted")
    shutil.rmtree(deleted)


def test_run_folder_deleted_under_a_running_agent_is_written_again(agent: AgentUnderTest):
    gateway = agent.start().gateway()
    run = agent.home / "run"
    _delete_run_folder(agent)
    files = [run / name for name in ("agent.json", "agent.settings", "mlx_server.json")]
    agent.until(lambda: all(file.exists() for file in files), "they are there again", 15)
    assert agent.process is not None
    pids = [json.loads((run / name).read_text())["pid"] for name in ("agent.json", "mlx_server.json")]
    assert pids == [agent.process.pid, gateway]


def test_recover_recognizes_a_running_agent_whose_run_folder_was_just_deleted(agent: AgentUnderTest):
    """Earlier, `vestal recover` said that the agent was not running, and started another one."""
    agent.start()
    _delete_run_folder(agent)
    done = _vestal(agent, "recover", "--once")
    assert (done.returncode, done.stdout.strip()) == (0, "All services are healthy."), done.stderr
    assert agent.process is not None
    assert agent.status()["services"]["agent"]["process_pid"] == agent.process.pid


def test_second_agent_is_refused_although_the_run_folder_was_deleted(agent: AgentUnderTest):
    agent.start()
    assert agent.process is not None
    _delete_run_folder(agent)
    second = agent.launch()
    _, output = second.communicate(timeout=60)
    assert second.returncode == 75
    assert f"PID {agent.process.pid}" in output.splitlines()[-1]


def test_killed_agents_gateway_without_a_pid_file_is_adopted_by_the_next_agent(agent: AgentUnderTest):
    """Earlier, a second gateway was started, and exited with 75."""
    gateway = agent.start().gateway()
    agent.kill()  # first, because it would write the folder again
    shutil.rmtree(agent.home / "run")
    assert agent.start().gateway() == gateway
    assert _gateways(agent) == [gateway]
    assert agent.status()["services"]["mlx_server"]["restart_count"] == 0


def _flip_a_bit_in_every_file(home: Path) -> None:
    """Flip one bit in the middle of each file except the logs."""
    for path in list(home.rglob("*")):
        # A running agent may replace or delete a file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.suffix != ".log":
                _flip_a_bit(path)


def _flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        if byte := file.read(1):
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 4]))


def test_agent_with_flipped_bits_in_every_file_keeps_running_and_starts_nothing_twice(agent: AgentUnderTest):
    gateway = agent.start().gateway()
    assert agent.process is not None
    token = (agent.home / "token").read_text()
    for _ in range(3):
        _flip_a_bit_in_every_file(agent.home)
        agent.until(lambda: (agent.home / "token").read_text() == token, "the token is written again")
        assert agent.gateway() == gateway
        assert agent.recover()["healthy"]
    assert agent.process.poll() is None
    agent.kill()
    _flip_a_bit_in_every_file(agent.home)
    (agent.home / "token").write_text(token)  # with another token, the next agent is another for its clients
    assert agent.start().gateway() == gateway
    assert _gateways(agent) == [gateway]
    assert agent.journal()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def agent_on_disk(disk: FullDisk, free_port: Callable[[], int]) -> Iterator[AgentUnderTest]:
    home = disk.folder / "home"
    home.mkdir()
    under_test = AgentUnderTest(home, free_port(), free_port())
    yield under_test
    under_test.end_all()


def _disk(agent: AgentUnderTest) -> dict[str, Any]:
    return agent.status()["host"]["disk"]


def test_agent_killed_on_a_full_disk_restarts_and_writes_its_files_once_there_is_space(
    agent_on_disk: AgentUnderTest, disk: FullDisk
):
    """Earlier, the agent could not write its PID file, and so did not start."""
    agent = agent_on_disk
    gateway = agent.start().gateway()
    assert agent.process is not None
    disk.fill(agent.process.pid)
    if isinstance(disk, SmallDisk):
        agent.until(lambda: "No space left" in _disk(agent)["message"], "the status says so")
    agent.kill()
    assert agent.start().gateway() == gateway
    os.kill(gateway, 9)
    next_gateway = agent.until(lambda: (pid := agent.gateway()) != gateway and pid, "another gateway")
    assert agent.recover()["healthy"]
    assert _disk(agent)["message"]
    disk.free()
    agent.until(lambda: not _disk(agent)["message"], "all is written", 15)
    assert agent.gateway() == next_gateway
    for name, pid in (("agent", agent.process.pid), ("mlx_server", next_gateway)):
        assert json.loads((agent.home / "run" / f"{name}.json").read_text())["pid"] == pid
    expected = {"disk_not_writable", "child_adopted", "child_exited", "disk_writable_again"}
    noted = lambda: {entry["event"] for entry in agent.journal()} >= expected  # noqa: E731
    agent.until(noted, "the journal has what happened on the full disk")
    assert has_ended(gateway)


def test_first_command_on_a_full_disk_prints_one_sentence_and_exits_with_74(
    agent_on_disk: AgentUnderTest, disk: FullDisk
):
    disk.fill()
    done = _vestal(agent_on_disk, "token")
    disk.free()
    assert done.returncode == 74
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("vestal: ")
    assert list(agent_on_disk.home.glob(".token*")) == []
    assert _vestal(agent_on_disk, "token").returncode == 0
