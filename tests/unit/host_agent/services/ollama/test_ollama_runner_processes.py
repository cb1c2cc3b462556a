"""Which runners have lost their server, and which llama-server is not Ollama's at all."""

from __future__ import annotations

import pytest

from host_agent.services.ollama.classify import orphaned_runners, runners_of_servers
from vestal.platform.processes.process_snapshot import ProcessSnapshot

BLOB = "/home/ada/.ollama/models/blobs/sha256-0123"
SERVER = ProcessSnapshot(10, 1, "ollama", ("/home/ada/bin/ollama", "serve"))


def llama_server(program: str, model: str = BLOB, ppid: int = 1) -> ProcessSnapshot:
    arguments = (program, "--model", model, "--port", "8080")
    return ProcessSnapshot(20, ppid, "llama-server", arguments, started_at=7.0)


@pytest.mark.parametrize(
    ("program", "model"),
    [
        ("/usr/bin/llama-server", BLOB),
        ("/opt/homebrew/bin/llama-server", BLOB),
        ("llama-server", BLOB),
        ("/home/ada/ollama/llama.cpp/build/bin/llama-server", BLOB),
        ("/usr/local/lib/ollama/llama-server", "/home/ada/mine.gguf"),
    ],
)
def test_llama_server_that_a_service_manager_runs_for_a_person_is_no_orphaned_runner(
    program: str, model: str
):
    """Each recovery pass once ended such a server, which systemd then restarted."""
    assert orphaned_runners([llama_server(program, model)]) == ()


@pytest.mark.parametrize(
    "program",
    [
        "/usr/local/lib/ollama/llama-server",
        "/Applications/Ollama.app/Contents/Resources/llama-server",
        "/opt/homebrew/Cellar/ollama/0.32.5/libexec/llama-server",
        "/opt/homebrew/opt/ollama/bin/llama-server",
        "/tmp/ollama1234/runners/cpu/ollama_llama_server",
    ],
)
def test_orphaned_runners_include_the_llama_server_of_each_package_of_ollama(program: str):
    left = llama_server(program)
    assert orphaned_runners([left]) == (left,)


def test_llama_server_in_any_folder_is_an_orphaned_runner_if_it_was_once_a_child_of_an_ollama_server():
    child = llama_server("/home/ada/bin/llama-server", ppid=SERVER.pid)
    left = llama_server("/home/ada/bin/llama-server")
    known = runners_of_servers([SERVER, child])
    assert orphaned_runners([SERVER, child], known) == ()
    assert runners_of_servers([left], known) == known
    assert orphaned_runners([left], known) == (left,)
    assert runners_of_servers([SERVER], known) == frozenset()


def test_llama_server_with_the_pid_of_an_earlier_runner_is_no_orphaned_runner():
    known = frozenset({(20, 6.0)})
    later = llama_server("/home/ada/bin/llama-server")
    assert orphaned_runners([later], known) == ()
    assert runners_of_servers([later], known) == frozenset()
