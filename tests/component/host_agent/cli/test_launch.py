"""`vestal launch` as a command: it starts the program with the right settings, and writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.services.http_servers import serving

PROGRAM = '#!/bin/sh\nprintf "%s\\n" "$ANTHROPIC_BASE_URL" "$ANTHROPIC_API_KEY" "$KEPT" "$@"\nexit 7\n'


def _model(name: str, context_tokens: int, *capabilities: str) -> dict[str, Any]:
    details = {"context_length": context_tokens}
    return {"name": name, "size": 10, "details": details, "capabilities": capabilities}


MODELS = [
    _model("small:latest", 8_192, "completion", "tools"),
    _model("good:8b", 40_960, "completion", "tools"),
    _model("vectors:latest", 512, "embedding"),
]


class _Lists(BaseHTTPRequestHandler):
    """The MLX server's lists of models."""

    models: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        found = {"/api/tags": self.models, "/api/ps": []}[self.path]
        body = json.dumps({"models": found}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(tmp_path: Path, repo: Path) -> Iterator[Launch]:
    """Return a function that runs `vestal launch` with a program `claude` in the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").write_text(PROGRAM)
    (programs / "claude").chmod(0o755)
    (tmp_path / "work").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lists)

    def run(*arguments: str, models: Any = MODELS, port: int = 0) -> subprocess.CompletedProcess[str]:
        _Lists.models = models
        own = {
            "HOME": str(tmp_path / "user"),
            "VESTAL_HOME": str(tmp_path / "home"),
            "VESTAL_MLX_PORT": str(port or server.server_port),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(repo),
            "ANTHROPIC_API_KEY": "a real key, which is not sent here",
            "KEPT": "kept",
        }
        command = [sys.executable, "-m", "host_agent.cli.main", "launch", *arguments]
        return subprocess.run(
            command, env=os.environ | own, cwd=tmp_path / "work", capture_output=True, text=True
        )

    with serving(server):
        yield run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "work"], "something was written"
    assert not list((tmp_path / "work").iterdir())


def test_launch_picks_a_model_with_enough_context_and_returns_the_programs_exit_code(launch: Launch):
    done = launch("claude", "--", "-p", "two words")
    url, key, kept, *arguments = done.stdout.splitlines()
    assert url.startswith("http://127.0.0.1:")
    assert (key, kept) == ("", "kept")
    assert arguments == ["--model", "good:8b", "-p", "two words"]
    assert done.returncode == 7
    assert "good:8b" in done.stderr


def test_launch_command_uses_a_model_with_too_small_a_context_only_if_the_user_names_that_model(
    launch: Launch,
):
    done = launch("claude", models=MODELS[:1])
    assert (done.returncode, done.stdout) == (69, "")
    assert "small:latest has a context of 8,192 tokens" in done.stderr
    forced = launch("claude", "--model", "small", models=MODELS[:1])
    assert (forced.returncode, "--model\nsmall:latest" in forced.stdout) == (7, True)
    assert "it may fail" in forced.stderr


def test_launch_of_a_program_that_is_not_installed_prints_its_settings_and_install_command(launch: Launch):
    done = launch("goosey-opencode")
    assert (done.returncode, done.stdout) == (64, "")
    done = launch("qwen")
    assert done.returncode == 127
    assert "export OPENAI_BASE_URL=http://127.0.0.1:" in done.stdout
    assert "npm install -g @qwen-code/qwen-code" in done.stderr


def test_launch_without_a_running_server_says_how_to_start_it(launch: Launch, free_port: Callable[[], int]):
    done = launch("claude", port=free_port())
    assert (done.returncode, done.stdout) == (69, "")
    assert "`vestal up` starts it" in done.stderr


def test_launch_without_arguments_lists_the_programs_as_text_and_as_json(launch: Launch):
    listed = launch()
    assert "Claude Code" in listed.stdout and "32,768" in listed.stdout
    rows = json.loads(launch("--json").stdout)
    (claude,) = [row for row in rows if row["name"] == "claude"]
    assert claude["path"].endswith("/bin/claude")
    assert [row["path"] for row in rows if row["name"] == "qwen"] == [None]


def test_launch_with_show_or_json_prints_the_programs_settings_and_starts_nothing(launch: Launch):
    shown = launch("claude", "--show").stdout
    assert "export ANTHROPIC_API_KEY=''\n" in shown and shown.endswith("claude --model good:8b\n")
    described = json.loads(launch("claude", "--json", "--", "-p").stdout)
    assert described["command"] == ["claude", "--model", "good:8b", "-p"]
    assert described["environment"]["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == "40960"
