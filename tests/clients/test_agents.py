"""Codex and Claude Code from npm against the real gateway: a whole turn with a tool call.

Their prompts have 5,000 to 20,000 tokens and need a capable model, so a scripted engine stands in for one. It
answers the prompt with a call of the agent's shell, and the shell's output with a text of numbered words.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.npm_packages import fetched
from tests.component.mlx_server.gateway.conftest import Gateway, make_model

pytestmark = pytest.mark.timeout(300)  # npm may have to fetch 150 MB first

HERE = Path(__file__).parent / "agents"
TURN_S = 200
WORDS = 60
PRINTED = "the-tool-was-run"
CONTEXT_TOKENS = 131_072
# What a shell prints are the scripted engine's orders for its next answer. It dies once at each place.
COMMANDS = {
    name: f"echo {PRINTED} tokens={WORDS} step_ms=10 die_at={at} once=1"
    for name, at in (("codex", 30), ("claude", 31))
}
BASH = {"command": COMMANDS["claude"], "description": "Say it"}
# Whatever an agent sends elsewhere than to this machine fails at once.
NO_NETWORK = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}


@dataclass(frozen=True)
class Agent:
    """An agent: its npm packages, its program in them, and the options for a turn without a terminal."""

    packages: str
    program: str
    options: tuple[str, ...]

    def turn(self, name: str, prompt: str, gateway: Gateway, repo: Path, home: Path) -> str:
        """Run one turn by `vestal launch`, and return what the agent printed."""
        programs, work = home / "bin", home / "work"
        for folder in (programs, work):
            folder.mkdir(parents=True)
        (programs / name).symlink_to(self._installed(repo))
        own = {
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(repo),
            "VESTAL_HOME": str(home / "vestal"),
            "VESTAL_MLX_PORT": str(gateway.port),
        }
        launch = [sys.executable, "-m", "host_agent.cli.main", "launch", name, "--"]
        done = subprocess.run(
            [*launch, *self.options, prompt],
            cwd=work,
            env={"LANG": os.environ.get("LANG", "C")} | NO_NETWORK | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_S,
        )
        assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
        assert not (home / "vestal").exists(), "something was written"
        return done.stdout

    def _installed(self, repo: Path) -> Path:
        """Return the program of this platform's package: npm installs no other platform's."""
        folder = fetched(HERE / self.packages / "package-lock.json", repo / ".cache" / f"npm-{self.packages}")
        found = [path for path in (folder / "node_modules").glob(self.program) if os.access(path, os.X_OK)]
        if not found:
            pytest.skip(f"npm has no {self.packages} for this platform")
        return found[0]


AGENTS = {
    "codex": Agent(
        "codex",
        "@openai/codex-*/vendor/*/bin/codex",
        ("exec", "--skip-git-repo-check", "-s", "danger-full-access", "--json"),
    ),
    "claude": Agent(
        "claude",
        "@anthropic-ai/claude-code-*/claude",
        ("--allowedTools", "Bash", "--output-format", "json", "-p"),
    ),
}


@pytest.fixture(scope="module")
def scripted(make_gateway: Callable[..., Gateway]) -> Gateway:
    """Run a gateway whose engine calls the agent's shell, and then dies once in the middle of its answer."""
    gateway = make_gateway({"calls": {"exec_command": {"cmd": COMMANDS["codex"]}, "Bash": BASH}})
    folder = gateway.home / "agents"
    make_model(folder / "chat", max_position_embeddings=CONTEXT_TOKENS, model_type="llama")
    (folder / "chat" / "chat_template.jinja").write_text("{{ messages }}{{ tools }}")
    gateway.env["VESTAL_MLX__MODELS_FOLDER"] = str(folder)
    return gateway.start().until_ok()


def _codex_text(output: str) -> str:
    """Return the agent's last message, from the events that it printed, after a command that succeeded."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    (command,) = [item for item in items if item["type"] == "command_execution"]
    assert (command["exit_code"], PRINTED in command["aggregated_output"]) == (0, True)
    assert events[-1]["type"] == "turn.completed"
    return [item["text"] for item in items if item["type"] == "agent_message"][-1]


def _claude_text(output: str) -> str:
    """Return the agent's last message. It shows that the shell was run, because only the shell's output
    orders it.
    """
    (result,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert (result["is_error"], result["num_turns"], result["permission_denials"]) == (False, 2, [])
    return result["result"]


TEXTS = {"codex": _codex_text, "claude": _claude_text}


@pytest.mark.parametrize("name", AGENTS)
def test_codex_and_claude_code_whose_engine_is_killed_midway_get_the_whole_answer(
    scripted: Gateway, repo: Path, tmp_path: Path, name: str
):
    resumed = len(scripted.events("request_resumed"))
    text = TEXTS[name](AGENTS[name].turn(name, "Run the tool.", scripted, repo, tmp_path))
    assert re.findall(r"t\d+-(\d+)", text) == [str(number) for number in range(WORDS)]
    assert len(scripted.events("request_resumed")) == resumed + 1
    scripted.until(lambda: scripted.health()["requests"]["running"] == 0, "nothing of the turn is left", 60)
