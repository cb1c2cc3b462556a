"""Derive the name of a client program from the headers of its request. Pure.

`User-Agent` lists products with their versions, the most specific one first. Many programs are built on a
library, which is named second (`opencode/1.18.31 ai-sdk/provider-utils/4.0.40`); some name only the library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_LENGTH = 40
MAX_READ = 400
"""How many characters of `User-Agent` are read at most."""

APPLICATIONS = {
    "claude-cli": "Claude Code",
    "cline": "Cline",
    "githubcopilotchat": "GitHub Copilot",
    "kilo-code": "Kilo Code",
    "litellm": "LiteLLM",
    "ollama": "ollama",  # Ollama's command line, and Go programs that use its package
    "opencode": "opencode",
    "qwencode": "Qwen Code",
    "roocode": "Roo Code",
    "vestal-cli": "vestal command",
    "vestal-orchestrator": "Vestal orchestrator",
    "vestal-page": "Vestal page",
    "zed": "Zed",
}
"""Names of programs, by their product in lower case. A program is shown with its version."""

APPLICATION_FAMILIES = {"codex": "Codex", "langchain": "LangChain"}
"""Names of programs, by the beginning of their products, such as `codex_cli_rs`, `codex_exec` and
`langchainjs-openai`."""

LIBRARIES = {
    "ai": "AI SDK",
    "ai-sdk": "AI SDK",
    "aiohttp": "aiohttp",
    "axios": "axios",
    "bun": "Bun",
    "curl": "curl",
    "deno": "Deno",
    "go-http-client": "Go",
    "node": "Node.js",
    "node-fetch": "node-fetch",
    "okhttp": "OkHttp",
    "ollama-js": "ollama-js",
    "ollama-python": "ollama-python",
    "python-httpx": "httpx",
    "python-requests": "requests",
    "python-urllib": "urllib",
    "reqwest": "reqwest",
    "undici": "Node.js",
    "wget": "Wget",
}
"""Names of libraries and tools, by their product in lower case. A library is shown without a version."""

BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "HeadlessChrome": "Chrome",
    "Chrome": "Chrome",
    "Version": "Safari",
}
"""Names of browsers, by one of their products. The first entry that matches counts, because Edge also names
Chrome and Safari."""

_OF_EVERY_BROWSER = frozenset({"Mozilla", "AppleWebKit", "Gecko", "Safari", "Mobile", "Electron", *BROWSERS})
_PRODUCT = re.compile(r"([^\s/(),;]+)(?:/([^\s(),;]*))?")
_COMMENT = re.compile(r"\([^()]*\)")
_OFFICIAL_SDK = re.compile(r"(?:Async)?(?:Azure)?(OpenAI|Anthropic)/(\w+)")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)?)")


def client_name(headers: Mapping[str, str]) -> str:
    """Return a short name such as `Claude Code 2.1`, `openai-python` or `Firefox 153`; an empty string if the
    client is unknown.

    The names of the headers must be in lower case. If `User-Agent` names only a library, other headers are
    used: Open WebUI sends headers about its user, and several programs send their title in `X-Title`.
    """
    user_agent = headers.get("user-agent", "")[:MAX_READ]
    name, is_library = _from_user_agent(user_agent)
    if is_library or not name:
        if any(header.startswith("x-openwebui-") for header in headers):
            name = "Open WebUI"
        name = headers.get("x-title", "").strip() or name
    return _printable(name)


def _from_user_agent(user_agent: str) -> tuple[str, bool]:
    """Return the client's name (empty if unknown), and whether it is the name of a library."""
    if sdk := _OFFICIAL_SDK.match(user_agent):
        language = sdk[2].lower()
        return f"{sdk[1].lower()}-{'node' if language == 'js' else language}", True
    products = _PRODUCT.findall(_COMMENT.sub(" ", user_agent))
    for product, version in products:
        if name := _application(product.lower()):
            return _with_version(name, version), False
    if products and products[0][0] == "Mozilla":
        return _browser(products), False
    for product, _ in products:
        if name := LIBRARIES.get(product.lower(), ""):
            return name, True
    return (_with_version(*products[0]), False) if products else ("", False)


def _application(product: str) -> str:
    families = (name for prefix, name in APPLICATION_FAMILIES.items() if product.startswith(prefix))
    return APPLICATIONS.get(product) or next(families, "")


def _browser(products: list[tuple[str, str]]) -> str:
    """Return the name and version of the browser, or of the program built on one (such as Obsidian or
    VS Code), whose User-Agent names these (product, version) pairs; `browser` if it is unknown.
    """
    versions = dict(reversed(products))
    if "Electron" in versions:
        own = next(((name, version) for name, version in products if name not in _OF_EVERY_BROWSER), None)
        return _with_version(*own) if own else "Electron"
    for product, name in BROWSERS.items():
        if product in versions:
            return f"{name} {versions[product].partition('.')[0]}".strip()
    return "browser"


def _with_version(name: str, version: str) -> str:
    """Return the name followed by the first two numbers of the version, or the name alone if `version` has no
    number.
    """
    found = _VERSION.match(version)
    return f"{name} {found[1]}" if found else name


def _printable(name: str) -> str:
    text = "".join(character for character in name if character.isprintable())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"
