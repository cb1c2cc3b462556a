"""Codex and Claude Code, as npm has them, against the real gateway: a turn with a tool call, to its end.

Their prompts have 5,000 to 20,000 tokens, and want a model with wits: a scripted engine stands in for it. It
answers the prompt with a call of the agent's shell, and the shell's output with a text of numbered words.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.npm_packages import fetched
from tests.component.mlx_server.gateway.conftest import Gateway, make_model

pytestmark = pytest.mark.timeout(300)  # npm may have to fetch 150 MB first

HERE = Path(__file__).parent / "agents"
TURN_S = 60
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
    """An agent's program, and the arguments and variables that point it at a server and a model."""

    program: list[str]
    environment: dict[str, str]

    def turn(self, prompt: str, home: Path) -> str:
        """Run one turn without a terminal, and return what the agent printed."""
        work = home / "work"
        work.mkdir(parents=True)
        kept = {key: os.environ[key] for key in ("PATH", "TMPDIR", "LANG") if key in os.environ}
        variables = kept | {"HOME": str(home)} | NO_NETWORK | self.environment
        command = [*self.program, prompt]
        done = subprocess.run(
            command,
            cwd=work,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_S,
        )
        assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout


def _native_program(folder: Path, pattern: str) -> Path:
    """Return the one program of this platform's package: npm installs no other platform's."""
    programs = [path for path in (folder / "node_modules").glob(pattern) if os.access(path, os.X_OK)]
    if not programs:
        pytest.skip(f"npm has no {pattern} for this platform")
    return programs[0]


def codex(repo: Path, url: str) -> Agent:
    folder = fetched(HERE / "codex" / "package-lock.json", repo / ".cache" / "npm-codex")
    program = _native_program(folder, "@openai/codex-*/vendor/*/bin/codex")
    provider = f'{{name = "Vestal", base_url = "{url}/v1", wire_api = "responses"}}'
    settings = ["-c", 'model_provider="vestal"', "-c", f"model_providers.vestal={provider}", "-m", "chat"]
    options = ["exec", "--skip-git-repo-check", "-s", "danger-full-access", "--json"]
    return Agent([str(program), *settings, *options], {})


def claude(repo: Path, url: str) -> Agent:
    folder = fetched(HERE / "claude" / "package-lock.json", repo / ".cache" / "npm-claude")
    program = _native_program(folder, "@anthropic-ai/claude-code-*/claude")
    options = ["--model", "chat", "--allowedTools", "Bash", "--output-format", "json", "-p"]
    environment = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "unused",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "chat",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    return Agent([str(program), *options], environment)


AGENTS: dict[str, Callable[[Path, str], Agent]] = {"codex": codex, "claude": claude}


@pytest.fixture(scope="module")
def scripted(make_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway whose engine calls the shell of the agent, and then dies once in the middle of its answer."""
    gateway = make_gateway({"calls": {"exec_command": {"cmd": COMMANDS["codex"]}, "Bash": BASH}})
    folder = gateway.home / "agents"
    make_model(folder / "chat", max_position_embeddings=CONTEXT_TOKENS, model_type="llama")
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
    """Return the agent's last message. Its shell was run: only the shell's output has the orders for it."""
    (result,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert (result["is_error"], result["num_turns"], result["permission_denials"]) == (False, 2, [])
    return result["result"]


TEXTS = {"codex": _codex_text, "claude": _claude_text}


@pytest.mark.parametrize("name", ["codex"])
def test_agents_turn_with_a_tool_call_is_whole_although_the_engine_is_killed_in_the_middle(
    scripted: Gateway, repo: Path, tmp_path: Path, name: str
):
    resumed = len(scripted.events("request_resumed"))
    agent = AGENTS[name](repo, scripted.url)
    text = TEXTS[name](agent.turn("Run the tool.", tmp_path / name))
    assert re.findall(r"t\d+-(\d+)", text) == [str(number) for number in range(WORDS)]
    assert len(scripted.events("request_resumed")) == resumed + 1
    assert scripted.health()["requests"]["running"] == 0
