"""Drive the real `ollama` command line against the real server.

It is a Go program that no package registry has, so the tests run only if VESTAL_TEST_OLLAMA or the PATH has
one.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

OLLAMA = os.environ.get("VESTAL_TEST_OLLAMA") or shutil.which("ollama")
MODEL = "smollm2:135m"
MADE = ("cli-mario", "cli-luigi", "cli-twin")
MODELFILE = """FROM smollm2:135m
SYSTEM You are Mario.
PARAMETER temperature 0
PARAMETER num_predict 3
PARAMETER stop END
MESSAGE user Hi
MESSAGE assistant It's-a me!
"""

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(OLLAMA is None, reason="no `ollama` on this machine (VESTAL_TEST_OLLAMA, PATH)"),
]


class CommandLine:
    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self._env = os.environ | {"OLLAMA_HOST": url, "HOME": str(home), "OLLAMA_NOHISTORY": "1"}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Return what is printed, without the terminal's control sequences."""
        assert OLLAMA
        done = subprocess.run(
            [OLLAMA, *arguments], env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
        printed = plain(done.stdout + done.stderr)
        assert done.returncode == code, printed
        return printed

    def session(self, model: str, *lines: str) -> str:
        """Return what a session of `ollama run` shows, in which these lines are typed one by one."""
        assert OLLAMA
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [OLLAMA, "run", model], env=self._env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        try:
            for line in (*lines, "/bye"):
                shown += _until_prompt(ours)
                os.write(ours, f"{line}\r".encode())
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return plain(shown)


def plain(output: bytes) -> str:
    """Return a terminal's output without control sequences and spinners."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\u2800-\u28ff]", "", output.decode("utf-8", "replace"))


def _until_prompt(descriptor: int) -> bytes:
    """Return the output up to the next prompt, or that of 20 s."""
    shown, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline and ">>> " not in plain(shown)[-60:]:
        if select.select([descriptor], [], [], 0.2)[0]:
            shown += os.read(descriptor, 65_536)
    return shown


@pytest.fixture
def cli(real_server, tmp_path: Path) -> Iterator[CommandLine]:
    yield CommandLine(real_server.url, tmp_path)
    for name in MADE:
        httpx.request("DELETE", f"{real_server.url}/api/delete", json={"model": name})


def test_ollama_command_creates_shows_copies_runs_and_removes_a_model(cli, tmp_path):
    (tmp_path / "Modelfile").write_text(MODELFILE)
    assert "success" in cli.run("create", "cli-mario", "-f", str(tmp_path / "Modelfile"))
    shown = cli.run("show", "CLI-Mario")
    for word in ("llama", "134.52M", "8192", "576", "completion", "You are Mario.", "num_predict"):
        assert word in shown
    (tmp_path / "Again").write_text(cli.run("show", "--modelfile", "cli-mario"))
    cli.run("create", "cli-luigi", "-f", str(tmp_path / "Again"))
    for part in ("--parameters", "--system", "--template"):
        assert cli.run("show", part, "cli-luigi") == cli.run("show", part, "cli-mario")
    cli.run("cp", "cli-mario", "cli-twin")
    first, second = (cli.run("run", name, "Who are you?").split() for name in ("cli-mario", "cli-twin"))
    assert first == second
    listed = cli.run("list")
    assert all(f"{name}:latest" in listed for name in MADE)
    assert MODEL in cli.run("ps")
    cli.run("stop", "cli-mario")
    cli.run("rm", *MADE)
    assert "cli-" not in cli.run("list")


def test_ollama_command_session_can_be_saved_as_a_model_with_its_settings(cli):
    shown = cli.session(
        MODEL, "/show info", "/set system You are Luigi.", "/set parameter num_predict 2", "/save cli-luigi"
    )
    assert "context length" in shown
    assert "Created new model 'cli-luigi'" in shown
    saved = cli.run("show", "cli-luigi")
    assert "You are Luigi." in saved
    assert "num_predict" in saved


def test_ollama_command_reports_unknown_models_and_unsupported_commands_as_errors(cli):
    assert "success" in cli.run("pull", MODEL)
    for command in ("pull", "run"):
        assert "pull model manifest: file does not exist" in cli.run(command, "no-such-model", code=1)
    assert "not found" in cli.run("rm", "no-such-model", code=1)
    assert "no accounts" in cli.run("push", MODEL, code=1)
