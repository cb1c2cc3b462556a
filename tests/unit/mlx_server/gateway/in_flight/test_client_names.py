"""The names of client programs, derived from the headers that real programs send."""

from __future__ import annotations

import pytest

from mlx_server.gateway.in_flight.client_names import MAX_LENGTH, client_name

CHROME = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/156.0.0.0 Safari/537.36"
)
SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/26.1 Safari/605.1.15"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
OBSIDIAN = CHROME.replace("Chrome/", "obsidian/1.10.3 Chrome/").replace("Safari", "Electron/38.3.0 Safari")


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        # agents
        ("claude-cli/2.1.197 (external, sdk-cli)", "Claude Code 2.1"),
        ("claude-cli/2.1 (external, cli)", "Claude Code 2.1"),
        ("codex_exec/0.171.0 (Debian 12.0.0; x86_64) unknown (codex_exec; 0.171.0)", "Codex 0.171"),
        ("codex_cli_rs/0.98.0 (Ubuntu 26.04; x86_64) xterm-256color", "Codex 0.98"),
        ("opencode/1.18.31 ai-sdk/provider-utils/4.0.40 runtime/bun/1.3.14", "opencode 1.18"),
        ("QwenCode/0.15.0 (linux; x64)", "Qwen Code 0.15"),
        ("Cline/3.0.47", "Cline 3.0"),
        ("RooCode/3.30.1", "Roo Code 3.30"),
        ("GitHubCopilotChat/0.35.0", "GitHub Copilot 0.35"),
        ("litellm/1.110.0", "LiteLLM 1.110"),
        # this project's own programs
        ("vestal-page", "Vestal page"),
        ("vestal-cli", "vestal command"),
        ("vestal-orchestrator", "Vestal orchestrator"),
        # the official packages
        ("OpenAI/Python 3.57.0", "openai-python"),
        ("AsyncOpenAI/Python 3.57.0", "openai-python"),
        ("AsyncAzureOpenAI/Python 3.57.0", "openai-python"),
        ("OpenAI/JS 6.3.0", "openai-node"),
        ("Anthropic/Python 2.14.0", "anthropic-python"),
        ("AsyncAnthropic/Python 2.14.0", "anthropic-python"),
        ("Anthropic/JS 0.60.0", "anthropic-node"),
        ("OpenAI/Go 3.1.0", "openai-go"),
        ("ollama-python/0.6.1 (x86_64 linux) Python/3.11.2", "ollama-python"),
        ("ollama-js/0.6.0 (x64 linux Node.js/v22.0.0)", "ollama-js"),
        ("ollama/0.32.15 (amd64 linux) Go/go1.26.0", "ollama 0.32"),
        ("ai-sdk/openai-compatible/2.0.47 ai-sdk/provider-utils/4.0.27 runtime/node.js/24", "AI SDK"),
        ("ai/5.0.60 ai-sdk/provider-utils/3.0.10 runtime/node.js/22", "AI SDK"),
        ("langchainjs-openai/1.0.0 (node/v22.11.0)", "LangChain 1.0"),
        ("OllamaSharp/5.4.12", "OllamaSharp 5.4"),
        # libraries and tools
        ("curl/8.5.0", "curl"),
        ("Wget/1.21.3", "Wget"),
        ("python-httpx/0.28.1", "httpx"),
        ("Python/3.11 aiohttp/3.12.15", "aiohttp"),
        ("python-requests/2.32.3", "requests"),
        ("Python-urllib/3.11", "urllib"),
        ("Go-http-client/1.1", "Go"),
        ("node", "Node.js"),
        ("axios/1.7.9", "axios"),
        # browsers, and programs built on one
        (CHROME, "Chrome 156"),
        (CHROME.replace("Chrome/", "HeadlessChrome/"), "Chrome 156"),
        (f"{CHROME} Edg/156.0.0.0", "Edge 156"),
        (SAFARI, "Safari 26"),
        (FIREFOX, "Firefox 153"),
        (OBSIDIAN, "obsidian 1.10"),
        ("Mozilla/5.0", "browser"),
        # unknown programs, and requests without a name
        ("MyProgram/0.4-beta", "MyProgram 0.4"),
        ("myprogram", "myprogram"),
        ("", ""),
        ("()", ""),
        ("/1.0", "1.0"),
    ],
)
def test_client_name_of_a_real_user_agent_is_the_programs_name_and_version(user_agent: str, name: str):
    assert client_name({"user-agent": user_agent}) == name


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, ""),
        ({"user-agent": "Python/3.11 aiohttp/3.12.15", "x-openwebui-user-id": "1"}, "Open WebUI"),
        ({"user-agent": "node", "x-title": "n8n"}, "n8n"),
        ({"x-title": "n8n"}, "n8n"),
        ({"user-agent": "opencode/1.18.31", "x-title": "opencode"}, "opencode 1.18"),
    ],
)
def test_client_name_of_an_http_library_is_replaced_by_the_program_name_in_other_headers(
    headers: dict[str, str], name: str
):
    assert client_name(headers) == name


def test_client_name_of_any_text_is_short_and_printable():
    for user_agent in ("x" * 10_000, "a\x00\x1b[31mb/1.0", "((((" * 1000, "a/" * 5000, "\u202e/1.2"):
        name = client_name({"user-agent": user_agent, "x-title": ""})
        assert len(name) <= MAX_LENGTH
        assert name.isprintable()
