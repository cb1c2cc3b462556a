"""Ollama is installed, and its server is not running. A process named `ollama-mcp` is not it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from host_agent.config import Config
from host_agent.doctor.finding import Finding
from host_agent.host import ports
from host_agent.services import ollama

NAME = "ollama_not_running"


def look(config: Config) -> Iterator[Finding]:
    """What listens where `ollama.base_url` points."""
    if config.ollama.manage == "off":
        yield Finding(NAME, "note", "Ollama is switched off in the configuration (ollama.manage)")
        return
    address = urlsplit(config.ollama.base_url)
    port = address.port or 11434
    held = ports.holder(port)
    if held and held.name and "ollama" not in held.name.lower():
        yield Finding(NAME, "note", f"port {port} is not Ollama's: {held.name} (PID {held.pid}) holds it")
    elif held:
        yield Finding(NAME, "ok", f"Ollama listens on port {port}")
    elif ollama.installed():
        remedy = "run `ollama serve` as the user who owns the models"
        yield Finding(NAME, "fault", f"Ollama is installed and nothing listens on port {port}", remedy)
    else:
        yield Finding(NAME, "note", "Ollama is not installed; Vestal does without it")
