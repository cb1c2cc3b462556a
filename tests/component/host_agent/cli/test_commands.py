"""Commands of `vestal` that need no stack, or lack one: exit codes, and one sentence for each mistake."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.component.host_agent.cli.conftest import sentence
from tests.services import in_process
from vestal.supervision import write_pid_file
from vestal.supervision.processes.identity import identify


def test_token_command_without_a_token_file_creates_and_prints_a_token(vestal, home: Path):
    assert vestal("token").stdout == (home / "token").read_text()


def test_logs_command_with_an_unknown_service_lists_the_known_services(vestal):
    done = vestal("logs", "foo")
    assert done.returncode == 64
    assert "mlx_engine" in sentence(done)


def test_logs_command_prints_the_last_lines_each_with_its_service(vestal, home: Path):
    (home / "logs").mkdir()
    (home / "logs" / "engine.log").write_text("one\ntwo\nthree\n")
    done = vestal("logs", "-n", "2", "mlx_engine")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["mlx_engine", "two"],
        ["mlx_engine", "three"],
    ]
    assert json.loads(vestal("logs", "--json", "-n", "1").stdout)["line"] == "three"
    assert vestal("logs", "--grep", "one").stdout.split() == ["mlx_engine", "one"]


@pytest.mark.parametrize("mistake", [("--since", "soon"), ("--grep", "("), ("--lines", "-1")])
def test_logs_command_with_an_invalid_option_value_prints_one_sentence_and_exits_with_64(
    vestal, mistake: tuple[str, str]
):
    done = vestal("logs", *mistake)
    assert done.returncode == 64
    assert mistake[1] in sentence(done)


def test_recover_dry_run_without_an_agent_says_that_it_would_start_one(vestal, home: Path):
    done = vestal("recover", "--dry-run")
    assert done.returncode == 1
    assert "would start it" in done.stdout
    assert not (home / "run").exists()


def test_cache_clear_deletes_the_kv_cache_but_not_the_blas_links(vestal, home: Path):
    for folder in ("blas", "kv"):
        (home / "cache" / folder).mkdir(parents=True)
        (home / "cache" / folder / "file").write_bytes(b"x" * 1024)
    done = vestal("cache", "clear")
    assert done.returncode == 0
    assert [path.name for path in (home / "cache").iterdir()] == ["blas"]


def test_install_dry_run_writes_nothing(vestal, home: Path):
    done = vestal("install", "--dry-run", XDG_CONFIG_HOME=str(home / "config"))
    assert done.returncode == 0, done.stderr
    assert "would write" in done.stdout
    assert not (home / "config").exists()


@pytest.mark.parametrize(
    ("service", "answered", "command"),
    [
        ("ORCHESTRATOR", 0, ("search", "fox")),
        ("MLX", 0, ("chat", "smollm2:135m", "Hello?")),
        # The first request, whether the agent answers, is given up after 2 s already.
        ("AGENT", 1, ("recover", "--dry-run")),
    ],
)
def test_command_interrupted_by_ctrl_c_prints_one_sentence_and_exits_with_130(
    vestal, home: Path, service: str, answered: int, command: tuple[str, ...]
):
    """Earlier, Ctrl-C printed nothing in most commands, and was lost during an import."""
    home.mkdir(exist_ok=True)
    (home / "token").write_text("t")
    this_process = identify(os.getpid())
    assert this_process
    write_pid_file(home / "run" / "agent.json", this_process)  # an agent runs
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        port = str(silent.getsockname()[1])
        with vestal.start(*command, **{f"VESTAL_{service}_PORT": port}) as started:
            try:
                for _ in range(answered):
                    with silent.accept()[0] as connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                with silent.accept()[0]:  # this one gets no answer
                    started.send_signal(signal.SIGINT)
                    _, errors = started.communicate(timeout=60)
            finally:
                started.kill()
    assert started.returncode == 130
    assert errors.startswith("vestal: Interrupted. ") and len(errors.splitlines()) == 1


@pytest.mark.parametrize("command", [("demo",), ("top",), ("chat",), ("chat", "smollm2:135m", "Hello?")])
def test_command_that_needs_the_mlx_server_names_the_remedy_if_the_server_is_not_running(
    vestal, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello?"))
    done = in_process.vestal(command, vestal.env)
    assert done.returncode == 69
    assert sentence(done).endswith("`vestal status` says why, `vestal up` starts it.")


def test_chat_command_with_empty_piped_input_is_refused(vestal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    done = in_process.vestal(("chat",), vestal.env)
    assert (done.returncode, done.stdout) == (64, "")
    assert "There is no question" in sentence(done)
