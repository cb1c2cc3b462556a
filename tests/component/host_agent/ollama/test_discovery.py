"""Real processes that look like Ollama's runners and have lost their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from host_agent.services.ollama import installation
from host_agent.services.ollama.discovery import Discovery
from tests.waiting import looks
from vestal.config import load


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run an `ollama serve` that has a llama-server, from a folder that is not Ollama's, as its child. The
    server prints the child's PID.
    """
    programs = {
        "llama-server": "#!/bin/sh\nsleep 60\n",
        "ollama": '#!/bin/sh\n"${0%/*}/llama-server" -m "$HOME/models/blobs/sha256-1" >&2 &\necho $!\nwait\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = [str(tmp_path / "ollama"), "serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


async def test_orphaned_llama_server_is_found_only_if_it_was_seen_before_as_a_child_of_an_ollama_server(
    server: subprocess.Popen[str], home: Path
):
    """A llama-server below init may be a person's own, run by systemd on a model file of Ollama's."""
    config = load({"VESTAL_HOME": str(home)}, cwd=home)
    address = installation.parse_address(config.ollama.base_url)
    saw_it, did_not = Discovery(config, address), Discovery(config, address)
    assert server.stdout
    runner = int(server.stdout.readline())
    for _ in looks(30):  # the shell becomes its program
        if runner in [process.pid for process in saw_it.runners(server.pid)]:
            break
    server.kill()
    server.wait()
    for _ in looks(30):
        if psutil.Process(runner).ppid() != server.pid:
            break
    assert runner in [process.pid for process in await saw_it.orphans()]
    assert runner not in [process.pid for process in await did_not.orphans()]
