"""What the runners of Ollama show: over their ports, and in the log of their server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.ollama.runner_readings import RunnerActivity
from host_agent.services.ollama.runners import RunnerLook, log_of, port_of
from vestal.platform.processes.process_snapshot import ProcessSnapshot

GIN = '[GIN] 2026/08/21 - 10:00:01 | 200 |  1.2ms |  127.0.0.1 | GET      "/api/ps"\n'
PROGRESS = 'level=INFO source=pipeline.go:204 msg="Prompt processing progress" processed={} total=16384\n'
# Its port is closed: as for a release whose runner has no /slots, only the log shows progress.
RUNNER = ProcessSnapshot(os.getpid(), arguments=("ollama", "runner", "--mlx-engine", "--port", "9"))


async def test_ollama_runner_without_a_slots_endpoint_counts_as_working_while_the_server_log_shows_progress(
    tmp_path: Path,
):
    log = tmp_path / "server.log"
    log.write_text("noise\n" * 20_000)  # more than is read
    async with aiohttp.ClientSession() as session:
        look = RunnerLook(session, lambda: (RUNNER,), lambda: log)
        (nothing,) = await look.readings()
        assert nothing.reading.activity is RunnerActivity.HIDDEN
        marks = []
        for line in (PROGRESS.format(2048), GIN, PROGRESS.format(4096), "level=INFO msg=other\n"):
            with log.open("a") as file:
                file.write(line)
            (found,) = await look.readings()
            marks.append((found.reading.activity, found.reading.mark))
        assert [activity for activity, _ in marks] == [*[RunnerActivity.WORKING] * 3, RunnerActivity.HIDDEN]
        assert marks[0][1] == marks[1][1] != marks[2][1]
        assert "4096 of 16384 tokens" in found.reading.evidence


async def test_ollama_runner_progress_readings_are_empty_if_no_runner_exists(tmp_path: Path):
    async with aiohttp.ClientSession() as session:
        assert await RunnerLook(session, lambda: (), lambda: None).readings() == ()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("llama-server",), [False, True, True]),
        (("ollama", "runner", "--ollama-engine"), [False, True, True]),
        (("ollama", "runner", "--mlx-engine"), [False, False, True]),
    ],
)
async def test_ollama_runner_counts_as_connected_while_its_server_has_a_connection_for_a_request(
    free_port, command: tuple[str, ...], expected: list[bool]
):
    """Ollama keeps a connection to its MLX runner for the status that each GET /api/ps needs. It once counted
    as a request, so the agent, which asks every 10 s, kept an idle model loaded for ever.
    """
    site = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await site.setup()
    port = free_port()
    await web.TCPSite(site, "127.0.0.1", port).start()
    arguments = (*command, "--port", str(port))
    runner = ProcessSnapshot(os.getpid(), ppid=os.getpid(), arguments=arguments)  # this process is its server
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        look = RunnerLook(session, lambda: (runner,), lambda: None)
        seen = [(await look.readings())[0].connected]
        with socket.create_connection(("127.0.0.1", port)):
            seen.append((await look.readings())[0].connected)
            with socket.create_connection(("127.0.0.1", port)):
                seen.append((await look.readings())[0].connected)
    await site.cleanup()
    assert seen == expected


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        (("llama-server", "--model", "/b/sha256-1", "--port", "39227", "--host", "127.0.0.1"), 39227),
        (("ollama", "runner", "--ollama-engine", "--port", "1"), 1),
        (("ollama", "runner", "--port"), None),
        (("ollama", "runner", "--port", "0"), None),
        (("ollama", "runner", "--port", "x"), None),
        (("ollama", "runner"), None),
    ],
)
def test_port_of_an_ollama_runner_is_read_from_its_command_line(arguments: tuple[str, ...], port: int | None):
    assert port_of(ProcessSnapshot(1, arguments=arguments)) == port


def test_ollama_log_path_is_chosen_by_who_started_the_server_and_is_none_for_a_remote_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / "ollama.log"
    assert log_of(Owner(OwnerKind.OURS, pid=1), own) == own
    assert log_of(Owner(OwnerKind.APP, pid=1), own) == tmp_path / ".ollama" / "logs" / "server.log"
    assert log_of(Owner(OwnerKind.REMOTE), own) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows where the output of a process goes")
def test_log_of_an_ollama_server_started_by_hand_is_the_file_its_output_is_redirected_to(tmp_path: Path):
    redirected = tmp_path / "serve.log"
    with redirected.open("w") as log:
        process = subprocess.Popen(["sleep", "30"], stderr=log)
    try:
        assert log_of(Owner(OwnerKind.ORPHAN, pid=process.pid), tmp_path / "own.log") == redirected
    finally:
        process.kill()
        process.wait()


NOBODY = 65534


@contextlib.contextmanager
def _without_roots_rights() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows where the output of a process goes")
def test_log_of_an_ollama_server_in_a_folder_of_another_user_is_none(tmp_path: Path):
    """Earlier, PermissionError ended each look at such a server."""
    folder = tmp_path / "of_another_user"
    folder.mkdir()
    with (folder / "serve.log").open("w") as log:
        user = NOBODY if os.geteuid() == 0 else None
        process = subprocess.Popen(["sleep", "30"], stderr=log, user=user)
    folder.chmod(0)
    try:
        with _without_roots_rights():
            assert os.readlink(f"/proc/{process.pid}/fd/2") == str(folder / "serve.log")
            assert log_of(Owner(OwnerKind.ORPHAN, pid=process.pid), tmp_path / "own.log") is None
    finally:
        folder.chmod(0o700)
        process.kill()
        process.wait()
