"""Ollama is installed, and its server is not running. A process named `ollama-mcp` is not it."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from host_agent.doctor.evidence import http_question, process_table
from host_agent.doctor.finding import Finding
from host_agent.doctor.ollama import processes
from host_agent.services import ollama
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes.ps import PsProcess

NAME = "ollama_not_running"
START = "run `ollama serve` as the user who owns the models"


def look(config: Config) -> Iterator[Finding]:
    """What listens where `ollama.base_url` points."""
    url = _url(config)
    if config.ollama.manage == "off":
        yield Finding(NAME, "note", "Ollama is switched off in the configuration (ollama.manage)")
    elif not http_question.is_local(url):
        yield _elsewhere(url)
    else:
        yield _here(config, urlsplit(url).port or 11434)


def _url(config: Config) -> str:
    return config.ollama.base_url.rstrip("/")


def _elsewhere(url: str) -> Finding:
    answer = http_question.get(f"{url}/api/version")
    if answer.status:
        return Finding(NAME, "ok", f"Ollama answers at {url}")
    remedy = "start it on that machine, or correct ollama.base_url"
    return Finding(NAME, "fault", f"no Ollama answers at {url} ({answer.why})", remedy)


def _here(config: Config, port: int) -> Finding:
    held = ports.holder(port)
    if held and port == config.mlx.port:
        return Finding(NAME, "note", f"the MLX server stands in for Ollama on port {port}")
    if held and held.name and "ollama" not in f"{held.name} {held.command}".lower():
        return Finding(
            NAME,
            "note",
            f"port {port} is not Ollama's: {held.name} (PID {held.pid}) holds it",
            "",
            held.command,
        )
    if held and not held.name and "version" not in http_question.get(f"{_url(config)}/api/version").fields:
        sentence = f"port {port} is held by another user's process, which does not answer as Ollama does"
        return Finding(NAME, "note", sentence, f"`sudo lsof -nP -iTCP:{port} -sTCP:LISTEN` names it")
    if held:
        return Finding(NAME, "ok", f"Ollama listens on port {port}", "", held.command)
    if not ollama.installed():
        return Finding(NAME, "note", "Ollama is not installed; Vestal does without it")
    sentence = f"Ollama is installed and nothing listens on port {port}"
    return Finding(NAME, "fault", sentence, START, instead(process_table.read()))


def instead(table: Mapping[int, PsProcess]) -> str:
    """What runs in the server's stead."""
    if running := processes.servers(table):
        return f"`ollama serve` runs (PID {running[0].pid}) and listens elsewhere: see OLLAMA_HOST"
    named = processes.lookalikes(table)
    also = f"; {named[0].command.split()[0]} (PID {named[0].pid}) runs and is not it" if named else ""
    return f"no `ollama serve` runs{also}"
