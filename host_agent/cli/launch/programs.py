"""The table of programs that `vestal launch` knows. The guide shows the same table. Pure.

In the values, `$url` is the MLX server's address, `$model` the model's name, `$quoted_model` the name escaped
for double quotes in JSON and TOML, and `$context_tokens` the length of the model's context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template

from host_agent.cli.launch.models import InstalledModel, Needs

AGENT_TOKENS = 32_768
"""The least context for an agent, whose own prompt and tools take 5,000 to 20,000 tokens."""
CHAT_TOKENS = 4_096

_OPENCODE = (
    '{"provider": {"vestal": {"npm": "@ai-sdk/openai-compatible", "name": "Vestal", '
    '"options": {"baseURL": "$url/v1"}, "models": {"$quoted_model": {"tool_call": true, '
    '"limit": {"context": $context_tokens, "output": 8192}}}}}, "model": "vestal/$quoted_model"}'
)
_CODEX = 'model_providers.vestal={name = "Vestal", base_url = "$url/v1", wire_api = "responses"}'


@dataclass(frozen=True)
class Program:
    """One program, and how it is connected to the MLX server without writing a file.

    `command` is started with `environment` added to the shell's variables. An empty value in `environment`
    replaces a variable of the shell that would make the program send the user's words or key to another
    service. `configuration` is the text to write into `configuration_file` to make the connection permanent.

    `install` is the command that installs the program, or says in words how to install it. `version` is the
    version of the program that was tested, and `works` says what worked. `tried_by` is the test's path, or
    `by hand` and the month. `needs` is what the program requires of its model: the length of the context, and
    tool calls.
    """

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    install: str
    version: str
    works: str
    tried_by: str
    needs: Needs = field(default_factory=lambda: Needs(AGENT_TOKENS, tools=True))
    configuration_file: str = ""
    configuration: str = ""


@dataclass(frozen=True)
class Plan:
    """How to start a program: its command line, the environment variables to set, and the text for its own
    configuration file.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    configuration: str


def plan(program: Program, model: InstalledModel, url: str, more: tuple[str, ...] = ()) -> Plan:
    """Return how to start the program with this model. `url` is the MLX server's address, `more` the user's
    arguments, which are appended to the command.
    """
    values = {
        "url": url,
        "model": model.name,
        "quoted_model": model.name.replace("\\", "\\\\").replace('"', '\\"'),
        "context_tokens": str(model.context_tokens),
    }

    def filled(text: str) -> str:
        return Template(text).substitute(values)

    return Plan(
        (*(filled(part) for part in program.command), *more),
        {name: filled(value) for name, value in program.environment.items()},
        filled(program.configuration),
    )


PROGRAMS: dict[str, Program] = {
    "claude": Program(
        title="Claude Code",
        command=("claude", "--model", "$model"),
        environment={
            "ANTHROPIC_BASE_URL": "$url",
            "ANTHROPIC_AUTH_TOKEN": "vestal",
            "ANTHROPIC_API_KEY": "",
            "CLAUDE_CODE_USE_BEDROCK": "",
            "CLAUDE_CODE_USE_VERTEX": "",
            "ANTHROPIC_DEFAULT_OPUS_MODEL": "$model",
            "ANTHROPIC_DEFAULT_SONNET_MODEL": "$model",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": "$model",
            "CLAUDE_CODE_SUBAGENT_MODEL": "$model",
            "CLAUDE_CODE_AUTO_COMPACT_WINDOW": "$context_tokens",
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
        install="npm install -g @anthropic-ai/claude-code",
        version="2.1.332",
        works="a turn with a tool call, across a killed engine",
        tried_by="tests/clients/test_agents.py",
    ),
    "codex": Program(
        title="Codex CLI",
        command=(
            *("codex", "-m", "$model", "-c", 'model_provider="vestal"', "-c", _CODEX),
            *("-c", "model_context_window=$context_tokens"),
        ),
        environment={},
        install="npm install -g @openai/codex",
        version="0.171.0",
        works="a turn with a tool call, across a killed engine",
        tried_by="tests/clients/test_agents.py",
        configuration_file="~/.codex/config.toml",
        configuration="""\
model = "$quoted_model"
model_provider = "vestal"
model_context_window = $context_tokens

[model_providers.vestal]
name = "Vestal"
base_url = "$url/v1"
wire_api = "responses"
""",
    ),
    "opencode": Program(
        title="opencode",
        command=("opencode",),
        environment={"OPENCODE_CONFIG_CONTENT": _OPENCODE},
        install="npm install -g opencode-ai",
        version="1.18.33",
        works="a turn with a tool call, across a killed engine",
        tried_by="by hand, November 2026",
        configuration_file="~/.config/opencode/opencode.json",
        configuration=_OPENCODE + "\n",
    ),
    "aider": Program(
        title="aider",
        command=("aider", "--model", "openai/$model", "--no-show-model-warnings"),
        environment={
            "OPENAI_API_BASE": "$url/v1",
            "OPENAI_BASE_URL": "$url/v1",
            "OPENAI_API_KEY": "vestal",
        },
        install="pip install aider-chat",
        version="0.86.2",
        works="questions, streamed",
        tried_by="by hand, November 2026",
        needs=Needs(8_192, tools=False),
    ),
    "qwen": Program(
        title="Qwen Code",
        command=("qwen", "--auth-type", "openai", "--model", "$model"),
        environment={"OPENAI_BASE_URL": "$url/v1", "OPENAI_API_KEY": "vestal", "OPENAI_MODEL": "$model"},
        install="npm install -g @qwen-code/qwen-code",
        version="0.15.10",
        works="a turn with a tool call",
        tried_by="by hand, November 2026",
    ),
    "copilot": Program(
        title="Copilot CLI",
        command=("copilot", "--model", "$model"),
        environment={
            "COPILOT_PROVIDER_BASE_URL": "$url/v1",
            "COPILOT_PROVIDER_TYPE": "openai",
            "COPILOT_PROVIDER_API_KEY": "vestal",
            "COPILOT_PROVIDER_WIRE_API": "responses",
            "COPILOT_MODEL": "$model",
        },
        install="npm install -g @github/copilot",
        version="1.0.102",
        works="a turn with a tool call, across a killed engine",
        tried_by="by hand, November 2026",
    ),
    "open-webui": Program(
        title="Open WebUI",
        command=("open-webui", "serve"),
        environment={"OLLAMA_BASE_URL": "$url"},
        install="pip install open-webui",
        version="0.12",
        works="the list of models, chats",
        tried_by="by hand, November 2026",
        needs=Needs(CHAT_TOKENS, tools=False),
    ),
    "ollama": Program(
        title="Ollama's command line",
        command=("ollama", "run", "$model"),
        environment={"OLLAMA_HOST": "$url"},
        install="the program of Ollama's own installer; its server need not run",
        version="0.32",
        works="run, show, ps, list, pull, cp, create, rm, stop",
        tried_by="tests/clients/test_ollama_cli.py",
        needs=Needs(0, tools=False),
    ),
}
